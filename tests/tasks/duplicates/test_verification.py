"""Verification: similarities are those of sets, exact where sets are whole and close where they were cut."""

import numpy as np
import pytest

from tasks.duplicates.minhash import mix
from tasks.duplicates.verification import similarities


def similarity(one: set[int], two: set[int], most: int = 1 << 20, contained: bool = False) -> float:
    sets = [np.sort(mix(np.array(sorted(each), np.uint64))) for each in (one, two)]
    values = np.concatenate([each[:most] for each in sets])
    offsets = np.cumsum([0, *(min(len(each), most) for each in sets)])
    result = np.zeros(2)
    sizes = np.array([len(one), len(two)])
    similarities(values, offsets, sizes, np.array([0, 1]), np.array([1, 0]), contained, result)
    assert result[0] == result[1]
    return float(result[0])


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (range(10), range(10)),
        (range(10), range(5, 15)),
        (range(10), range(20, 25)),
        (range(1), range(100)),
        (range(0), range(3)),
        (range(0), range(0)),
    ],
)
def test_whole_sets_are_compared_exactly(one: range, two: range) -> None:
    left, right = set(one), set(two)
    assert similarity(left, right) == (len(left & right) / len(left | right) if left | right else 0.0)
    least = min(len(left), len(right))
    assert similarity(left, right, contained=True) == (len(left & right) / least if least else 0.0)


@pytest.mark.parametrize("shared", [0, 3000, 7000, 9500, 10_000])
@pytest.mark.parametrize("longer", [0, 20_000])
def test_cut_sets_give_an_estimate(shared: int, longer: int) -> None:
    one, two = set(range(10_000)), set(range(10_000 - shared, 20_000 - shared + longer))
    exact = len(one & two) / len(one | two)
    assert similarity(one, two, 2000) == pytest.approx(exact, abs=4 / np.sqrt(2000))
    assert similarity(one, two, 2000, contained=True) == pytest.approx(shared / 10_000, abs=0.2)
