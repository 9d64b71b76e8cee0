"""Survivors: which document of each group of duplicates stays, in whose place the others go, and how large groups are.

Documents are taken in the order of their ranks, the best first. One goes if it is a verified duplicate of one that
stays, and stays otherwise: nothing goes because of a chain of likenesses. (An exact copy of a document that went goes
in favour of the best other copy that stays.) Documents of the index always stay.

The decision is sequential and needs a bit for each new document, 12.5 MB for a hundred million, and an entry for each
text whose best copy went while another stayed. Everything else is sorted runs: the survivors stage writes decisions
by survivor, the clusters stage counts and names the survivors of a range and writes the rows by document, and the
duplicates stage gathers those of each shard, the same bytes however the ranges were cut.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numba import njit, types
from numba.typed import Dict

from infra.settings import Settings
from infra.store import Store
from tasks.duplicates.signatures import part_number, ref_parts, ref_rows, ref_segments, refs_at, refs_of_part
from tasks.duplicates.signed_documents import Library, Shards, is_old
from tasks.duplicates.verification import EXACT, KINDS
from tasks.sorted_runs import KeyRange, RunSorter, keys_of, read_range, read_ranges, take_keys
from tasks.stage import Split, Stage

_REFS = [pa.field("key", pa.uint64(), nullable=False), pa.field("loser", pa.uint64(), nullable=False)]
_VERDICT = [pa.field("kind", pa.uint8(), nullable=False), pa.field("similarity", pa.float64(), nullable=False)]
DECISIONS = pa.schema([*_REFS, *_VERDICT])
"""A document that goes; `key` is the ref of its survivor."""

CLUSTERED = pa.schema(
    [
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("survivor", pa.string(), nullable=False),
        pa.field("dataset", pa.string()),
        pa.field("version", pa.string()),
        *_VERDICT,
        pa.field("cluster_size", pa.int64(), nullable=False),
    ]
)
"""A document that goes, by its ref `key`, with the id of its survivor and the earlier dataset that has it."""

LARGEST = pa.schema(
    [
        pa.field("survivor", pa.string(), nullable=False),
        pa.field("url", pa.large_string()),
        pa.field("dataset", pa.string()),
        pa.field("version", pa.string()),
        pa.field("cluster_size", pa.int64(), nullable=False),
    ]
)

DUPLICATES = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("ref", pa.uint64(), nullable=False),
        pa.field("survivor", pa.string(), nullable=False),
        pa.field("dataset", pa.string()),
        pa.field("version", pa.string()),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
        pa.field("cluster_size", pa.int64(), nullable=False),
    ]
)
"""A document that goes, the survivor in whose place it goes, the earlier dataset that has the survivor (null: this
one), why, how alike they are, and how many documents have that survivor, itself included."""

_LIBRARIES = ("pyarrow", "numpy", "numba")
SURVIVORS = Stage("survivors", 1, DECISIONS, libraries=_LIBRARIES, private=False, compressed=False)
CLUSTERS = Stage("clusters", 2, CLUSTERED, others={"largest": LARGEST}, libraries=_LIBRARIES, compressed=False)
DUPLICATES_STAGE = Stage("duplicates", 1, DUPLICATES, libraries=_LIBRARIES, private=False)
MOST_LARGEST = 20
_STAYS, _WINNER = -2, -1


@dataclass(frozen=True)
class Survive:
    """The shard function of the survivors stage: its one shard reads the verified pairs of all, in order of rank."""

    verified: Shards
    rows: tuple[int, ...]
    """Documents in each shard."""

    def __call__(self, store: Store, _: str, settings: Settings) -> Iterator[Split]:
        """Yield decisions, in runs by survivor."""
        starts = np.concatenate([[0], np.cumsum(self.rows)]).astype(np.int64)
        gone = np.zeros(int(starts[-1]) // 8 + 1, np.uint8)
        copies = Dict.empty(types.int64, types.int64)
        sorter = RunSorter()
        for path in self.verified.paths():
            reader = store.open_table(path)
            for number in range(reader.num_record_batches):
                table = decide(pa.Table.from_batches([reader.get_batch(number)]), starts, gone, copies)
                yield from map(Split, sorter.add(table))
        yield from map(Split, sorter.finish())


def decide(pairs: pa.Table, starts: np.ndarray, gone: np.ndarray, copies: Any) -> pa.Table:
    """DECISIONS of the next pairs in the order of rank. `gone` (bits) and `copies` are what is known so far.

    `starts` (int64) counts the documents before each shard and, last, all.
    """
    losers, winners, kinds, similarity = (
        cast("np.ndarray", pairs[name].to_numpy()) for name in ("loser", "winner", "kind", "similarity")
    )
    old = is_old(winners)
    new_winners = np.where(old, np.uint64(0), winners)
    places = starts[ref_parts(losers).astype(np.int64)] + ref_rows(losers).astype(np.int64)
    others = starts[ref_parts(new_winners).astype(np.int64)] + ref_rows(new_winners).astype(np.int64)
    chosen = take_in_order(places, np.where(old, -1, others), kinds, gone, copies)
    rows = np.flatnonzero(chosen != _STAYS)
    part = np.searchsorted(starts, chosen[rows], side="right") - 1
    copy = refs_at(np.maximum(part, 0), chosen[rows] - starts[np.maximum(part, 0)])
    survivors = np.where(chosen[rows] == _WINNER, winners[rows], copy)
    columns = [survivors, losers[rows], kinds[rows], similarity[rows]]
    return pa.table([pa.array(each) for each in columns], schema=DECISIONS)


@njit(cache=True, nogil=True)
def take_in_order(losers: Any, winners: Any, kinds: Any, gone: Any, copies: Any) -> Any:
    """For each pair: -2 if it decides nothing, -1 if the loser goes for the winner, else the place of the copy."""
    chosen = np.full(len(losers), _STAYS, np.int64)
    for pair in range(len(losers)):
        loser, winner = losers[pair], winners[pair]
        if gone[loser >> 3] >> (loser & 7) & 1:
            continue
        if winner < 0 or not gone[winner >> 3] >> (winner & 7) & 1:
            chosen[pair] = _WINNER
        elif kinds[pair] == EXACT:
            copy = copies.get(winner, -1)
            if copy < 0 or gone[copy >> 3] >> (copy & 7) & 1:
                copies[winner] = loser
            else:
                chosen[pair] = copy
        if chosen[pair] != _STAYS:
            gone[loser >> 3] |= np.uint8(1 << (loser & 7))
    return chosen


@dataclass(frozen=True)
class Cluster:
    """The shard function of the clusters stage; the source is a range of survivors."""

    library: Library
    decisions: str

    def __call__(self, store: Store, source: str, settings: Settings) -> Iterator[Split]:
        """Yield the rows of CLUSTERED of a range by ref, then its largest clusters and how many there are of a size."""
        keys = KeyRange.parse(source)
        rows = read_range(store, self.decisions, keys.low, keys.high)
        survivors, place, losers = np.unique(keys_of(rows), return_inverse=True, return_counts=True)
        names = self._names(store, survivors)
        sizes = pa.array(losers + 1)
        named = names.append_column("cluster_size", sizes).take(pa.array(place))
        columns = {**{name: rows[name] for name in ("kind", "similarity")}, "key": rows["loser"]}
        columns |= {name: named[name] for name in ("survivor", "dataset", "version", "cluster_size")}
        sorter = RunSorter()
        clustered = pa.table([columns[name] for name in CLUSTERED.names], schema=CLUSTERED)
        yield from map(Split, [*sorter.add(clustered), *sorter.finish()])
        largest = names.append_column("cluster_size", sizes).cast(LARGEST)
        yield Split(
            CLUSTERED.empty_table(),
            others={"largest": _largest(largest)},
            counters=size_counts(losers + 1) | {"clusters": len(survivors)},
        )

    def _names(self, store: Store, survivors: np.ndarray) -> pa.Table:
        """Id and URL of sorted refs, and the dataset and version that has them if that is an earlier one."""
        found = self.library.take(store, survivors, ("id", "url")).rename_columns(["survivor", "url"])
        segments = ref_segments(survivors).tolist()
        known = [None if each < 0 else self.library.old[each] for each in segments]
        for name in ("dataset", "version"):
            values = [None if each is None else getattr(each, name) for each in known]
            found = found.append_column(name, pa.array(values, pa.string()))
        return found


def _largest(clusters: pa.Table) -> pa.Table:
    """The largest clusters, largest first and equal ones by their survivors."""
    order = [("cluster_size", "descending"), ("survivor", "ascending")]
    return clusters.sort_by(order).slice(0, MOST_LARGEST)


def size_counts(sizes: np.ndarray) -> dict[str, int]:
    """How many clusters there are of each size, sizes doubling: {"size 2": 7, "size 3-4": 2, "size 5-8": 1}."""
    powers, counts = np.unique(np.ceil(np.log2(np.maximum(sizes, 2))).astype(np.int64), return_counts=True)
    names = ["size 2" if power == 1 else f"size {2 ** (power - 1) + 1}-{2**power}" for power in powers.tolist()]
    return dict(zip(names, counts.tolist(), strict=True))


@dataclass(frozen=True)
class GatherDuplicates:
    """The shard function of the duplicates stage; the source is a shard of signed documents."""

    clusters: Shards

    def __call__(self, store: Store, source: str, settings: Settings) -> Iterator[Split]:
        """Yield the DUPLICATES of one shard in the order of its documents."""
        rows = read_ranges(store, self.clusters.paths(), KeyRange(*refs_of_part(part_number(source))))
        rows = rows.take(pa.array(np.argsort(keys_of(rows), kind="stable")))
        if not rows.num_rows:
            return
        ids = take_keys(store, source, keys_of(rows), ["id"], "ref")["id"]
        kinds = pa.array([KINDS[kind] for kind in cast("list[int]", rows["kind"].to_pylist())], pa.string())
        columns = {**{name: rows[name] for name in CLUSTERED.names}, "id": ids, "ref": rows["key"], "kind": kinds}
        yield Split(pa.table([columns[name] for name in DUPLICATES.names], schema=DUPLICATES))
