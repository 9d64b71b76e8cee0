"""What several seeds and many items together say: figures of variants of a training, and how surely they differ.

Each variant is trained with each of some seeds, and every model is measured on the same items. Two things move a figure
by chance: which items were asked, and the seed (initial weights, order of the data). The variance of a figure is taken
as the sum of both parts:

    items   by linearisation of the ratio sum(value) / sum(weight), each item's part averaged over the seeds; for a
            difference of two variants the parts are subtracted item by item first, so that what makes an item hard
            for both does not count
    seeds   the variance between seeds, pooled over all variants, because two or three seeds of one tell little

and the interval is Student's, its degrees of freedom by Welch and Satterthwaite (Biometrics Bulletin 2, 1946). A
bootstrap over seeds would be too narrow: drawn with replacement, two seeds have half of their variance. Noise of seed
and item together is in both parts, so that intervals are rather too wide. With one seed the second part is unknown and
left out; an interval then says nothing of another training.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from infra.settings import Settings

Floats = npt.NDArray[np.float64]
_NORMAL_FROM = 300
"""Degrees of freedom from which Student's distribution is taken for the normal one: quantiles differ by 0.3%."""
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(200)


class Interval(Settings):
    """A figure or a difference of two, and what chance may have done to it."""

    value: float
    standard_error: float
    low: float
    high: float
    p_value: float
    """Probability of a value so far from zero, where the true one is zero; of use for differences alone."""


@dataclass(frozen=True)
class Replicates:
    """A figure of one variant: its value with each seed, and what each item adds to its deviation."""

    by_seed: Floats
    parts: Floats
    """One for each item; the sum of their squares is the variance that the choice of items causes."""
    item_freedom: int

    @property
    def value(self) -> float:
        """Mean over seeds."""
        return float(self.by_seed.mean())


def replicates(values: Floats, weights: Floats) -> Replicates:
    """The figure sum(value) / sum(weight) of a variant from arrays of (seeds, items); at least two items."""
    total = weights.sum(axis=1, keepdims=True)
    ratios = values.sum(axis=1, keepdims=True) / total
    items = values.shape[1]
    parts = ((values - ratios * weights) / total).mean(axis=0) * math.sqrt(items / (items - 1))
    return Replicates(ratios[:, 0], parts, items - 1)


def mean_of(figures: Sequence[Replicates]) -> Replicates:
    """The plain mean of figures of one variant over other items each, such as of the accuracies of several tasks."""
    count = len(figures)
    by_seed = np.mean([each.by_seed for each in figures], axis=0)
    parts = np.concatenate([each.parts / count for each in figures])
    return Replicates(by_seed, parts, sum(each.item_freedom for each in figures))


@dataclass(frozen=True)
class SeedNoise:
    """Variance between seeds of one figure, pooled over variants; without freedom it is unknown."""

    variance: float
    freedom: int


def seed_noise(variants: Mapping[str, Replicates]) -> SeedNoise:
    """Pool the deviations of seeds from the mean of their variant."""
    deviations = [each.by_seed - each.value for each in variants.values()]
    freedom = sum(len(each) - 1 for each in deviations)
    squares = sum(float(each @ each) for each in deviations)
    return SeedNoise(squares / freedom if freedom else 0.0, freedom)


def figure(one: Replicates, noise: SeedNoise, confidence: float) -> Interval:
    """A variant's figure with its interval."""
    return _interval(one.value, one.parts, one.item_freedom, noise, 1 / len(one.by_seed), confidence)


def difference(one: Replicates, other: Replicates, noise: SeedNoise, confidence: float) -> Interval:
    """How far one variant is above another on the same items. Seeds are not paired: their data differ in any case."""
    share = 1 / len(one.by_seed) + 1 / len(other.by_seed)
    return _interval(one.value - other.value, one.parts - other.parts, one.item_freedom, noise, share, confidence)


def _interval(
    value: float, parts: Floats, item_freedom: int, noise: SeedNoise, share: float, confidence: float
) -> Interval:
    items, seeds = float(parts @ parts), noise.variance * share
    error = math.sqrt(items + seeds)
    freedom = _freedom((items, item_freedom), (seeds, noise.freedom))
    reach = student_quantile(confidence, freedom) * error
    p_value = two_sided(abs(value) / error, freedom) if error else float(value == 0)
    return Interval(value=value, standard_error=error, low=value - reach, high=value + reach, p_value=p_value)


def _freedom(*parts: tuple[float, int]) -> float:
    """Degrees of freedom of a sum of variances, each with its own (Welch and Satterthwaite)."""
    squares = sum(variance**2 / freedom for variance, freedom in parts if freedom)
    return sum(variance for variance, _ in parts) ** 2 / squares if squares else math.inf


def two_sided(t: float, freedom: float) -> float:
    """Probability that Student's t is beyond -t or t.

    With t = sqrt(freedom) tan(angle) the density is a power of the cosine, which is integrated by Gauss and Legendre.
    """
    if freedom > _NORMAL_FROM:
        return 2 * NormalDist().cdf(-abs(t))
    first = math.atan(abs(t) / math.sqrt(freedom))
    half = (math.pi / 2 - first) / 2
    angles = first + half * (1 + _NODES)
    tail = half * float(_NODE_WEIGHTS @ np.cos(angles) ** (freedom - 1))
    whole = math.sqrt(math.pi) / 2 * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2))
    return min(tail / whole, 1.0)


def student_quantile(confidence: float, freedom: float) -> float:
    """The t between whose negative and itself Student's distribution has `confidence` of its mass."""
    low, high = 0.0, 2.0
    while two_sided(high, freedom) > 1 - confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided(middle, freedom) > 1 - confidence else (low, middle)
    return (low + high) / 2
