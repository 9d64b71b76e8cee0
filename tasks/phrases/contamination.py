"""Contamination: which items of benchmarks stand in the documents that a model was trained on.

The items are those that an evaluation put to the model, each its question and its right answer as they follow each
other. They are looked for as decontamination does: word n-grams, of which a document holds one or a set share. What is
searched is the text just before tokenization, without held-out documents and without further copies of one.

    stages/contamination_index/<fingerprint>/part-…arrow            one row for each item, beside its n-grams
    stages/contamination/<fingerprint>/part-…arrow                  which document holds how much of which item

Items with too few words are not looked for, which is not to say that they are clean: both are counted.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from pydantic import Field

from infra.errors import BadInput
from infra.manifest import DatasetManifest, Manifest, StageManifest, canonical_json
from infra.settings import Settings
from infra.store import Store
from tasks.heldout import HeldoutSettings
from tasks.phrases.benchmarks import PROMPT_LABELS, Item
from tasks.phrases.decontaminate import (
    HITS,
    ITEMS,
    NGRAMS,
    BenchmarkIndexSettings,
    DecontaminationSettings,
    build_index,
    hold_against,
    open_index,
)
from tasks.stage import Split, Stage, StageRunner
from tasks.training_documents import TrainingDocuments, trained_on, training_documents

logger = logging.getLogger(__name__)
pc: Any = pyarrow.compute  # its functions are made when it is imported: types know few of them

FOUND = pa.schema([field for field in HITS if field.name != "benchmark"])
"""A training document and an item of which it holds `found` of `ngrams`, and whether that is enough."""

CONTAMINATED = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),
        pa.field("ngrams", pa.int32(), nullable=False),
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("share", pa.float32(), nullable=False),
        pa.field("document", pa.string()),
        pa.field("passage", pa.large_string()),
    ]
)
"""One row for each item: its n-grams that are looked for (0: none can be), the training documents that hold it, the
largest share of its n-grams in one of them, that document and the first passage that it shares."""

CONTAMINATION_INDEX = Stage("contamination_index", 1, ITEMS, {"ngrams": NGRAMS}, private=False, compressed=False)
CONTAMINATION = Stage("contamination", 1, FOUND)


class ContaminationSettings(Settings):
    """What counts as an item's text in a document; defaults and reasons are those of BenchmarkIndexSettings."""

    ngram: int = Field(default=13, ge=2, le=64)
    """Words of an n-gram."""
    min_words: int = Field(default=8, ge=1)
    """Items with fewer words than an n-gram are looked for as a whole if they have this many."""
    min_telling: float = Field(default=0.5, ge=0, le=1)
    """N-grams of which a smaller share of words is more than a number or a single letter are left out."""
    max_items: int | None = Field(default=30, ge=1)
    """N-grams of more items of one task than this are left out."""
    min_share: float | None = Field(default=None, gt=0, le=1)
    """Share of an item's n-grams that a document must hold to be contaminated by it; unset means any one of them."""


class _IndexSettings(Settings):
    """What decides the index."""

    items: str
    """Digest of the items' texts and answers."""
    look_for: BenchmarkIndexSettings


class _SearchSettings(Settings):
    """What decides which documents are searched, and what is enough."""

    heldout: HeldoutSettings
    min_share: float | None


class TaskContamination(Settings):
    """How much of one task a model has seen."""

    task: str
    items: int
    looked_for: int
    """Items with words enough to be looked for."""
    contaminated: int
    """Items that stand in a training document."""


class ContaminationRecord(Manifest):
    """How much of each task of an evaluation stands in the training documents."""

    datasets: tuple[str, ...]
    """NAME/VERSION of what was trained on."""
    documents: int
    """Training documents that were searched, further copies of one left out."""
    settings: ContaminationSettings
    tasks: tuple[TaskContamination, ...]


@dataclass(frozen=True)
class Contamination:
    """What was found in the datasets that a model was trained on."""

    items: pa.Table
    """CONTAMINATED, by task and item."""
    record: ContaminationRecord


def contamination(
    runner: StageRunner, items: str, datasets: Sequence[DatasetManifest], settings: ContaminationSettings
) -> Contamination | None:
    """Look for the items of a Parquet file, given relative to the root, in the training documents of datasets.

    The file has columns task, item, text and answer. None, with a warning, where the documents of a dataset are gone.
    BadInput where the file lacks a column.
    """
    sources = {f"{each.name}/{each.version}": training_documents(runner.store, each) for each in datasets}
    if gone := [name for name, source in sources.items() if source is None]:
        logger.warning(
            "contamination is not known: the documents of dataset %s before tokenization are gone; "
            "`gristmill corpus` with its settings makes them again",
            ", ".join(gone),
        )
        return None
    index = index_items(runner, items, settings)
    found = [_search(runner, source, index, settings) for source in sources.values() if source is not None]
    table = contaminated_items(runner.store, index, found)
    record = ContaminationRecord(
        datasets=tuple(sources),
        documents=sum(each.total("counters").get("documents", 0) for each in found),
        settings=settings,
        tasks=tuple(by_task(table)),
    )
    return Contamination(table, record)


