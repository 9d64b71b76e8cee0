"""Decontamination: documents that hold the text of benchmark items, named item by item.

Benchmark items are read once into an index of their word n-grams (13, as GPT-3 and lm-evaluation-harness have it; an
item with fewer words counts as one n-gram from 8 words on). Words are those of `finder.py`: lower case, without
punctuation. A document is contaminated by an item when it holds one of the item's n-grams, or a set share of them.
N-grams that many items have (`which of the following statements is true about`) name no item and are left out.

    stages/benchmark_index/<fingerprint>/part-…arrow            one row for each item
                                         ngrams/part-…arrow     their n-grams in order of hashes, mapped by the workers
    stages/decontaminate/<fingerprint>/hits/part-…arrow         which document holds how much of which item
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from infra.errors import BadInput
from infra.manifest import StageManifest
from infra.schema import DOCUMENTS
from infra.settings import Settings
from infra.store import Store
from tasks.inputs import UserFile, pinned
from tasks.phrases.benchmarks import Benchmark, Item, benchmarks_below, read_items
from tasks.phrases.finder import Phrases, Words, buffer, find, phrase_hashes, phrases, words_of
from tasks.stage import Split, Stage, StageRunner, conform, split_by_reason

ITEMS = pa.schema(
    [
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("item", pa.int64(), nullable=False),
        pa.field("words", pa.large_string(), nullable=False),
        pa.field("ngrams", pa.int32(), nullable=False),
    ]
)
"""An item's normalised words, and its number of different n-grams that are looked for: 0 if it is too short."""

