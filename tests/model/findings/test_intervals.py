import math
import time
from itertools import product

import numpy as np
import pytest

from model.findings.intervals import estimate, holm, mcnemar, paired
from model.findings.records import Estimate


def normal(count: int, mean: float = 0.0, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, count)


def parts(found: Estimate) -> tuple[float, float, float]:
    """Standard error and both ends of the interval."""
    assert found.standard_error is not None
    assert found.low is not None
    assert found.high is not None
    return found.standard_error, found.low, found.high


def covers(found: Estimate, true: float) -> bool:
    _, low, high = parts(found)
    return low <= true <= high


def test_the_standard_error_of_a_mean_is_that_of_the_harness() -> None:
    from lm_eval.api.metrics import mean_stderr

    for values in (normal(50), [0.0, 1.0, 1.0, 0.0, 1.0]):
        found = estimate(values)
        assert found.value == pytest.approx(np.mean(values))
        assert found.standard_error == pytest.approx(mean_stderr(list(values)), rel=1e-12)


def test_the_standard_error_of_a_ratio_is_what_repeated_samples_show() -> None:
    generator = np.random.default_rng(3)

    def sample() -> tuple[np.ndarray, np.ndarray]:
        weights = generator.lognormal(5, 1, 300)
        return weights * generator.normal(2, 0.5, 300), weights

    figures = [estimate(*sample(), draws=100) for _ in range(300)]
    spread = np.std([each.value for each in figures])
    assert np.mean([parts(each)[0] for each in figures]) == pytest.approx(spread, rel=0.12)


