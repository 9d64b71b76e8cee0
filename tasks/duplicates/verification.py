"""Verification: candidates are duplicates only if the texts say so, by the exact similarity of their shingles.

Two documents are `exact_duplicate` if the 128-bit hashes of their texts agree, `url_duplicate` if they are new and
share their canonical URL, and `near_duplicate` if the Jaccard similarity or containment of their sets of shingles
reaches a threshold; otherwise they go free. One task takes a range of ranks, so that the verified pairs of all tasks,
one after the other, are in the order of the loser's rank, which is what the survivors stage reads them in.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
from numba import njit
from pydantic import Field

from infra.settings import Settings
from infra.store import Store
from tasks.duplicates.candidates import PAIRS
from tasks.duplicates.signed_documents import Library, Shards, is_old
from tasks.sorted_runs import BATCH_ROWS, KeyRange, read_ranges
from tasks.stage import Split, Stage

DUPLICATE_PAIRS = pa.schema(
    [
        *(pa.field(name, pa.uint64(), nullable=False) for name in ("key", "rank_low", "loser", "winner")),
        pa.field("kind", pa.uint8(), nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
    ]
)
"""Verified pairs by rank of the loser (`key` is its high half), the winner to be preferred first."""

VERIFICATION = Stage(
    "verification", 1, DUPLICATE_PAIRS, libraries=("pyarrow", "numpy", "numba"), private=False, compressed=False
)
KINDS = ("exact_duplicate", "url_duplicate", "near_duplicate")
EXACT, URL, NEAR, _REJECTED = range(4)
_SKETCH_COLUMNS = ("text_high", "text_low", "distinct")


class VerificationSettings(Settings):
    """When two documents are near-duplicates."""

    measure: Literal["jaccard", "containment"] = "jaccard"
    """Jaccard: shared shingles over all that either has. Containment: over those of the shorter text, so that an
    excerpt is a duplicate of the whole; candidates are still those that MinHash finds, by Jaccard."""
    min_similarity: float = Field(default=0.7, gt=0, le=1)
    """Least similarity of near-duplicates. 0.7 is text-dedup's, and where 14 bands of 8 rows catch every second pair:
    higher loses duplicates that were found, lower gives a share of duplicates that depends on luck."""


@dataclass(frozen=True)
class Verify:
    """The shard function of the verification stage; the source is a range of ranks."""

    library: Library
    candidates: Shards
    memory_bytes: int
    """About how much the shingles held at one time may take."""

    def __call__(self, store: Store, source: str, settings: VerificationSettings) -> Iterator[Split]:
        """Yield the verified pairs of a range, sorted."""
        pairs = distinct_pairs(read_ranges(store, self.candidates.paths(), KeyRange.parse(source)))
        kinds, similarity = self._judge(store, pairs, settings)
        columns = {**pairs, "kind": kinds, "similarity": similarity}
        columns = {name: column[kinds != _REJECTED] for name, column in columns.items()}
        order = np.lexsort(
            (
                *(columns[name] for name in ("winner", "winner_low", "winner_high", "kind")),
                -columns["similarity"],
                ~is_old(columns["winner"]),
                *(columns[name] for name in ("loser", "rank_low", "key")),
            )
        )
        for start in range(0, len(order), BATCH_ROWS):
            rows = order[start : start + BATCH_ROWS]
            yield Split(
                pa.table([pa.array(columns[name][rows]) for name in DUPLICATE_PAIRS.names], schema=DUPLICATE_PAIRS)
            )

    def _judge(
        self, store: Store, pairs: dict[str, np.ndarray], settings: VerificationSettings
    ) -> tuple[np.ndarray, np.ndarray]:
        """Kind and similarity of each pair."""
        refs, places = np.unique(np.concatenate([pairs["loser"], pairs["winner"]]), return_inverse=True)
        sketch = self.library.take(store, refs, _SKETCH_COLUMNS)
        high, low, distinct = (
            cast("np.ndarray", sketch[name].to_numpy())[places].reshape(2, -1) for name in _SKETCH_COLUMNS
        )
        exact = (high[0] == high[1]) & (low[0] == low[1])
        similarity = exact.astype(np.float64)
        reachable = distinct.min(axis=0) >= settings.min_similarity * distinct.max(axis=0)
        needed = ~exact & (pairs["same_url"] | reachable | (settings.measure == "containment"))
        rows = np.flatnonzero(needed)
        for start, stop in _chunks(8 * distinct.sum(axis=0)[rows], self.memory_bytes):
            part = rows[start:stop]
            similarity[part] = self._compare(store, pairs["loser"][part], pairs["winner"][part], settings)
        near = needed & (similarity >= settings.min_similarity)
        return np.select([exact, pairs["same_url"], near], [EXACT, URL, NEAR], _REJECTED).astype(np.uint8), similarity

    def _compare(
        self, store: Store, losers: np.ndarray, winners: np.ndarray, settings: VerificationSettings
    ) -> np.ndarray:
        """Similarity of pairs of documents by their shingles."""
        refs, places = np.unique(np.concatenate([losers, winners]), return_inverse=True)
        table = self.library.take(store, refs, ("distinct", "shingles")).combine_chunks()
        sets: Any = table["shingles"].chunk(0)
        sizes = cast("np.ndarray", table["distinct"].to_numpy())
        result = np.zeros(len(losers))
        left, right = places.reshape(2, -1)
        values, offsets = sets.values.to_numpy(), sets.offsets.to_numpy()
        similarities(values, offsets, sizes, left, right, settings.measure == "containment", result)
        return result


def distinct_pairs(table: pa.Table) -> dict[str, np.ndarray]:
    """Columns of PAIRS without repeated pairs, in the order of losers and winners; shared URLs are not forgotten."""
    columns = {name: cast("np.ndarray", table[name].to_numpy()) for name in PAIRS.names}
    order = np.lexsort((~columns["same_url"], columns["winner"], columns["loser"]))
    loser, winner = columns["loser"][order], columns["winner"][order]
    again = (loser[1:] == loser[:-1]) & (winner[1:] == winner[:-1])
    kept = order[np.concatenate([[True], ~again])[: len(order)]]
    return {name: column[kept] for name, column in columns.items()}


def _chunks(sizes: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Cut items of some sizes into neighbours that hold `most` together, or one."""
    ends, start = np.cumsum(sizes), 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + most, side="right")), start + 1)
        yield start, stop
        start = stop