NGRAMS = pa.schema(
    [
        pa.field("hash", pa.uint64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("end", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
    ]
)
"""An n-gram of an item: the item's row, the place in all items' words one after another, and the number of words."""

HITS = pa.schema(
    [
        DOCUMENTS.field("id"),
        *(ITEMS.field(name) for name in ("benchmark", "task", "item")),
        pa.field("found", pa.int32(), nullable=False),
        pa.field("ngrams", pa.int32(), nullable=False),
        pa.field("share", pa.float32(), nullable=False),
        pa.field("contaminated", pa.bool_(), nullable=False),
        pa.field("passage", pa.large_string(), nullable=False),
    ]
)
"""A document and an item of which it holds `found` of `ngrams`; whether that is enough; the first passage it shares."""

CONTAMINATION = pa.schema(
    [
        pa.field("benchmark", pa.string(), nullable=False),
        *(pa.field(name, pa.int64(), nullable=False) for name in ("items", "indexed", "hit", "documents")),
    ]
)

BENCHMARK_INDEX = Stage("benchmark_index", 1, ITEMS, {"ngrams": NGRAMS}, private=False, compressed=False)
DECONTAMINATE = Stage("decontaminate", 1, others={"hits": HITS})
MOST_HITS = 1 << 20
"""A document with more n-grams of benchmarks is read up to there: it holds whole benchmarks."""


class BenchmarkIndexSettings(Settings):
    """Which benchmark items are looked for, and as what n-grams."""

    folder: UserFile | None = None
    """A folder with a folder for each benchmark, which gives it its name."""
    benchmarks: tuple[Benchmark, ...] = ()
    """Single benchmarks; one that is called like a folder above takes its place."""
    ngram: int = Field(default=13, ge=2, le=64)
    """Words of an n-gram (GPT-3, Brown et al. 2020, appendix C)."""
    min_words: int = Field(default=8, ge=1)
    """Texts with fewer words than an n-gram count as one n-gram if they have this many (the least n of GPT-3)."""
    min_telling: float = Field(default=0.5, ge=0, le=1)
    """N-grams of which a smaller share of words is more than a number or a single letter are left out: any list of
    numbers has `1 2 3 4 5 6 7 8 9 10 11 12 13`."""
    max_items: int | None = Field(default=30, ge=1)
    """N-grams of more items of one benchmark than this are left out: they are its phrases, not an item's text. Below
    that they may be a passage that many questions share."""

    @property
    def given(self) -> bool:
        """Whether there is anything to look for."""
        return self.folder is not None or bool(self.benchmarks)


class DecontaminationSettings(Settings):
    """Which documents count as contaminated, and what becomes of them."""

    index: BenchmarkIndexSettings = BenchmarkIndexSettings()
    """The benchmark items."""
    min_share: float | None = Field(default=None, gt=0, le=1)
    """Share of an item's n-grams that a document must hold to be contaminated by it; unset means any one of them."""
    action: Literal["drop", "annotate"] = "drop"
    """Drop contaminated documents, or keep them and only record what they hold."""


@dataclass(frozen=True)
class BenchmarkIndex:
    """The index as a worker has it: mapped files."""

    items: pa.Table
    ngrams: Phrases
    rows: np.ndarray
    """int64 (n-grams,): the item of each."""


def pinned_benchmarks(settings: BenchmarkIndexSettings) -> BenchmarkIndexSettings:
    """The settings with the digests of the files; BadInput if one is absent or two benchmarks have one name."""
    names = [each.name for each in settings.benchmarks]
    if len(set(names)) < len(names):
        raise BadInput(f"benchmarks {', '.join(names)}", "each has a name of its own", "Rename one of them")
    folder = None if settings.folder is None else pinned(settings.folder)
    return settings.model_copy(
        update={"folder": folder, "benchmarks": tuple(pinned(each) for each in settings.benchmarks)}
    )


def decontaminate(
    runner: StageRunner, parent: StageManifest, settings: DecontaminationSettings
) -> tuple[StageManifest, StageManifest]:
    """Index the benchmarks, and hold the documents against them. Returns both stages' manifests."""
    settings = settings.model_copy(update={"index": pinned_benchmarks(settings.index)})
    index = runner.run(BENCHMARK_INDEX, index_benchmarks, ["benchmarks"], settings.index, {})
    parents = {parent.stage: parent.digest, index.stage: index.digest}
    function = Decontaminator(index.kept_paths[0], f"{index.folder}/{index.shards[0].others['ngrams'].path}")
    return index, runner.run(DECONTAMINATE, function, parent.kept_paths, settings, parents)


def index_benchmarks(store: Store, source: str, settings: BenchmarkIndexSettings) -> Iterator[Split]:
    """The shard function of the index: one shard for all benchmarks; neither the store nor the source is read."""
    yield build_index([item for each in chosen_benchmarks(settings) for item in read_items(each)], settings)


def chosen_benchmarks(settings: BenchmarkIndexSettings) -> list[Benchmark]:
    """All benchmarks of the settings, in order of their names."""
    found = {each.name: each for each in benchmarks_below(settings.folder.path)} if settings.folder else {}
    found |= {each.name: each for each in settings.benchmarks}
    return [found[name] for name in sorted(found)]


def build_index(items: list[Item], settings: BenchmarkIndexSettings) -> Split:
    """ITEMS as kept rows and NGRAMS as another output."""
    parts = [part for item in items for part in item.parts]
    words = words_of(parts)
    row_of_part = np.repeat(np.arange(len(items)), [len(item.parts) for item in items])
    ngrams = _ngrams(words, row_of_part, [item.benchmark for item in items], settings)
    first_words = np.searchsorted(row_of_part, np.arange(len(items) + 1))
    bounds = np.append(words.starts, len(words.data))[words.offsets[first_words]]
    text = pa.LargeStringArray.from_buffers(len(items), pa.py_buffer(bounds), pa.py_buffer(words.data))
    kept = pa.table(
        [
            pa.array([item.benchmark for item in items], pa.string()),
            pa.array([item.task for item in items], pa.string()),
            pa.array([item.number for item in items], pa.int64()),
            text,
            pa.array(np.bincount(ngrams["row"].to_numpy(), minlength=len(items)), pa.int32()),
        ],
        schema=ITEMS,
    )
    return Split(kept, others={"ngrams": ngrams})


def _ngrams(words: Words, row_of_part: np.ndarray, benchmarks: list[str], settings: BenchmarkIndexSettings) -> pa.Table:
    """NGRAMS of parts, each n-gram once for an item, without those of too many items of one benchmark."""
    counts = np.diff(words.offsets)
    many = np.where(counts >= settings.ngram, counts - settings.ngram + 1, counts >= settings.min_words).astype(
        np.int64
    )
    part = np.repeat(np.arange(len(counts)), many)
    place = np.arange(len(part)) - np.repeat(np.cumsum(many) - many, many)
    first, length = words.offsets[part] + place, np.minimum(counts[part], settings.ngram)
    telling = np.append(0, np.cumsum(_telling(words)))
    kept = telling[first + length] - telling[first] >= settings.min_telling * length
    part, first, length = part[kept], first[kept], length[kept]
    row, hashes = row_of_part[part], phrase_hashes(words, first, length)
    order = np.lexsort((first, row, hashes))
    order = order[_differs(hashes[order], row[order])]
    if settings.max_items is not None:
        order = order[~_common(hashes[order], np.unique(benchmarks, return_inverse=True)[1][row[order]], settings)]
    start, end = words.starts[first[order]], words.ends[first[order] + length[order] - 1]
    return pa.table([hashes[order], row[order], start, end, length[order]], schema=NGRAMS)


def _telling(words: Words) -> np.ndarray:
    """Which words are more than a number or one letter of an alphabet."""
    lead = words.data[words.starts] if len(words.starts) else np.zeros(0, np.uint8)
    return ~((lead >= ord("0")) & (lead <= ord("9"))) & (words.ends - words.starts > 1)


def _common(hashes: np.ndarray, benchmark: np.ndarray, settings: BenchmarkIndexSettings) -> np.ndarray:
    """Which n-grams, in order of their hashes, too many items of one benchmark have."""
    order = np.lexsort((benchmark, hashes))
    new = np.flatnonzero(_differs(hashes[order], benchmark[order]))
    sizes = np.diff(new, append=len(order))
    return np.isin(hashes, hashes[order[new[sizes > (settings.max_items or len(order))]]])


def _differs(*columns: np.ndarray) -> np.ndarray:
    """Which rows differ from the row before; the first one does."""
    found = np.ones(len(columns[0]), bool)
    found[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return found


@dataclass(frozen=True)
class Decontaminator:
    """The shard function: holds the documents of a shard against an index in the store."""

    items: str
    ngrams: str

    def __call__(self, store: Store, source: str, settings: DecontaminationSettings) -> Iterator[Split]:
        """Yield the split of each batch."""
        index = open_index(store.root, self.items, self.ngrams)
        reader = store.open_table(source)
        for batch in range(reader.num_record_batches):
            yield hold_against(pa.Table.from_batches([reader.get_batch(batch)]), index, settings)


@lru_cache(maxsize=2)
def open_index(root: str, items: str, ngrams: str) -> BenchmarkIndex:
    """An index of a store, mapped once in each process."""
    return make_index(Store(root).read_table(items), Store(root).read_table(ngrams))


def make_index(items: pa.Table, ngrams: pa.Table) -> BenchmarkIndex:
    """An index from its two tables."""
    hashes, rows, starts, ends, lengths = (column.combine_chunks().to_numpy() for column in ngrams.columns)
    text: Any = items["words"].combine_chunks()
    data = np.frombuffer((text.buffers()[2] if len(text) else None) or b"", np.uint8)
    return BenchmarkIndex(items, phrases(data, hashes, starts, ends, np.unique(lengths)), rows)


def hold_against(table: pa.Table, index: BenchmarkIndex, settings: DecontaminationSettings) -> Split:
    """Hits of documents, and the documents without those that are contaminated (value: share, detail: the item)."""
    hits, documents = _hits(table, index, settings.min_share)
    enough, shares = hits["contaminated"].to_pylist(), hits["share"].to_pylist()
    names = hits["benchmark"].to_pylist()
    # Hits of a document follow one another, the largest share first.
    best: dict[int, int] = {}
    for hit in range(hits.num_rows - 1, -1, -1):
        if enough[hit]:
            best[documents[hit]] = hit
    counted = {(document, name) for document, name, counts in zip(documents, names, enough, strict=True) if counts}
    chosen = [best.get(row) if settings.action == "drop" else None for row in range(table.num_rows)]
    kept, dropped = split_by_reason(
        table,
        DECONTAMINATE.name,
        [None if hit is None else "contaminated" for hit in chosen],
        [None if hit is None else shares[hit] for hit in chosen],
        [None if hit is None else _name(hits, hit) for hit in chosen],
    )
    return Split(kept, dropped, {"hits": hits}, Counter(f"contaminated_{name}" for _, name in counted))


def contamination_by_benchmark(store: Store, index: StageManifest, done: StageManifest) -> pa.Table:
    """For each benchmark: items, those long enough to be looked for, those that documents held, and such documents."""
    items = store.read_table(index.kept_paths[0], ["benchmark", "ngrams"])
    paths = [f"{done.folder}/{shard.others['hits'].path}" for shard in done.shards]
    hits = pa.concat_tables([store.read_table(path) for path in paths]) if paths else HITS.empty_table()
    held = hits.filter(hits["contaminated"])
    rows = []
    for name in sorted(set(items["benchmark"].to_pylist())):
        ngrams = items.filter(pa.array([each == name for each in items["benchmark"].to_pylist()]))["ngrams"]
        mine = held.filter(pa.array([each == name for each in held["benchmark"].to_pylist()], pa.bool_()))
        rows.append(
            {
                "benchmark": name,
                "items": len(ngrams),
                "indexed": sum(count > 0 for count in ngrams.to_pylist()),
                "hit": len(set(zip(mine["task"].to_pylist(), mine["item"].to_pylist(), strict=True))),
                "documents": len(set(mine["id"].to_pylist())),
            }
        )
    return pa.Table.from_pylist(rows, schema=CONTAMINATION)


def _hits(table: pa.Table, index: BenchmarkIndex, min_share: float | None) -> tuple[pa.Table, list[int]]:
    """HITS of documents in their order, the largest share first, and the row of each hit's document."""
    places = find(table["text"], index.ngrams, MOST_HITS)
    # An n-gram that stands several times in a document is found once; hits are in order of their places.
    _, first = np.unique(places.text * len(index.rows) + places.phrase, return_index=True)
    first.sort()
    pairs = places.text[first] * index.items.num_rows + index.rows[places.phrase[first]]
    pairs, where, found = np.unique(pairs, return_index=True, return_counts=True)
    document, item = np.divmod(pairs, max(index.items.num_rows, 1))
    total = index.items["ngrams"].to_numpy()[item]
    share = (found / np.maximum(total, 1)).astype(np.float32)
    order = np.lexsort((item, -found, -share, document))
    document, item, found, share, total = (each[order] for each in (document, item, found, share, total))
    chosen = first[where[order]]
    data, offsets = buffer(table["text"])
    starts, ends = offsets[document] + places.start[chosen], offsets[document] + places.end[chosen]
    passages = [data[start:end].tobytes().decode() for start, end in zip(starts, ends, strict=True)]
    columns = {
        "id": table["id"].take(pa.array(document)),
        **{name: index.items[name].take(pa.array(item)) for name in ("benchmark", "task", "item")},
        "found": pa.array(found, pa.int32()),
        "ngrams": pa.array(total, pa.int32()),
        "share": pa.array(share, pa.float32()),
        "contaminated": pa.array(share >= np.float32(min_share or 0)),
        "passage": pa.array(passages, pa.large_string()),
    }
    return conform(columns, len(document), HITS), document.tolist()


def _name(hits: pa.Table, row: int) -> str:
    """What a person calls the item of a hit."""
    return "/".join(str(hits[name][row]) for name in ("benchmark", "task", "item"))
