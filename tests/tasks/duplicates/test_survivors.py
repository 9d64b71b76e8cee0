"""Survivors: decisions in the order of rank, copies whose best went, and counts of clusters."""

import numpy as np
import pyarrow as pa
from numba import types
from numba.typed import Dict

from tasks.duplicates.signatures import OLD, refs_at
from tasks.duplicates.survivors import decide, size_counts
from tasks.duplicates.verification import DUPLICATE_PAIRS, EXACT, NEAR, URL


def decisions(pairs: list[tuple[int, int, int]], cut: int = 100) -> dict[int, int]:
    """Survivor by loser, of pairs (loser, winner, kind) in order; documents 0-4 are in one shard, 5-9 in another."""
    starts, gone, copies = np.array([0, 5, 10]), np.zeros(2, np.uint8), Dict.empty(types.int64, types.int64)
    found: dict[int, int] = {}
    place = {int(refs_at(np.array([n // 5]), np.array([n % 5]))[0]): n for n in range(10)}
    ref = {n: each for each, n in place.items()} | {OLD: OLD}
    for start in range(0, len(pairs), cut):
        rows = [
            {"key": 0, "rank_low": 0, "loser": ref[a], "winner": ref[b], "kind": kind, "similarity": 1.0}
            for a, b, kind in pairs[start : start + cut]
        ]
        table = decide(pa.Table.from_pylist(rows, schema=DUPLICATE_PAIRS), starts, gone, copies)
        for row in table.to_pylist():
            assert place[row["loser"]] not in found
            found[place[row["loser"]]] = place.get(row["key"], OLD)
    return found


def test_a_document_goes_only_for_one_that_stays() -> None:
    chain = [(1, 0, NEAR), (2, 1, NEAR), (3, 1, NEAR), (3, 2, NEAR), (9, 3, NEAR), (9, 2, NEAR)]
    for cut in (1, 2, 100):
        assert decisions(chain, cut) == {1: 0, 3: 2, 9: 2}


def test_the_first_winner_that_stays_is_the_survivor() -> None:
    assert decisions([(1, 0, NEAR), (7, 1, NEAR), (7, OLD, NEAR), (7, 0, NEAR)]) == {1: 0, 7: OLD}


def test_of_copies_whose_best_went_one_stays() -> None:
    """1 goes by its address; its copies 5, 6, 7 and 8 are left, of which 5 goes by its text too."""
    pairs = [(1, 0, URL), (5, 1, EXACT), (5, 2, NEAR), (6, 1, EXACT), (7, 1, EXACT), (8, 1, EXACT), (9, 6, NEAR)]
    for cut in (1, 3, 100):
        assert decisions(pairs, cut) == {1: 0, 5: 2, 7: 6, 8: 6, 9: 6}


def test_sizes_are_counted_by_doubling() -> None:
    assert size_counts(np.array([2, 2, 3, 4, 5, 8, 9, 1000])) == {
        "size 2": 2,
        "size 3-4": 2,
        "size 5-8": 2,
        "size 9-16": 1,
        "size 513-1024": 1,
    }
    assert size_counts(np.array([], np.int64)) == {}
