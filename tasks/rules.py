"""Rules as data: a signal, the threshold that bounds it, and the reason code of failing it.

A *signal* is a number that a document has, a column of the decision ledger; a *rule* compares it with a setting. A
document's reason is that of the first rule that it fails, in the rules' order. Judging needs the signals alone, so
that the verdict of other thresholds can be computed from a ledger, without any text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Rule:
    """One comparison. A null signal (not measured, or undefined for the text) never fails."""

    reason: str
    """Reason code of a document that fails."""
    signal: str
    """Column of the signal."""
    bound: Literal["min", "above", "max", "below"]
    """What passes: at least the threshold, above it, at most it, or below it."""
    setting: str
    """Name of the setting that holds the threshold; None there switches the rule off."""
    source: str
    """Where rule and default were published."""

    def fails(self, values: np.ndarray, threshold: np.ndarray) -> np.ndarray:
        """Which values lie beyond their thresholds; NaN on either side never does."""
        comparison = {"min": np.less, "above": np.less_equal, "max": np.greater, "below": np.greater_equal}[self.bound]
        return comparison(values, threshold)


@dataclass(frozen=True)
class Verdicts:
    """For each document the reason and value of the first rule that it fails, or two Nones."""

    reasons: list[str | None]
    values: list[float | None]


def judge(signals: pa.Table, rules: Sequence[tuple[Rule, Any]]) -> Verdicts:
    """Verdicts of a table of signals under rules with their thresholds: a number, None, or an array by document."""
    first = np.full(signals.num_rows, len(rules))
    values = np.full(signals.num_rows, np.nan)
    for index, (rule, threshold) in enumerate(rules):
        if threshold is None:
            continue
        signal = signal_values(signals, rule.signal)
        failed = rule.fails(signal, np.asarray(threshold, dtype=np.float64)) & (first == len(rules))
        first[failed], values[failed] = index, signal[failed]
    names = [rule.reason for rule, _ in rules]
    dropped = (first < len(rules)).tolist()
    return Verdicts(
        [names[index] if lost else None for index, lost in zip(first.tolist(), dropped, strict=True)],
        [value if lost else None for value, lost in zip(values.tolist(), dropped, strict=True)],
    )


def signal_values(signals: pa.Table, name: str) -> np.ndarray:
    """A signal as float64, NaN where it is null."""
    column = signals[name].cast(pa.float64()).combine_chunks()
    return column.to_numpy(zero_copy_only=False)
