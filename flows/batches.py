"""`gristmill batch RUN --step N`: the documents that a step was trained on, and where each came from.

A run keeps no list of them: its settings, the shards of its datasets and the samples that its events left out say all
that is needed. Addresses and places come from the ledgers of the datasets.
"""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from flows.runs import find_run
from infra.errors import BadInput
from infra.manifest import DatasetManifest, StageManifest
from infra.report import printable
from infra.settings import Settings
from infra.store import Store
from model.data.order import TrainingOrder
from model.data.skips import place_of
from model.data.sources import open_order
from model.recovery.events import current_skips, read_events
from model.run import RunRecord, open_run_folder, read_metrics, training_datasets
from tasks.ledger import LEDGER
from tasks.pipeline import manifest_path
from tasks.tokens.mix import COPY_MARK

pc: Any = pyarrow.compute  # its functions are made when it is imported: types know few of them
_PROVENANCE = ("source", "url", "file", "offset", "license")


class BatchDocument(Settings):
    """A document, or a part of one, in a sample."""

    sample: int
    """Number of the sample, counted from the start of training."""
    rank: int
    """Which of the data-parallel replicas took it, under the run's latest layout."""
    dataset: str
    """NAME/VERSION."""
    id: str
    """The document's id; a copy that a mixture made bears # and its number behind it."""
    start: int
    """First token of the part, counted in the document."""
    tokens: int
    """Tokens of the part."""
    length: int
    """Tokens of the whole document."""
    source: str | None = None
    url: str | None = None
    file: str | None = None
    """WARC or other file of the source that holds it."""
    offset: int | None = None
    """Where in the file, as the ledger counts."""
    license: str | None = None


class BatchDetails(Settings):
    """What `gristmill batch` prints."""

    run: str
    step: int
    made: bool
    """Whether the run has made this step; if not, a batch that is left out before could still change it."""
    samples: int
    """Samples of the whole batch."""
    left_out: int
    """Samples that the run has left out so far because something was unhealthy."""
    rank: int | None
    """The one replica that was asked for."""
    documents: tuple[BatchDocument, ...]

    def text(self) -> str:
        """The same for people: a line for each part of a document."""
        whose = "" if self.rank is None else f" of replica {self.rank}"
        state = "" if self.made else ", not made yet"
        lines = [f"{self.run}, step {self.step:,}{state}: {self.samples:,} samples"]
        lines += [f"{self.left_out:,} samples are left out of the run: see events.jsonl"] if self.left_out else []
        lines.append(f"{len(self.documents):,} documents and parts{whose}")
        lines.append(f"{'sample':>9} {'rank':>4}  {'tokens':<19} {'id':<35} source, address, file @ offset, licence")
        lines += [_line(each) for each in self.documents]
        return printable("\n".join(lines))


def _line(part: BatchDocument) -> str:
    tokens = f"{part.start}+{part.tokens} of {part.length}"
    place = None if part.file is None else f"{part.file} @ {part.offset}"
    told = "  ".join(each for each in (part.source, part.url, place, part.license) if each)
    return f"{part.sample:>9} {part.rank:>4}  {tokens:<19} {part.id:<35} {told or part.dataset}"


def batch_details(store: Store, run: str, step: int, rank: int | None = None) -> BatchDetails:
    """What a step of a run was trained on; `run` as `find_run` takes it, `rank` to see one replica's part alone.

    BadInput for a run, step or rank that there is not.
    """
    folder = find_run(store, run)
    store, record, _ = open_run_folder(folder)
    _check(record, step, rank)
    datasets = training_datasets(store, record)
    training = record.training
    order = open_order(store, datasets, training.data, training.model.sequence_length, training.seed)
    events = read_events(folder)
    skips = current_skips(events)
    first, count = training.batches.samples(step - 1), training.batches.at(step)
    micro, ranks = training.micro_batch_size, training.parallel.data
    parts: list[_Part] = []
    for sample in range(first, first + count):
        owner = (sample - first) // micro % ranks
        if rank in (None, owner):
            parts += _parts(order, datasets, sample, place_of(sample, skips), owner)
    metrics = read_metrics(folder)
    return BatchDetails(
        run=record.folder,
        step=step,
        made=bool(metrics) and metrics[-1]["step"] >= step,
        samples=count,
        left_out=sum(end - begin for begin, end in skips),
        rank=rank,
        documents=tuple(_with_provenance(store, datasets, parts)),
    )


def _check(record: RunRecord, step: int, rank: int | None) -> None:
    if not 1 <= step <= record.steps:
        raise BadInput(f"step {step}", f"{record.folder} has steps 1 to {record.steps}", "Choose one of them")
    if rank is not None and not 0 <= rank < record.training.parallel.data:
        ranks = record.training.parallel.data
        raise BadInput(f"rank {rank}", f"{record.folder} has {ranks} data-parallel replicas", f"0 to {ranks - 1}")


class _Part(NamedTuple):
    document: BatchDocument
    source: int
    """Number of the dataset in the blend."""
    shard: str
    """Path of the token shard."""


def _parts(
    order: TrainingOrder, datasets: Sequence[DatasetManifest], sample: int, place: int, rank: int
) -> Iterator[_Part]:
    source, pieces = order.sample(place)
    documents, dataset = order.sources[source].documents, datasets[source]
    for document, start, count in zip(*(each.tolist() for each in pieces), strict=True):
        part = BatchDocument(
            sample=sample,
            rank=rank,
            dataset=f"{dataset.name}/{dataset.version}",
            id=documents.name(document),
            start=start,
            tokens=count,
            length=int(documents.lengths[document]),
        )
        yield _Part(part, source, documents.shard(document).path)


def _with_provenance(
    store: Store, datasets: Sequence[DatasetManifest], parts: Sequence[_Part]
) -> Iterator[BatchDocument]:
    """The documents with what the ledgers know of them; as they are where a dataset has no ledger."""
    wanted: dict[tuple[int, str], set[str]] = {}
    for part in parts:
        wanted.setdefault((part.source, part.shard), set()).add(_original(part.document.id))
    known = {key: _in_ledger(store, datasets[key[0]], key[1], ids) for key, ids in wanted.items()}
    for part in parts:
        found = known[part.source, part.shard].get(_original(part.document.id), {})
        yield part.document.model_copy(update=found)


def _original(document: str) -> str:
    return document.partition(COPY_MARK)[0]


def _in_ledger(store: Store, dataset: DatasetManifest, shard: str, ids: set[str]) -> dict[str, dict[str, Any]]:
    """Provenance by document id, for documents of one token shard."""
    if LEDGER.name not in dataset.stages:
        return {}
    ledger = StageManifest.load(store, manifest_path(dataset, LEDGER.name))
    name = f"{PurePosixPath(shard).stem}.parquet"
    path = next((each for each in ledger.kept_paths if PurePosixPath(each).name == name), None)
    if path is None:
        return {}
    among = pc.is_in(pc.field("id"), pa.array(sorted(ids), pa.string()))
    table = pq.read_table(store.local_path(path), columns=["id", *_PROVENANCE], filters=among)
    return {row.pop("id"): row for row in table.to_pylist()}
