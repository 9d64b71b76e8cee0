"""The likelihood of held-out text, document by document, under a model and under token frequencies.

Held-out documents are concatenated in their order and cut into windows of `sequence_length` tokens. Every token is
predicted exactly once, each document's end-of-document token included, from what precedes it in its window and the
last token of the window before; the first of all is predicted from an end-of-document token, as in training. Where
training kept documents apart, so does this. Losses are added up by document, whatever windows hold its tokens and
whatever ranks hold the windows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from model.architectures.context import own_positions
from model.data.batches import Rows, ask, empty_rows, fill_row, own_samples, to_batches
from model.data.documents import Documents, Integers
from model.data.objectives import Objective
from model.data.packing import CutEpoch
from model.parallel import Place, context_group
from model.updates.forward import position_losses

Floats = npt.NDArray[np.float64]

_MICRO_BATCHES_AT_ONCE = 64


@dataclass(frozen=True)
class HeldOut:
    """The part of the held-out split that is measured on."""

    documents: Documents
    count: int
    """Documents from the first on."""
    end_of_document: int

    @property
    def tokens(self) -> int:
        """Predicted tokens."""
        return int(self.documents.lengths[: self.count].sum())

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the same documents."""
        return int(self.documents.text_bytes[: self.count].sum())

    def windows(self, length: int) -> CutEpoch:
        """Windows of `length` tokens, the last perhaps shorter."""
        return CutEpoch(self.documents.lengths, np.arange(self.count), length, keep_rest=True)


@dataclass(frozen=True)
class DocumentNats:
    """What a model makes of each document of a HeldOut."""

    nats: Floats
    """Negative log-likelihood of the predicted tokens."""
    tokens: Integers
    """Predicted tokens: all of a document's, or those that the objective asks for."""

    @property
    def loss(self) -> float:
        """Nats for each predicted token of all documents."""
        return float(self.nats.sum() / self.tokens.sum())


def choose(documents: Documents, max_tokens: int | None, end_of_document: int) -> HeldOut:
    """Take whole documents up to `max_tokens` tokens, but at least one, so that tokens and bytes belong together."""
    fitting = len(documents)
    if max_tokens is not None:
        fitting = int(np.searchsorted(np.cumsum(documents.lengths), max_tokens, side="right"))
    return HeldOut(documents, max(fitting, 1), end_of_document)


def document_nats(
    chunks: Sequence[Any],
    held_out: HeldOut,
    length: int,
    micro: int,
    place: Place,
    *,
    across: bool = True,
    objective: Objective | None = None,
    check: Callable[[], None] = lambda: None,
) -> DocumentNats:
    """Negative log-likelihood of each document's predicted tokens, and their number; every rank gets all of it.

    `across` says whether documents in a window see one another, as they did in training. Without an objective all
    tokens are predicted, each from those before. `check` is called by every rank now and then, and may raise.
    """
    windows = held_out.windows(length)
    ranks = place.layout.data
    # Rows of padding do not count: they only give every replica the same number of full micro-batches.
    numbers = own_samples(
        0, -(-windows.samples // (micro * ranks)) * micro * ranks, micro=micro, rank=place.data_rank, ranks=ranks
    )
    sums = np.zeros((2, held_out.count))
    for chunk in chunks:
        chunk.eval()
    with torch.no_grad():
        for start in range(0, len(numbers), _MICRO_BATCHES_AT_ONCE * micro):
            check()
            part = numbers[start : start + _MICRO_BATCHES_AT_ONCE * micro]
            asked = _ask(*_rows(held_out, windows, part, length), across, objective)
            losses = position_losses(chunks, to_batches(asked.rows, micro, place.device), place)
            _add_by_document(sums, losses, asked.owners, micro)
    total = torch.from_numpy(sums).to(place.device)
    place.add_over_all(total)
    nats, tokens = total.cpu().numpy()
    assert objective is not None or np.array_equal(tokens, held_out.documents.lengths[: held_out.count])
    return DocumentNats(nats, tokens.astype(np.int64))


def _rows(held_out: HeldOut, windows: CutEpoch, numbers: Sequence[int], length: int) -> tuple[Rows, list[Integers]]:
    """Windows as rows that tell their documents apart, and the documents of each row."""
    rows, documents = empty_rows(numbers, length, documents=True), []
    for row, number in enumerate(numbers):
        pieces = windows.pieces(number) if number < windows.samples else None
        documents.append(np.zeros(0, np.int64) if pieces is None else pieces.documents)
        if pieces is not None:
            fill_row(rows.values[:, row].numpy(), held_out.documents, pieces, held_out.end_of_document)
    return rows, documents


class _Asked(NamedTuple):
    """What the model is asked."""

    rows: Rows
    owners: torch.Tensor
    """int64 [rows, positions]: the document that each predicted token belongs to, -1 where nothing is predicted."""


def _ask(rows: Rows, documents: Sequence[Integers], across: bool, objective: Objective | None) -> _Asked:
    """Rows of windows as rows of the objective, which tell documents apart only where these may not see each other."""
    apart = rows if objective is None else ask(objective, rows)
    _, labels, places = apart.values.numpy()
    owners = np.full(labels.shape, -1, np.int64)
    for row, known in enumerate(documents):
        counted = labels[row] >= 0
        owners[row, counted] = known[places[row, counted]]
    if across:
        together = Rows(rows.values[:2], rows.samples)
        return _Asked(together if objective is None else ask(objective, together), torch.from_numpy(owners))
    return _Asked(apart, torch.from_numpy(owners))


def _add_by_document(sums: Floats, losses: Sequence[torch.Tensor], owners: torch.Tensor, micro: int) -> None:
    """Add losses and numbers of predicted tokens to [2, documents], from this rank's part of each micro-batch."""
    for batch, found in enumerate(losses):
        owner = own_positions(owners[batch * micro : (batch + 1) * micro], 1, context_group()).numpy()
        counted = owner >= 0
        np.add.at(sums[0], owner[counted], found.cpu().numpy()[counted].astype(np.float64))
        np.add.at(sums[1], owner[counted], 1)


def unigram_nats(training_counts: Integers, held_out: HeldOut) -> float:
    """Negative log-likelihood in nats of the same tokens by their training frequencies, with one added to each."""
    smoothed = training_counts + 1
    log_probability = np.log(smoothed) - np.log(smoothed.sum())
    return -float(held_out.documents.frequencies(len(smoothed), held_out.count) @ log_probability)
