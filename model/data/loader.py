"""The batches of training, read ahead of the step that needs them."""

import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from infra.manifest import TokenizerRecord
from model.config import TrainingSettings
from model.data.batches import Batch, Rows, ask, empty_rows, fill_row, own_samples, to_batches
from model.data.objectives import Objective
from model.data.order import TrainingOrder
from model.data.skips import Skips, place_of

if TYPE_CHECKING:
    from model.parallel import Place


class Loader:
    """Answers requests for samples in training order; guesses the next requests and reads their samples ahead.

    A request says which samples it wants, so there is no state to save or restore: whoever resumes or goes back asks
    for the samples that come next, and what was read ahead in vain is dropped. A context manager: leaving it ends the
    thread.
    """

    def __init__(
        self,
        order: TrainingOrder,
        settings: TrainingSettings,
        end_of_document: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        device: torch.device,
        objective: Objective | None = None,
    ) -> None:
        """`rank` is the number of this one among the `ranks` that take different samples.

        Without an objective the next token is to be predicted.
        """
        self.order, self.device, self._objective = order, device, objective
        self._settings, self._end, self._rank, self._ranks = settings, end_of_document, rank, ranks
        self._ahead: _Ahead | None = None
        self.waited = 0.0
        """Seconds in which training has waited for samples so far."""

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread; a later request starts another."""
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None

    def take(self, first: int, count: int, skips: Skips = ()) -> list[Batch]:
        """Give this rank's micro-batches of samples first, ..., first + count - 1 of those that are not skipped.

        Raises what went wrong in the thread.
        """
        began = time.monotonic()
        rows = self._rows(Request(first, count, skips))
        self.waited += time.monotonic() - began
        return to_batches(rows, self._settings.micro_batch_size, self.device)

    def _rows(self, request: "Request") -> Rows:
        depth = self._settings.data.prefetch
        if depth == 0:
            return self.read(request)
        if self._ahead is None or self._ahead.next != request:
            self.close()
            self._ahead = _Ahead(self, request, depth)
        try:
            return self._ahead.take()
        except BaseException:
            self.close()
            raise

    def read(self, request: "Request") -> Rows:
        """The rows of a request, filled; safe in any thread."""
        micro, apart = self._settings.micro_batch_size, not self._settings.data.attend_across_documents
        samples = own_samples(request.first, request.count, micro=micro, rank=self._rank, ranks=self._ranks)
        length, pinned = self._settings.model.sequence_length, self.device.type == "cuda"
        rows = empty_rows(samples, length, documents=apart, pinned=pinned)
        values = rows.values.numpy()
        for number, sample in enumerate(samples):
            source, pieces = self.order.sample(place_of(sample, request.skips))
            fill_row(values[:, number], self.order.sources[source].documents, pieces, self._end)
        return rows if self._objective is None else ask(self._objective, rows)


def training_loader(
    order: TrainingOrder, settings: TrainingSettings, place: "Place", tokenizer: TokenizerRecord
) -> Loader:
    """The loader of a rank of a training run."""
    end = tokenizer.end_of_document
    return Loader(
        order,
        settings,
        end,
        rank=place.data_rank,
        ranks=place.layout.data,
        device=place.device,
        objective=Objective(settings.model, tokenizer.vocabulary_size, end, settings.seed),
    )


@dataclass(frozen=True)
class Request:
    """Samples that are asked for, as `Loader.take` is told."""

    first: int
    count: int
    skips: Skips = ()

    @property
    def following(self) -> "Request":
        """The request that is likely to come next."""
        return Request(self.first + self.count, self.count, self.skips)


class _Ahead:
    """A thread that reads one request after another into a short queue."""

    def __init__(self, loader: Loader, first: Request, depth: int) -> None:
        self.next = first
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(loader, first), name="samples", daemon=True)
        self._thread.start()

    def take(self) -> Rows:
        found = self._queue.get()
        if isinstance(found, BaseException):
            raise found
        self.next = self.next.following
        return found

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self, loader: Loader, request: Request) -> None:
        try:
            if loader.device.type == "cuda":
                torch.cuda.set_device(loader.device)  # pinning memory opens a context on the thread's own device
            while not self._stopped.is_set():
                self._put(loader.read(request))
                request = request.following
        except BaseException as error:  # noqa: BLE001 - it is raised where the samples are taken
            self._put(error)

    def _put(self, found: Rows | BaseException) -> None:
        while not self._stopped.is_set():
            try:
                return self._queue.put(found, timeout=0.05)
            except queue.Full:
                continue