def test_an_interval_of_a_mean_is_near_the_closed_form() -> None:
    values = normal(1000)
    found = estimate(values, draws=20_000)
    error, low, high = parts(found)
    assert low == pytest.approx(found.value - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(found.value + 1.96 * error, abs=0.1 * error)


def test_right_or_wrong_of_few_items_is_never_held_for_certain() -> None:
    none, all_right = estimate(np.zeros(50)), estimate(np.ones(50))
    assert parts(none) == pytest.approx((0, 0, 0.0497), abs=0.01)  # Jeffreys's interval for 0 of 50
    assert parts(all_right) == pytest.approx((0, 0.9503, 1), abs=0.01)
    generator = np.random.default_rng(5)
    covered = [covers(estimate(generator.random(40) < 0.1, draws=400), 0.1) for _ in range(300)]
    assert np.mean(covered) > 0.92


def test_intervals_of_few_documents_are_wide_enough() -> None:
    generator = np.random.default_rng(5)
    covered = [covers(estimate(generator.normal(1, 1, 8), draws=400), 1) for _ in range(300)]
    assert np.mean(covered) > 0.91  # the plain percentile interval: 0.87


def test_an_exponential_figure_and_its_interval() -> None:
    values, weights = np.array([10.0, 30.0, 22.0, 5.0]), np.array([5.0, 12.0, 9.0, 3.0])
    plain, found = estimate(values, weights), estimate(values, weights, exponential=True)
    assert found.value == pytest.approx(math.exp(67 / 29))
    error, low, high = parts(plain)
    assert parts(found) == pytest.approx((error * found.value, math.exp(low), math.exp(high)))


def test_order_of_items_changes_nothing_and_seeds_decide() -> None:
    values, weights, other = normal(200), np.arange(1.0, 201), normal(200, seed=8)
    order = np.random.default_rng(1).permutation(200)
    assert estimate(values, weights) == estimate(values[order], weights[order])
    assert estimate(values, weights, seed=2) != estimate(values, weights)
    assert paired(values, other, weights, weights) == paired(
        values[order], other[order], weights[order], weights[order]
    )


def test_one_item_has_no_interval_and_none_no_figure() -> None:
    assert estimate([2.0], [4.0]).model_dump() == {"value": 0.5, "standard_error": None, "low": None, "high": None}
    with pytest.raises(ValueError, match="0 values"):
        estimate([])
    with pytest.raises(ValueError, match="no figure"):
        estimate([1.0, 2.0], [0.0, 0.0])
    with pytest.raises(ValueError, match="same items"):
        paired([1.0], [1.0, 2.0])


def test_many_items_take_the_normal_limit() -> None:
    values, weights = normal(70_000, 2.0), np.random.default_rng(1).uniform(1, 3, 70_000)
    many, fewer = estimate(values, weights), estimate(values[:65_000], weights[:65_000])
    assert np.diff(parts(many)[1:]) == pytest.approx(np.diff(parts(fewer)[1:]), rel=0.15)


def test_ten_thousand_items_take_well_below_a_second() -> None:
    values, weights = normal(10_042), np.arange(1.0, 10_043)
    started = time.process_time()
    estimate(values, weights, draws=1_000)
    paired(values, normal(10_042, seed=9), weights, weights)
    assert time.process_time() - started < 2  # about 0.4 s; machines differ


def test_mcnemar_is_the_binomial_test() -> None:
    from scipy.stats import binomtest

    for won, lost in ((0, 0), (5, 5), (1, 9), (40, 61), (3000, 3200)):
        expected = binomtest(won, won + lost, 0.5).pvalue if won + lost else 1.0
        assert mcnemar(won, lost) == pytest.approx(expected, rel=1e-9)


def test_two_models_that_are_right_or_wrong() -> None:
    first = np.array([1.0] * 60 + [0.0] * 40)
    second = np.array([1.0] * 55 + [0.0] * 5 + [1.0] * 20 + [0.0] * 20)
    found = paired(first, second)
    assert (found.items, found.difference, found.test) == (100, pytest.approx(0.15), "mcnemar")
    assert found.p_value == pytest.approx(mcnemar(20, 5))
    assert found.low * found.high > 0
    assert found.low < 0.15 < found.high
    same = paired(first, first)
    assert (same.difference, same.p_value, same.standard_error) == (0, 1, 0)
    assert same.low < 0 < same.high < 0.06


def test_the_permutation_test_looks_at_all_ways_where_they_are_few() -> None:
    first, second = np.array([1.2, 0.3, 2.2, 0.1, 0.7, 1.0]), np.array([1.9, 0.9, 2.1, 0.8, 1.6, 1.3])
    difference = second - first
    sums = [abs(np.dot(signs, difference)) for signs in product((-1, 1), repeat=6)]
    expected = np.mean([each >= abs(difference.sum()) * (1 - 1e-9) for each in sums])
    found = paired(first, second)
    assert found.test == "permutation"
    assert found.p_value == pytest.approx(expected)
    assert paired(first, first).p_value == 1


def test_pairing_sees_what_two_intervals_hide() -> None:
    first = normal(400) * 10
    second = first + normal(400, 0.3, seed=9)
    found = paired(first, second)
    assert parts(estimate(first))[2] > parts(estimate(second))[1]
    assert found.low * found.high > 0
    assert found.p_value < 0.001
    assert found.difference == pytest.approx(0.3, abs=0.1)
    assert found.standard_error == pytest.approx(0.05, rel=0.1)


def test_a_paired_difference_of_ratios_and_of_perplexities() -> None:
    generator = np.random.default_rng(2)
    size = generator.lognormal(5, 1, 200)
    first = size * generator.normal(2, 0.3, 200)
    second = first * generator.normal(0.95, 0.02, 200)
    found = paired(first, second, size, size)
    assert found.difference == pytest.approx(second.sum() / size.sum() - first.sum() / size.sum())
    assert found.low < found.difference < found.high < 0
    assert found.p_value < 0.001
    assert found.standard_error == pytest.approx((found.high - found.low) / 3.92, rel=0.15)
    shown = paired(first, second, size, size, exponential=True)
    assert shown.difference == pytest.approx(math.exp(second.sum() / size.sum()) - math.exp(first.sum() / size.sum()))
    assert shown.standard_error == pytest.approx((shown.high - shown.low) / 3.92, rel=0.15)


def test_p_values_of_equal_models_are_spread_evenly() -> None:
    generator = np.random.default_rng(4)
    p_values = [paired(generator.normal(0, 1, 12), generator.normal(0, 1, 12), draws=100).p_value for _ in range(300)]
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.06)


def test_holm_corrects_for_the_number_of_tests() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
