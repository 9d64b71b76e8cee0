"""Drift of two samples: cells, bins, the stability index and what chance does to it."""

from collections.abc import Sequence

import numpy as np
import pytest

from tasks.drift import (
    Distribution,
    cells_of,
    compare,
    kolmogorov_smirnov,
    lower_edge,
    quantiles,
    stability,
)


def counted(values: Sequence[float] | np.ndarray) -> Distribution:
    numbers = np.asarray(values, np.float64)
    finite = numbers[np.isfinite(numbers)]
    cells, places = np.unique(cells_of(finite), return_inverse=True)
    counts = np.bincount(places, minlength=len(cells))
    return Distribution(cells, counts, np.bincount(places, finite, len(cells)), len(numbers) - len(finite))


def index(before: Sequence[float] | np.ndarray, now: Sequence[float] | np.ndarray) -> float:
    both = compare(counted(before), counted(now), 10)
    return stability(both.before, both.now).psi


def test_cells_ascend_with_numbers_and_are_narrow() -> None:
    numbers = np.array([-1e300, -7.5, -1.0, -1e-9, 0.0, 1e-300, 1e-9, 0.5, 0.996, 1.0, 2.0, 511, 512, 1e6, 1e300])
    cells = cells_of(numbers)
    assert (np.diff(cells) > 0).all()
    assert cells_of(np.array([-0.0])) == cells_of(np.array([0.0]))
    for number, cell in zip(numbers.tolist(), cells.tolist(), strict=True):
        if number >= 0:
            assert lower_edge(cell) <= number < lower_edge(cell + 1)
            assert lower_edge(cell + 1) - lower_edge(cell) <= max(number / 250, 1e-300)
        else:
            assert lower_edge(cell - 1) < number


def test_whole_numbers_up_to_512_have_a_cell_each() -> None:
    assert len(np.unique(cells_of(np.arange(513)))) == 513


def test_bins_hold_equal_shares_and_all_documents() -> None:
    values = np.random.default_rng(1).lognormal(6, 1, 5000)
    both = compare(counted(values), counted([*values, np.nan, np.inf]), 10)
    assert both.missing
    assert both.before.sum() == 5000
    assert both.now.tolist() == [*both.before[:-1].tolist(), 2]
    assert len(both.before) == 11
    assert both.before[:-1].min() > 400
    assert both.before[:-1].max() < 600


@pytest.mark.parametrize(
    ("before", "now", "least"),
    [
        ([0.0] * 900, [0.0] * 700 + [1.0] * 200, 0.5),  # a constant that moves
        ([0.0] * 900, [5.0] * 900, 5),
        ([1.0] * 900, [1.0] * 600 + [np.nan] * 300, 0.5),  # values that go missing
        (np.arange(900), np.arange(900) / 3, 0.25),
    ],
)
def test_a_shift_has_a_large_index(before: Sequence[float], now: Sequence[float], least: float) -> None:
    assert index(before, now) > least
    assert index(now, before) > least


def test_equal_samples_have_none() -> None:
    values = np.random.default_rng(2).normal(size=800)
    assert index(values, values) == 0
    assert index([3.0] * 5, [3.0] * 900) == 0
    assert index([], values) == 0
    assert kolmogorov_smirnov(counted(values), counted(values)) == 0


def test_chance_is_taken_off_and_its_spread_is_known() -> None:
    """Small samples of one population: the plain index would be 0.09 on average."""
    random = np.random.default_rng(3)
    found = []
    for _ in range(300):
        both = compare(counted(random.normal(size=200)), counted(random.normal(size=200)), 10)
        found.append(stability(both.before, both.now))
    spread = found[0].spread
    assert np.mean([each.psi for each in found]) < 0.5 * spread
    assert spread == pytest.approx(18**0.5 / 100, rel=0.2)
    assert max(each.psi for each in found) < 5 * spread


def test_kolmogorov_smirnov_is_the_largest_difference() -> None:
    random = np.random.default_rng(4)
    before, now = random.integers(0, 300, 400), random.integers(50, 350, 500)
    functions = [[(each <= value).mean() for value in range(351)] for each in (before, now)]
    expected = max(abs(one - other) for one, other in zip(*functions, strict=True))
    assert kolmogorov_smirnov(counted(before), counted(now)) == pytest.approx(expected, abs=1e-12)
    assert kolmogorov_smirnov(counted([np.nan]), counted(now)) is None


def test_quantiles_are_of_what_is_there() -> None:
    assert quantiles(counted([*range(101), np.nan]), (0.05, 0.5, 0.95)) == (5, 50, 95)
    assert quantiles(counted([np.nan]), (0.5,)) == ()
