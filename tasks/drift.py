"""Drift between two samples of numbers: population stability index and Kolmogorov-Smirnov distance, by counting.

A *distribution* counts numbers in fixed *cells*: the sign, the exponent and the first eight bits of the mantissa of
float64, so that a cell is at most 0.4% wide and whole numbers up to 512 have one each. Distributions are added up in
one pass and bounded memory, to the same figures whoever counted what.

The population stability index (PSI) sums (q - p) ln(q / p) over bins that are cut at quantiles of the first sample;
0.1 is said to be moderate and 0.25 significant (Siddiqi 2006, Credit Risk Scorecards). Samples of n and m out of
one population have an index near chi-squared with (bins - 1) degrees of freedom times (1/n + 1/m) (Yurdakul and
Naranjo 2020, Journal of Risk Model Validation 14(4)): its mean is taken off, and its spread says what chance can do.
"""

from typing import NamedTuple

import numpy as np

_CELL_BITS = 44
_MAGNITUDE = np.int64(0x7FFF_FFFF_FFFF_FFFF)
_NOTHING_SEEN = 0.5
"""Added to every bin, so that an empty one has a logarithm (Jeffreys' prior)."""


class Distribution(NamedTuple):
    """Numbers of one signal, counted."""

    cells: np.ndarray
    """Numbers of the cells, ascending."""
    counts: np.ndarray
    totals: np.ndarray
    """Sum of the numbers of each cell."""
    missing: int
    """Documents without a finite number."""

    @property
    def present(self) -> int:
        """Documents with a finite number."""
        return int(self.counts.sum())

    @property
    def documents(self) -> int:
        """All documents."""
        return self.present + self.missing


def cells_of(values: np.ndarray) -> np.ndarray:
    """The cell of each finite number: cells ascend as numbers do."""
    bits = (values.astype(np.float64) + 0.0).view(np.int64)  # adding 0.0 makes -0.0 the zero that it equals
    return np.where(bits < 0, bits ^ _MAGNITUDE, bits) >> _CELL_BITS


def lower_edge(cell: int) -> float:
    """The least number of a cell."""
    bits = np.int64(cell) << _CELL_BITS
    return float((bits ^ _MAGNITUDE if bits < 0 else bits).view(np.float64))


class Comparison(NamedTuple):
    """Two distributions side by side in bins; the last bin holds documents without a number if any are."""

    starts: list[int | None]
    """First cell of each bin; None for the first bin, which has no lower edge, and for the one of missing numbers."""
    before: np.ndarray
    now: np.ndarray
    missing: bool
    """Whether the last bin is that of missing numbers."""


def compare(before: Distribution, now: Distribution, bins: int) -> Comparison:
    """Count both in bins of about equal shares of the first.

    A cell that holds more than a bin's share, as zero does of many signals, is a bin of its own, with bins for what
    lies around it: a signal that was constant can so be seen to move.
    """
    cells = np.union1d(before.cells, now.cells)
    old, new = _aligned(before, cells), _aligned(now, cells)
    starts = _cuts(old, bins)
    counts = [np.add.reduceat(each, starts) if len(cells) else np.zeros(0, np.int64) for each in (old, new)]
    missing = bool(before.missing or now.missing)
    if missing:
        counts = [np.append(each, found.missing) for each, found in zip(counts, (before, now), strict=True)]
    edges: list[int | None] = [None, *(int(cells[start]) for start in starts[1:])] if len(cells) else []
    return Comparison([*edges, None] if missing else edges, counts[0], counts[1], missing)


def _aligned(distribution: Distribution, cells: np.ndarray) -> np.ndarray:
    counts = np.zeros(len(cells), np.int64)
    counts[np.searchsorted(cells, distribution.cells)] = distribution.counts
    return counts


def _cuts(counts: np.ndarray, bins: int) -> list[int]:
    """Places where bins begin."""
    if not len(counts):
        return []
    share = max(counts.sum() / bins, 1e-9)
    heavy = counts >= share
    numbers = np.minimum((np.cumsum(counts) - counts / 2) // share, bins - 1)
    begins = (np.diff(numbers) > 0) | heavy[1:] | heavy[:-1]
    return [0, *(np.flatnonzero(begins) + 1).tolist()]


class Stability(NamedTuple):
    """A population stability index."""

    psi: float
    """Less what chance gives on average; not below 0."""
    spread: float
    """Standard deviation of what chance gives."""


def stability(before: np.ndarray, now: np.ndarray) -> Stability:
    """The index of two samples counted in the same bins. Nothing to compare counts as stable."""
    used = (before > 0) | (now > 0)
    n, m, bins = int(before.sum()), int(now.sum()), int(used.sum())
    if not n or not m or bins < 2:
        return Stability(0.0, 0.0)
    p = (before[used] + _NOTHING_SEEN) / (n + _NOTHING_SEEN * bins)
    q = (now[used] + _NOTHING_SEEN) / (m + _NOTHING_SEEN * bins)
    chance = 1 / n + 1 / m
    index = float(np.sum((q - p) * np.log(q / p)))
    return Stability(max(index - (bins - 1) * chance, 0.0), (2 * (bins - 1)) ** 0.5 * chance)


def kolmogorov_smirnov(before: Distribution, now: Distribution) -> float | None:
    """The largest difference of the two distribution functions, from 0 to 1, at edges of cells; None without numbers.

    Kolmogorov 1933, Smirnov 1948.
    """
    if not before.present or not now.present:
        return None
    cells = np.union1d(before.cells, now.cells)
    functions = [np.cumsum(_aligned(each, cells)) / each.present for each in (before, now)]
    return float(np.abs(functions[0] - functions[1]).max())


def quantiles(distribution: Distribution, shares: tuple[float, ...]) -> tuple[float, ...]:
    """Quantiles, each the mean of the cell that holds it; none without numbers."""
    if not distribution.present:
        return ()
    ends = np.cumsum(distribution.counts)
    places = np.searchsorted(ends, np.asarray(shares) * distribution.present)
    return tuple((distribution.totals[places] / distribution.counts[places]).tolist())


def chance_of_share(before: int, of_before: int, now: int, of_now: int) -> float:
    """Standard error of the difference of two shares of documents, if both were out of one population."""
    pooled = (before + now) / max(of_before + of_now, 1)
    return (pooled * (1 - pooled) * (1 / max(of_before, 1) + 1 / max(of_now, 1))) ** 0.5
