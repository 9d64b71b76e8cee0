"""Histograms of signals with the thresholds that bound them, drawn as SVG that takes its colours from the page."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from infra.report import short
from infra.settings import Settings

Bound = Literal["min", "above", "max", "below"]
PASSES: dict[Bound, str] = {"min": "at least", "above": "more than", "max": "at most", "below": "less than"}
"""How a bound is said: what passes it."""


class Threshold(Settings):
    """A rule's bound of a signal, for some languages."""

    reason: str
    signal: str
    bound: Bound
    value: float
    languages: tuple[str, ...] = ()
    """Languages for which it holds; none means all."""
    setting: str
    source: str
    """Where the rule was published."""

    @property
    def text(self) -> str:
        """What passes: `at least 50`."""
        return f"{PASSES[self.bound]} {short(self.value)}"


class Bin(Settings):
    """One bar of a histogram."""

    lower: float | None
    """Least value of the bin; None for everything below `upper`."""
    upper: float | None
    """Where the next bin begins; None for everything from `lower`."""
    kept: int
    dropped: int


class Histogram(Settings):
    """Values of a signal among the documents that were kept and those that were dropped."""

    signal: str
    bins: tuple[Bin, ...]
    """Without gaps, in order."""
    thresholds: tuple[Threshold, ...] = ()


WIDTH, HEIGHT = 360, 150
LEFT, RIGHT, TOP, BOTTOM = 6, 6, 20, 20
LABEL_ROOM = 34


class Bar(NamedTuple):
    """A drawn bin: place, width, and where its two parts begin and how high they are; what it says when pointed at."""

    x: float
    width: float
    dropped_y: float
    dropped_height: float
    kept_y: float
    kept_height: float
    title: str


class Mark(NamedTuple):
    """A vertical line with a label."""

    at: float
    label: str
    anchor: str


class HistogramChart(NamedTuple):
    """A drawn histogram, in units of the drawing."""

    signal: str
    documents: int
    dropped: int
    bars: list[Bar]
    ticks: list[Mark]
    marks: list[Mark]
    thresholds: tuple[Threshold, ...]
    summary: str
    """Text alternative."""


def draw(histogram: Histogram) -> HistogramChart:
    """Bins are equally wide, whatever they span; a bar's height grows with the square root of its documents."""
    bins = histogram.bins
    step = (WIDTH - LEFT - RIGHT) / max(len(bins), 1)
    highest = math.sqrt(max((each.kept + each.dropped for each in bins), default=0) or 1)
    bars = [_bar(each, LEFT + place * step, step, highest) for place, each in enumerate(bins)]
    kept, dropped = sum(each.kept for each in bins), sum(each.dropped for each in bins)
    values = {each.value for each in histogram.thresholds}
    marks = _apart([_mark(LEFT + _place(bins, value) * step, short(value)) for value in sorted(values)])
    return HistogramChart(
        signal=histogram.signal,
        documents=kept + dropped,
        dropped=dropped,
        bars=[bar for bar in bars if bar.kept_height or bar.dropped_height],
        ticks=_ticks(bins, step),
        marks=marks,
        thresholds=histogram.thresholds,
        summary=f"{histogram.signal}: {kept:,} documents kept and {dropped:,} dropped, "
        + f"values from {_edge(bins[0].lower, 'below')} to {_edge(bins[-1].upper, 'above')}"
        if bins
        else f"{histogram.signal}: no document",
    )


def _bar(each: Bin, x: float, step: float, highest: float) -> Bar:
    both = each.kept + each.dropped
    room = HEIGHT - TOP - BOTTOM
    height = max(math.sqrt(both) / highest * room, 1.5) if both else 0.0
    kept = height * each.kept / (both or 1)
    floor = HEIGHT - BOTTOM
    return Bar(
        x=round(x, 2),
        width=round(max(step - min(1.0, step / 4), 0.5), 2),
        dropped_y=round(floor - height, 2),
        dropped_height=round(height - kept, 2),
        kept_y=round(floor - kept, 2),
        kept_height=round(kept, 2),
        title=f"{_edge(each.lower, 'below')} to {_edge(each.upper, 'above')}: "
        f"{each.kept:,} kept, {each.dropped:,} dropped",
    )


def _edge(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else short(float(f"{value:.3g}"))


def _place(bins: Sequence[Bin], value: float) -> float:
    """Where a value lies among bins, in bins from the left."""
    for place, each in enumerate(bins):
        if each.upper is None or value < each.upper:
            if each.lower is None or each.upper is None or value <= each.lower:
                return float(place)
            return place + (value - each.lower) / (each.upper - each.lower)
    return float(len(bins))


def _ticks(bins: Sequence[Bin], step: float) -> list[Mark]:
    """About five edges below the axis, at even distances."""
    every = max(1, math.ceil(len(bins) / 5))
    places = range(0, len(bins), every)
    return [
        _mark(LEFT + place * step, _edge(bins[place].lower, f"<{_edge(bins[place].upper, '')}")) for place in places
    ]


def _mark(at: float, label: str) -> Mark:
    """A label that stays inside the drawing."""
    anchor = "start" if at < 24 else "end" if at > WIDTH - 24 else "middle"
    return Mark(round(at, 2), label, anchor)


def _apart(marks: Sequence[Mark]) -> list[Mark]:
    """Marks from left to right, without the labels that would stand on another one."""
    found: list[Mark] = []
    end = -math.inf
    for mark in marks:
        free = mark.at - end >= LABEL_ROOM
        found.append(mark if free else mark._replace(label=""))
        end = mark.at if free else end
    return found
