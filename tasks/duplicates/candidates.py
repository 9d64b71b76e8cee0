"""Candidates: pairs of documents that share a key, found one key range at a time.

A *bucket* is all documents that share a key. In a bucket each new document is paired with a bounded number of those
that outrank it, so that a bucket of a million documents costs a million pairs and not their square: with the best of
them, and with those just ahead of it, which are alike in length and quality. Exact copies of one text stand behind
the best of them and get its partners, so that a bucket full of one text hides no other. Documents of the index
outrank all, and are never paired with each other: of the index, only rows whose key a new document has are read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
from pydantic import Field

from infra.settings import Settings
from infra.store import Store
from tasks.duplicates.dedup_index import IndexView
from tasks.duplicates.signatures import KEYS, TEXT_KEY, URL_KEY, segment_bits
from tasks.duplicates.signed_documents import Shards, is_old
from tasks.sorted_runs import KeyRange, RunSorter, keys_of, read_range, read_ranges
from tasks.stage import Split, Stage

PAIRS = pa.schema(
    [
        *(
            pa.field(name, pa.uint64(), nullable=False)
            for name in ("key", "rank_low", "loser", "winner_high", "winner_low", "winner")
        ),
        pa.field("same_url", pa.bool_(), nullable=False),
    ]
)
"""Refs of two documents and their ranks; `key` is the high half of the rank of the loser, who is outranked."""

CANDIDATES = Stage("candidates", 1, PAIRS, libraries=("pyarrow", "numpy"), private=False, compressed=False)
_PAIRS_AT_ONCE = 1 << 19


class CandidateSettings(Settings):
    """Which documents are compared."""

    urls: bool = True
    """Whether two new documents of one canonical URL are duplicates, whatever their text. A document of the index is
    never matched by its URL: a page that changed since is judged by its text."""
    max_partners: int = Field(default=8, ge=1, le=1000)
    """Documents that each member of a bucket is paired with: half of them the best of the bucket, half just ahead."""


@dataclass(frozen=True)
class FindCandidates:
    """The shard function of the candidates stage; the source is a key range."""

    new: Shards
    index: IndexView

    def __call__(self, store: Store, source: str, settings: CandidateSettings) -> Iterator[Split]:
        """Yield the pairs of a key range, sorted by the rank of the loser."""
        sorter = RunSorter()
        for pairs in candidate_pairs(self._members(store, KeyRange.parse(source), settings), settings):
            yield from map(Split, sorter.add(pairs))
        yield from map(Split, sorter.finish())

    def _members(self, store: Store, keys: KeyRange, settings: CandidateSettings) -> dict[str, np.ndarray]:
        """Columns of KEYS for all rows of buckets that hold a pair to compare, old rows first and then by rank."""
        new = read_ranges(store, self.new.paths("keys"), keys)
        values = keys_of(new)
        order = np.argsort(values, kind="stable")
        if not settings.urls:
            order = order[values[order] & np.uint64(3) != URL_KEY]
        values = values[order]
        old = [*self._old_rows(store, keys, values)]
        shared = _has_neighbour(values)
        for table in old:
            met = keys_of(table)
            shared[np.searchsorted(values, met)] = True  # the first of each key; the others have it as a neighbour
        chosen = {name: cast("np.ndarray", new[name].to_numpy())[order[shared]] for name in KEYS.names}
        joined = {
            name: np.concatenate([chosen[name], *(cast("np.ndarray", each[name].to_numpy()) for each in old)])
            for name in KEYS.names
        }
        by_rank = np.lexsort(
            (joined["ref"], joined["rank_low"], joined["rank_high"], ~is_old(joined["ref"]), joined["key"])
        )
        return {name: column[by_rank] for name, column in joined.items()}

    def _old_rows(self, store: Store, keys: KeyRange, wanted: np.ndarray) -> Iterator[pa.Table]:
        """Rows of the index, but for retired ones, whose key is among sorted ones; refs say which segment."""
        retired = self.index.retired_refs(store)
        for number, segment in enumerate(self.index.segments):
            for path in segment.shards.paths("keys"):
                for batch in read_range(store, path, keys.low, keys.high).to_batches():
                    rows = np.flatnonzero(_among(batch.column(0).to_numpy(), wanted))
                    refs = batch.column(1).to_numpy()[rows]
                    rows = rows[~_among(refs, retired[number])]
                    table = pa.Table.from_batches([batch]).take(pa.array(rows))
                    refs = cast("np.ndarray", table["ref"].to_numpy()) | segment_bits(number)
                    yield table.set_column(1, KEYS.field(1), pa.array(refs))


def _among(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Which values occur in a sorted array."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    places = np.searchsorted(ordered, values)
    return ordered[np.minimum(places, len(ordered) - 1)] == values


def _has_neighbour(values: np.ndarray) -> np.ndarray:
    """Which elements of a sorted array have an equal one beside them."""
    same = values[1:] == values[:-1]
    return np.concatenate([same, [False]])[: len(values)] | np.concatenate([[False], same])[: len(values)]


def candidate_pairs(members: Mapping[str, np.ndarray], settings: CandidateSettings) -> Iterator[pa.Table]:
    """PAIRS of the members of buckets, which are sorted by key and then by rank; a bounded number at a time."""
    rows = np.arange(len(members["key"]))
    leader = _leaders(members)
    leads = leader == rows
    leaders, number = np.flatnonzero(leads), np.cumsum(leads) - 1
    first = np.concatenate([[True], members["key"][1:] != members["key"][:-1]])[: len(rows)]
    bucket = np.flatnonzero(first)[np.cumsum(first) - 1]
    ahead = number[leader] - number[bucket]
    by_text = members["key"] & np.uint64(3) == TEXT_KEY
    partners = np.where(by_text, ~leads, np.minimum(ahead, settings.max_partners))
    partners[is_old(members["ref"]) | (is_old(members["ref"][leader]) & ~by_text)] = 0
    ends = np.cumsum(partners)
    for start, stop in _chunks(ends):
        counts = partners[start:stop]
        losers = np.repeat(rows[start:stop], counts)
        turn = np.arange(len(losers)) - np.repeat(np.cumsum(counts) - counts, counts)
        far = (turn >= settings.max_partners - settings.max_partners // 2) & (ahead[losers] > settings.max_partners)
        place = np.where(far, ahead[losers] - settings.max_partners + turn, turn)
        winners = np.where(by_text[losers], leader[losers], leaders[number[bucket[losers]] + place])
        yield _pairs(members, losers, winners)


def _leaders(members: Mapping[str, np.ndarray]) -> np.ndarray:
    """For each member the first of its bucket that has its text."""
    order = np.lexsort((members["text"], members["key"]))
    key, text = members["key"][order], members["text"][order]
    first = np.concatenate([[True], (key[1:] != key[:-1]) | (text[1:] != text[:-1])])[: len(order)]
    leader = np.empty(len(order), np.int64)
    leader[order] = order[np.flatnonzero(first)[np.cumsum(first) - 1]]
    return leader


def _chunks(ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut rows where the pairs so far fill a chunk; `ends` counts the pairs up to each row."""
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + _PAIRS_AT_ONCE, side="right")), start + 1)
        yield start, stop
        start = stop


def _pairs(members: Mapping[str, np.ndarray], losers: np.ndarray, winners: np.ndarray) -> pa.Table:
    """Distinct pairs of rows as PAIRS; a pair that shares its URL and more is one that shares its URL."""
    same_url = members["key"][losers] & np.uint64(3) == URL_KEY
    order = np.lexsort((~same_url, members["ref"][winners], members["ref"][losers]))
    losers, winners, same_url = losers[order], winners[order], same_url[order]
    refs = members["ref"]
    again = (refs[losers][1:] == refs[losers][:-1]) & (refs[winners][1:] == refs[winners][:-1])
    kept = np.concatenate([[True], ~again])[: len(losers)]
    losers, winners = losers[kept], winners[kept]
    high, low = members["rank_high"], members["rank_low"]
    columns = [high[losers], low[losers], refs[losers], high[winners], low[winners], refs[winners], same_url[kept]]
    return pa.table([pa.array(each) for each in columns], schema=PAIRS)
