"""Figures for people: dots with intervals, and curves over tokens; equal input gives equal bytes.

Matplotlib is imported when a figure is drawn, because it takes a second; nothing of it is set for the whole process.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from infra.report import short

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Told apart by people who see colours otherwise, too (Okabe and Ito 2008)."""


class Dot(NamedTuple):
    """A value with its interval, if it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def reach(self) -> tuple[float, float]:
        """How far the interval goes to both sides."""
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        return max(self.value - low, 0.0), max(high - self.value, 0.0)


class DotRow(NamedTuple):
    """A line of a panel: a dot for each series, or none."""

    name: str
    dots: Sequence[Dot | None]
    mark: float | None = None
    """What is drawn as a tick, such as the accuracy of guessing."""


class DotPanel(NamedTuple):
    """Lines on one axis."""

    title: str
    axis: str
    rows: Sequence[DotRow]


class CurvePanel(NamedTuple):
    """Curves of one quantity: for each series, by its place, points (x, Dot) in order."""

    title: str
    axis: str
    curves: Mapping[int, Sequence[tuple[float, Dot]]]


def draw_dots(panels: Sequence[DotPanel], series: Sequence[str]) -> dict[str, bytes]:
    """An SVG and a PNG, by their endings: panels below each other, a colour for each series."""
    from matplotlib.figure import Figure

    heights = [len(panel.rows) * (0.16 * len(series) + 0.16) + 0.9 for panel in panels]
    figure = Figure(figsize=(8.5, sum(heights) + 0.25 * len(series) + 0.2), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for one, panel in zip(axes, panels, strict=True):
        _draw_rows(one, panel, len(series))
    figure.legend(
        handles=_handles(series),
        loc="outside upper left",
        ncols=1 if len(max(series, key=len)) > 40 else 3,
        frameon=False,
        fontsize=9,
    )
    return _rendered(figure)


def draw_curves(panels: Sequence[CurvePanel], series: Sequence[str], x_axis: str = "tokens") -> dict[str, bytes]:
    """An SVG and a PNG, by their endings: three panels in a line, a colour for each series, intervals as bands."""
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    size = (max(3.6 * columns, 6), 2.7 * lines + 0.25 * len(series) + 0.2)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for one, panel in zip(axes, panels, strict=False):
        _draw_curves(one, panel, x_axis)
    for one in axes[len(panels) :]:
        one.set_axis_off()
    figure.legend(handles=_handles(series), loc="outside upper left", ncols=1, frameon=False, fontsize=9)
    return _rendered(figure)


def _draw_rows(axes: Any, panel: DotPanel, series: int) -> None:
    for place, row in enumerate(panel.rows[::-1]):
        for number, dot in enumerate(row.dots):
            if dot is not None:
                height = place + 0.7 * ((series - 1) / 2 - number) / max(series, 2)
                reach = [[side] for side in dot.reach]
                axes.errorbar(dot.value, height, xerr=reach, fmt="o", color=_colour(number), markersize=4, capsize=2)
        if row.mark is not None:
            axes.plot([row.mark, row.mark], [place - 0.4, place + 0.4], color="#888888", linewidth=1, linestyle=":")
    axes.set_yticks(range(len(panel.rows)), [row.name for row in panel.rows[::-1]], fontsize=8)
    axes.set_ylim(-0.6, len(panel.rows) - 0.4)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_title(panel.title, fontsize=10, loc="left")
    axes.set_xlabel(panel.axis, fontsize=8)
    _quieten(axes, "x")


def _draw_curves(axes: Any, panel: CurvePanel, x_axis: str) -> None:
    for number, points in sorted(panel.curves.items()):
        x, dots = [each for each, _ in points], [dot for _, dot in points]
        axes.plot(x, [dot.value for dot in dots], color=_colour(number), marker="o", markersize=3, linewidth=1.3)
        low, high = ([dot.value + sign * dot.reach[side] for dot in dots] for side, sign in ((0, -1), (1, 1)))
        axes.fill_between(x, low, high, color=_colour(number), alpha=0.15, linewidth=0)
    axes.set_title(panel.title, fontsize=9, loc="left")
    axes.set_ylabel(panel.axis, fontsize=8)
    axes.set_xlabel(x_axis, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    _quieten(axes, "both")


def _quieten(axes: Any, grid: str) -> None:
    axes.grid(axis=grid, color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _handles(series: Sequence[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=_colour(number), marker="o", label=name) for number, name in enumerate(series)]


def _rendered(figure: Any) -> dict[str, bytes]:
    """Without date and random names, so that equal figures are equal bytes."""
    import matplotlib as mpl

    found: dict[str, bytes] = {}
    with mpl.rc_context({"svg.hashsalt": "gristmill"}):
        for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            out = io.BytesIO()
            figure.savefig(out, format=kind, dpi=150, metadata=metadata)
            found[kind] = out.getvalue()
    return found