def index_items(runner: StageRunner, items: str, settings: ContaminationSettings) -> StageManifest:
    """Index the items of a Parquet file; the same items are indexed once, whatever answers a model gave."""
    look_for = BenchmarkIndexSettings(**settings.model_dump(exclude={"min_share"}))
    digest = hashlib.sha256(canonical_json([list(item) for item in read_items(runner.store, items)])).hexdigest()
    return runner.run(
        CONTAMINATION_INDEX, IndexItems(items), ["items"], _IndexSettings(items=digest, look_for=look_for), {}
    )


def read_items(store: Store, path: str) -> list[Item]:
    """The items of a Parquet file by task and number, each task counting as a benchmark of its own."""
    columns = ["task", "item", "text", "answer"]
    file = pq.ParquetFile(pa.BufferReader(store.read_bytes(path)))
    if missing := sorted(set(columns) - set(file.schema_arrow.names)):
        raise BadInput(
            f"{store.full_path(path)} has no column {', '.join(missing)}",
            "items are looked for by their task, item, text and answer",
            "Evaluate again to write it anew",
        )
    rows = sorted({tuple(row[name] for name in columns) for row in file.read(columns).to_pylist()})
    return [Item(task, task, number, _parts(text, answer)) for task, number, text, answer in rows]


def _parts(text: str, answer: str) -> list[str]:
    """Question and answer as a page has them one after the other, without what a prompt adds."""
    return [part for part in PROMPT_LABELS.split(f"{text} {answer}") if part.strip()]


@dataclass(frozen=True)
class IndexItems:
    """The shard function of the index: one shard for all items."""

    path: str

    def __call__(self, store: Store, source: str, settings: _IndexSettings) -> Iterator[Split]:
        """Yield the index."""
        yield build_index(read_items(store, self.path), settings.look_for)


def _search(
    runner: StageRunner, source: TrainingDocuments, index: StageManifest, settings: ContaminationSettings
) -> StageManifest:
    parents = {source.stage.stage: source.stage.digest, index.stage: index.digest}
    function = FindItems(index.kept_paths[0], f"{index.folder}/{index.shards[0].others['ngrams'].path}")
    wanted = _SearchSettings(heldout=source.heldout, min_share=settings.min_share)
    return runner.run(CONTAMINATION, function, source.stage.kept_paths, wanted, parents)


@dataclass(frozen=True)
class FindItems:
    """The shard function: holds the training documents of a shard against an index in the store."""

    items: str
    ngrams: str

    def __call__(self, store: Store, source: str, settings: _SearchSettings) -> Iterator[Split]:
        """Yield FOUND of each batch; counts documents."""
        index = open_index(store.root, self.items, self.ngrams)
        wanted = DecontaminationSettings(min_share=settings.min_share, action="annotate")
        reader = store.open_table(source, ["id", "text"])
        for batch in range(reader.num_record_batches):
            table = trained_on(pa.Table.from_batches([reader.get_batch(batch)]), settings.heldout)
            hits = hold_against(table, index, wanted).others["hits"]
            yield Split(hits.select(FOUND.names), counters={"documents": table.num_rows})


def contaminated_items(store: Store, index: StageManifest, found: Sequence[StageManifest]) -> pa.Table:
    """CONTAMINATED of all items of an index, from what the documents of some datasets hold."""
    rows: dict[tuple[str, int], dict[str, Any]] = {
        (each["task"], each["item"]): {**each, "documents": 0, "share": 0.0}
        for each in store.read_table(index.kept_paths[0], ["task", "item", "ngrams"]).to_pylist()
    }
    for path in (path for manifest in found for path in manifest.kept_paths):
        hits = store.read_table(path)
        for hit in hits.filter(hits["contaminated"]).to_pylist():
            row = rows[hit["task"], hit["item"]]
            row["documents"] += 1
            if hit["share"] > row["share"]:
                row |= {"share": hit["share"], "document": hit["id"], "passage": hit["passage"]}
    return pa.Table.from_pylist([rows[key] for key in sorted(rows)], schema=CONTAMINATED)


def by_task(items: pa.Table) -> Iterator[TaskContamination]:
    """The counts of each task of CONTAMINATED, by name."""
    columns = pa.table(
        {
            "task": items["task"],
            "looked_for": pc.greater(items["ngrams"], 0),
            "contaminated": pc.greater(items["documents"], 0),
        }
    )
    counts = columns.group_by("task").aggregate([("task", "count"), ("looked_for", "sum"), ("contaminated", "sum")])
    for row in counts.sort_by("task").to_pylist():
        yield TaskContamination(
            task=row["task"],
            items=row["task_count"],
            looked_for=row["looked_for_sum"],
            contaminated=row["contaminated_sum"],
        )
