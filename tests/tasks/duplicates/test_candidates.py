"""Candidates: who is compared with whom in a bucket, and that a bucket never costs its square."""

import numpy as np
import pytest

from tasks.duplicates.candidates import CandidateSettings, candidate_pairs
from tasks.duplicates.signatures import OLD, TEXT_KEY, URL_KEY

SETTINGS = CandidateSettings(max_partners=4)


def pairs(
    key: list[int], ref: list[int], text: list[int] | None = None, settings: CandidateSettings = SETTINGS
) -> set[tuple[int, int]]:
    """(loser, winner) of members given in the order of their buckets and ranks."""
    count = len(key)
    members = {
        "key": np.array(key, np.uint64),
        "ref": np.array(ref, np.uint64),
        "rank_high": np.arange(count, dtype=np.uint64),
        "rank_low": np.zeros(count, np.uint64),
        "text": np.array(text if text is not None else range(count), np.uint64),
    }
    found = [row for table in candidate_pairs(members, settings) for row in table.to_pylist()]
    rank = {ref: number for number, ref in reversed(list(enumerate(ref)))}
    assert all(row["winner"] >= OLD or rank[row["winner"]] < rank[row["loser"]] for row in found)
    together = [(row["loser"], row["winner"]) for row in found]
    assert len(together) == len(set(together))
    return set(together)


def test_members_are_paired_with_the_best_and_with_those_just_ahead() -> None:
    found = pairs([8] * 10, list(range(10)))
    for loser in range(10):
        partners = {winner for other, winner in found if other == loser}
        assert partners == (set(range(loser)) if loser <= 4 else {0, 1, loser - 2, loser - 1})


def test_buckets_do_not_mix() -> None:
    assert pairs([4, 4, 8, 12, 12], [0, 1, 2, 3, 4]) == {(1, 0), (4, 3)}
    assert pairs([], []) == set()


def test_one_partner_is_the_best() -> None:
    assert pairs([8] * 4, [0, 1, 2, 3], settings=CandidateSettings(max_partners=1)) == {(1, 0), (2, 0), (3, 0)}


def test_copies_stand_behind_the_best_of_their_text() -> None:
    text = [0, 0, 0, 0, 0, 0, 1, 1, 2]
    assert pairs([8] * 9, list(range(9)), text) == {(6, 0), (7, 0), (8, 0), (8, 6)}
    assert pairs([8 | TEXT_KEY] * 4, [0, 1, 2, 3], [5] * 4) == {(1, 0), (2, 0), (3, 0)}


def test_old_documents_win_and_are_not_compared_with_each_other() -> None:
    assert pairs([8] * 4, [OLD, OLD + 1, 0, 1]) == {(0, OLD), (0, OLD + 1), (1, OLD), (1, OLD + 1), (1, 0)}
    assert pairs([8] * 3, [OLD, OLD + 1, 0], [5, 6, 5]) == set(), "the text key pairs exact copies"
    assert pairs([8 | TEXT_KEY] * 3, [OLD, OLD + 1, 0], [5, 5, 5]) == {(0, OLD)}


def test_a_pair_of_one_address_is_marked() -> None:
    members = {
        "key": np.array([8, 8, 8 | URL_KEY, 8 | URL_KEY], np.uint64),
        "ref": np.array([0, 1, 0, 1], np.uint64),
        "rank_high": np.array([0, 1, 0, 1], np.uint64),
        "rank_low": np.zeros(4, np.uint64),
        "text": np.array([0, 1, 0, 1], np.uint64),
    }
    rows = [row for table in candidate_pairs(members, SETTINGS) for row in table.to_pylist()]
    assert [(row["loser"], row["winner"], row["same_url"]) for row in rows] == [(1, 0, True)]


@pytest.mark.parametrize("size", [1000, 200_000])
def test_pairs_grow_with_the_bucket_and_not_with_its_square(size: int) -> None:
    members = {name: np.arange(size, dtype=np.uint64) for name in ("ref", "rank_high", "rank_low", "text")}
    members["key"] = np.full(size, 8, np.uint64)
    tables = list(candidate_pairs(members, SETTINGS))
    assert sum(table.num_rows for table in tables) == 4 * size - 10
    assert max(table.num_rows for table in tables) <= 1 << 19
