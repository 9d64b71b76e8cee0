"""How sure figures of an evaluation are: standard errors, bootstrap intervals, paired tests.

A figure is a ratio of sums over items, sum(value) / sum(weight), or the exponential of one (see records). Items are
taken as drawn from all items that there might be; nothing here says how another training would have come out.

Intervals come from resampled items. Two departures from the plain percentile bootstrap, each because it covers the
true value too seldom for few items:

- Right-or-wrong figures draw the share of right items from its Beta distribution with Jeffreys's prior, which is the
  Bayesian bootstrap with half an item more of each kind: resampling 0 right of 50 would say 0 to 0. Of the intervals
  for a proportion it is among the recommended ones (Brown, Cai and DasGupta 2001, doi:10.1214/ss/1009213286).
- Other intervals are widened as Student's t widens those of a mean (Hesterberg 2015,
  doi:10.1080/00031305.2015.1089789), which no longer matters from a hundred items on.

All draws are seeded and items are put in order of their values first, so that their order changes nothing.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from infra.settings import Settings
from model.findings.records import Estimate

Floats = npt.NDArray[np.float64]

_MANY_ITEMS = 1 << 16
"""From so many items on sums of resampled items are drawn from the normal distribution that they come close to."""
_AT_ONCE = 1 << 21
_MOST_FLIPS = 10_000
"""Draws of the permutation test; fewer than 14 items have fewer ways to be exchanged, which are all looked at."""
_TIE = 1 - 1e-9
"""Sums that differ by rounding only are as extreme as each other."""


class PairedDifference(Settings):
    """How a second model differs from a first one on the same items."""

    items: int
    difference: float
    """Figure of the second less that of the first."""
    standard_error: float | None = None
    low: float
    """Lower end of the bootstrap interval."""
    high: float
    p_value: float
    """Chance of a difference at least so large, either way, were it left to chance which model gave which answer."""
    test: Literal["mcnemar", "permutation"]
    """McNemar's exact test where items are right or wrong, else a permutation test that exchanges the two models'
    scores of an item (Fisher; recommended for such comparisons by Dror et al. 2018, doi:10.18653/v1/P18-1128)."""


def estimate(
    values: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    draws: int = 1_000,
    confidence: float = 0.95,
    seed: int = 1234,
    exponential: bool = False,
) -> Estimate:
    """sum(values) / sum(weights), or its exponential, with standard error and bootstrap interval.

    Without weights they are 1. The standard error is the delta method's, which for weights of 1 is that of a mean:
    the sample's standard deviation over the root of the number of items, as lm-evaluation-harness gives it. A single
    item has neither error nor interval; ends that no number can hold are None too. ValueError where there is no item,
    or where the sum of weights is not positive.
    """
    value, weight = _sorted(*_columns(values, weights))
    ratio = _ratio(value.sum(), weight.sum())
    shown = _shown(exponential)
    count = len(value)
    if count < 2:
        return Estimate(value=float(shown(ratio)))
    generator = np.random.default_rng(seed)
    if _is_binary(value, weight):
        drawn = generator.beta(value.sum() + 0.5, count - value.sum() + 0.5, draws)
        low, high = _ends(drawn, confidence)
        low, high = (0.0 if ratio == 0 else low), (1.0 if ratio == 1 else high)
    else:
        sums = _resampled_sums((value, weight), draws, generator)
        low, high = _ends(_divided(sums[:, 0], sums[:, 1], ratio), confidence, count)
    with np.errstate(over="ignore", invalid="ignore"):
        error = _error(value, weight, ratio) * (float(shown(ratio)) if exponential else 1.0)
        ends = {"standard_error": error, "low": float(shown(low)), "high": float(shown(high))}
    return Estimate(
        value=float(shown(ratio)), **{name: each if math.isfinite(each) else None for name, each in ends.items()}
    )


def paired(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    first_weights: npt.ArrayLike | None = None,
    second_weights: npt.ArrayLike | None = None,
    *,
    draws: int = 1_000,
    confidence: float = 0.95,
    seed: int = 1234,
    exponential: bool = False,
) -> PairedDifference:
    """The second model's figure less the first's, both on the same items in the same order.

    ValueError where lengths differ or where there is no item.
    """
    a, a_weight = _columns(first, first_weights)
    b, b_weight = _columns(second, second_weights)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} scores of the first model and {len(b)} of the second are not of the same items")
    columns = _sorted(a, b, a_weight, b_weight)
    if not exponential and _is_binary(columns[0], columns[2]) and _is_binary(columns[1], columns[3]):
        return _paired_binary(columns[0], columns[1], draws, confidence, seed)
    return _paired_ratios(columns, draws, confidence, seed, exponential)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's method (1979): what is below 0.05 then is significant at 5%."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def _paired_binary(a: Floats, b: Floats, draws: int, confidence: float, seed: int) -> PairedDifference:
    """Half an item is added to each of the four cells, as Agresti and Min do (2005, doi:10.1002/sim.1781)."""
    count = len(a)
    won, lost = int((b > a).sum()), int((b < a).sum())
    cells = np.random.default_rng(seed).dirichlet((won + 0.5, lost + 0.5, count - won - lost + 1.0), draws)
    low, high = _ends(cells[:, 0] - cells[:, 1], confidence)
    difference = b - a
    return PairedDifference(
        items=count,
        difference=(won - lost) / count,
        standard_error=_error(difference, np.ones(count), difference.mean()) if count > 1 else None,
        low=low,
        high=high,
        p_value=mcnemar(won, lost),
        test="mcnemar",
    )


def mcnemar(won: int, lost: int) -> float:
    """Exact two-sided p-value of the items that only one of two models has right, `won` and `lost` in number."""
    count = won + lost
    if count == 0:
        return 1.0
    steps = np.arange(1, min(won, lost) + 1)
    logs = np.concatenate(([0.0], np.cumsum(np.log((count - steps + 1) / steps))))  # of binomial coefficients
    return min(1.0, 2.0 * float(np.exp(logs - count * math.log(2)).sum()))


def _paired_ratios(
    columns: Sequence[Floats], draws: int, confidence: float, seed: int, exponential: bool
) -> PairedDifference:
    a, b, a_weight, b_weight = columns
    shown, count = _shown(exponential), len(a)
    a_ratio, b_ratio = _ratio(a.sum(), a_weight.sum()), _ratio(b.sum(), b_weight.sum())
    sums = _resampled_sums(columns, draws, np.random.default_rng(seed))
    with np.errstate(over="ignore", invalid="ignore"):
        drawn = shown(_divided(sums[:, 1], sums[:, 3], b_ratio)) - shown(_divided(sums[:, 0], sums[:, 2], a_ratio))
    low, high = _ends(drawn, confidence, count)
    a_slope, b_slope = (float(shown(a_ratio)), float(shown(b_ratio))) if exponential else (1.0, 1.0)
    influence = (
        b_slope * (b - b_ratio * b_weight) / b_weight.sum() - a_slope * (a - a_ratio * a_weight) / a_weight.sum()
    )
    return PairedDifference(
        items=count,
        difference=float(shown(b_ratio) - shown(a_ratio)),
        standard_error=math.sqrt(count / (count - 1) * float((influence**2).sum())) if count > 1 else None,
        low=low,
        high=high,
        p_value=_permutation(columns, seed),
        test="permutation",
    )


def _permutation(columns: Sequence[Floats], seed: int) -> float:
    """Share of exchanges of the two models' scores that give a difference as large as the one found, or larger.

    The exponential is left out: it changes no order of two ratios, and what is exchanged is the same.
    """
    a, b, a_weight, b_weight = columns
    half_sum = np.array([(a + b).sum(), (a_weight + b_weight).sum()]) / 2
    half_difference = np.stack([b - a, b_weight - a_weight], axis=1) / 2
    moved = half_difference.any(axis=1)  # the others are the same however they are exchanged
    half_difference = half_difference[moved]
    found = abs(_exchanged(half_sum, half_difference.sum(axis=0)[None])[0])
    ways = 2 ** len(half_difference) if len(half_difference) < 14 else 0
    as_extreme, generator = 0, np.random.default_rng([seed, 1])
    for start in range(0, total := ways or _MOST_FLIPS, size := max(_AT_ONCE // max(len(half_difference), 1), 1)):
        rows = min(size, total - start)
        signs = _all_signs(start, rows, len(half_difference)) if ways else _signs(generator, rows, len(half_difference))
        as_extreme += int((np.abs(_exchanged(half_sum, signs @ half_difference)) >= found * _TIE).sum())
    return as_extreme / total if ways else (as_extreme + 1) / (total + 1)


def _exchanged(half_sum: Floats, moved: Floats) -> Floats:
    """Differences of the two ratios, given how far the sums of the second model are above the middle."""
    second, first = half_sum + moved, half_sum - moved
    return _divided(second[:, 0], second[:, 1], math.nan) - _divided(first[:, 0], first[:, 1], math.nan)


def _signs(generator: np.random.Generator, rows: int, items: int) -> Floats:
    bits = np.unpackbits(np.frombuffer(generator.bytes(rows * -(-items // 8)), np.uint8).reshape(rows, -1), axis=1)
    return bits[:, :items] * np.float64(2) - 1


def _all_signs(start: int, rows: int, items: int) -> Floats:
    numbers = np.arange(start, start + rows)[:, None]
    return ((numbers >> np.arange(items)) & 1) * np.float64(2) - 1


def _columns(values: npt.ArrayLike, weights: npt.ArrayLike | None) -> tuple[Floats, Floats]:
    value = np.asarray(values, dtype=np.float64)
    weight = np.ones(len(value)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(value) != len(weight) or weight.sum() <= 0:
        raise ValueError(f"{len(value)} values with {len(weight)} weights of sum {weight.sum()} have no figure")
    return value, weight


def _sorted(*columns: Floats) -> tuple[Floats, ...]:
    order = np.lexsort(columns[::-1])
    return tuple(column[order] for column in columns)


def _is_binary(value: Floats, weight: Floats) -> bool:
    return bool(np.isin(value, (0.0, 1.0)).all() and (weight == 1).all())


def _resampled_sums(columns: Sequence[Floats], draws: int, generator: np.random.Generator) -> Floats:
    """Sums of each column over as many items as there are, drawn with replacement: (draws, columns)."""
    count = len(columns[0])
    if count > _MANY_ITEMS:
        table = np.stack(columns, axis=1)
        spread = table - table.mean(axis=0)
        return generator.multivariate_normal(table.sum(axis=0), spread.T @ spread, draws, method="eigh")
    sums = np.empty((draws, len(columns)))
    size = max(_AT_ONCE // count, 1)
    varying = [bool((column != column[0]).any()) for column in columns]
    for start in range(0, draws, size):
        chosen = generator.integers(0, count, (min(size, draws - start), count), dtype=np.uint32)
        for place, column in enumerate(columns):
            whole = column[chosen].sum(axis=1) if varying[place] else count * column[0]
            sums[start : start + size, place] = whole
    return sums


def _ratio(value: float, weight: float) -> float:
    return float(value) / float(weight)


def _divided(value: Floats, weight: Floats, otherwise: float) -> Floats:
    """Ratios; draws in which no item has a weight say nothing and give `otherwise`."""
    return np.divide(value, weight, out=np.full(len(value), otherwise), where=weight > 0)


def _shown(exponential: bool) -> np.ufunc:
    return np.exp if exponential else np.positive


def _error(value: Floats, weight: Floats, ratio: float) -> float:
    count = len(value)
    return math.sqrt(count / (count - 1) * float(((value - ratio * weight) ** 2).sum())) / float(weight.sum())


def _ends(drawn: Floats, confidence: float, items: int | None = None) -> tuple[float, float]:
    """Percentiles of what was drawn; given the number of items, widened as Student's t is wider than the normal."""
    tail = (1 - confidence) / 2
    if items is not None:
        tail = NormalDist().cdf(-math.sqrt(items / max(items - 1, 1)) * _student(NormalDist().inv_cdf(1 - tail), items))
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return float(low), float(high)


def _student(normal: float, items: int) -> float:
    """Quantile of Student's t where the normal distribution has `normal`, by its expansion (Cornish and Fisher)."""
    freedom = max(items - 1, 1)
    cubic = (normal**3 + normal) / 4
    return normal + cubic / freedom + (5 * normal**5 + 16 * normal**3 + 3 * normal) / (96 * freedom**2)