@njit(cache=True, nogil=True)
def similarities(values: Any, offsets: Any, sizes: Any, left: Any, right: Any, contained: bool, result: Any) -> None:
    """Fill the similarity of each pair of sets: exact where both were kept whole, estimated from samples otherwise.

    A set that was cut holds all of its hashes up to the largest it has; so the hashes up to the smaller of two such
    limits are a uniform sample of the union.
    """
    for pair in range(len(left)):
        one, two = left[pair], right[pair]
        a, b = offsets[one], offsets[two]
        a_end, b_end = offsets[one + 1], offsets[two + 1]
        limit = np.uint64(0xFFFFFFFFFFFFFFFF)
        if a_end - a < sizes[one]:
            limit = min(limit, values[a_end - 1])
        if b_end - b < sizes[two]:
            limit = min(limit, values[b_end - 1])
        shared, union = 0, 0
        while (a < a_end and values[a] <= limit) or (b < b_end and values[b] <= limit):
            union += 1
            if b >= b_end or (a < a_end and values[a] < values[b]):
                a += 1
            elif a >= a_end or values[b] < values[a]:
                b += 1
            else:
                shared += 1
                a += 1
                b += 1
        jaccard = shared / union if union else 0.0
        result[pair] = jaccard
        total, fewer = sizes[one] + sizes[two], max(min(sizes[one], sizes[two]), 1)
        if contained and union == total - shared:
            result[pair] = shared / fewer
        elif contained:
            result[pair] = min(1.0, jaccard / (1 + jaccard) * total / fewer)
