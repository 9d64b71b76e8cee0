"""Figures over seeds and items: against known tables, and by how often intervals hold the truth."""

import math

import numpy as np
import pytest

from model.findings.seeds import (
    SeedNoise,
    difference,
    figure,
    mean_of,
    replicates,
    seed_noise,
    student_quantile,
    two_sided,
)


@pytest.mark.parametrize(
    ("freedom", "confidence", "quantile"),
    [(1, 0.95, 12.7062), (2, 0.95, 4.3027), (4, 0.95, 2.7764), (10, 0.99, 3.1693), (120, 0.95, 1.9799)],
)
def test_student_is_as_tables_have_it(freedom: int, confidence: float, quantile: float) -> None:
    assert student_quantile(confidence, freedom) == pytest.approx(quantile, abs=1e-4)
    assert two_sided(quantile, freedom) == pytest.approx(1 - confidence, abs=1e-5)
    assert two_sided(0, freedom) == pytest.approx(1)


def test_many_degrees_of_freedom_are_normal() -> None:
    assert student_quantile(0.95, math.inf) == pytest.approx(1.95996, abs=1e-4)
    assert student_quantile(0.95, 300) == pytest.approx(student_quantile(0.95, 301), rel=5e-3)


def test_one_seed_has_the_error_of_a_plain_mean() -> None:
    values = np.array([[0.0, 1, 1, 0, 1, 1, 0, 1]])
    one = replicates(values, np.ones_like(values))
    found = figure(one, seed_noise({"a": one}), 0.95)
    assert found.value == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(values.size))
    assert found.high - found.value == pytest.approx(student_quantile(0.95, 7) * found.standard_error)


def test_a_ratio_weighs_items() -> None:
    values, weights = np.array([[2.0, 6.0, 10.0]]), np.array([[1.0, 2.0, 7.0]])
    one = replicates(values, weights)
    assert one.value == pytest.approx(1.8)
    assert one.parts.sum() == pytest.approx(0)


def test_what_is_hard_for_both_does_not_count() -> None:
    generator = np.random.default_rng(1)
    hardness = generator.normal(0, 5, (1, 200))
    both = [replicates(hardness + shift + generator.normal(0, 0.1, (2, 200)), np.ones((2, 200))) for shift in (0, 0.3)]
    noise = seed_noise(dict(zip("ab", both, strict=True)))
    found = difference(both[1], both[0], noise, 0.95)
    assert found.low > 0
    assert figure(both[0], noise, 0.95).standard_error > 10 * found.standard_error
    back = difference(both[0], both[1], noise, 0.95)
    assert (back.value, back.low, back.p_value) == pytest.approx((-found.value, -found.high, found.p_value))


def test_equal_models_do_not_differ() -> None:
    one = replicates(np.array([[1.0, 2, 3]]), np.ones((1, 3)))
    found = difference(one, one, SeedNoise(0.0, 0), 0.95)
    assert (found.value, found.standard_error, found.p_value) == (0, 0, 1)


def test_a_mean_over_tasks_weighs_tasks_alike() -> None:
    small, large = np.array([[1.0, 0.0]]), np.ones((1, 100))
    mean = mean_of([replicates(small, np.ones_like(small)), replicates(large, np.ones_like(large))])
    assert mean.value == pytest.approx(0.75)
    assert float(mean.parts @ mean.parts) == pytest.approx(0.5 / 2 / 4)  # only the small task varies


@pytest.mark.parametrize(("seeds", "between"), [(2, 0.0), (2, 0.3), (3, 0.1)])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int, between: float) -> None:
    """Differences of two variants that are the same in truth, with noise of items, of seeds and of both together."""
    generator, items, trials = np.random.default_rng(7), 60, 600
    held = 0
    for _ in range(trials):
        sampled = generator.normal(0, 1, (2, 1, items))  # each variant finds other items hard
        variants = sampled + generator.normal(0, between, (2, seeds, 1)) + generator.normal(0, 0.5, (2, seeds, items))
        one, other = (replicates(each, np.ones_like(each)) for each in variants)
        found = difference(one, other, seed_noise({"a": one, "b": other}), 0.95)
        held += found.low <= 0 <= found.high
    assert 0.93 <= held / trials <= 0.995
