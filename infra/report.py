"""The report of a run: the numbers as JSON, a summary for the terminal, and one HTML page that needs nothing else.

A corpus-only run has a `CorpusReport`; a run that also trained has a `Report`. The page is made from the report, the
training curve and links, and from nothing else, so equal input gives equal bytes. Sample texts were learned from the
web and are not trusted: they are escaped in the page and freed of control characters everywhere.

Words: *bits per byte* is the cost of held-out text under a model, in bits for each UTF-8 byte (lower is better), and
so does not depend on the tokenizer; *unigram* is the cost under token frequencies alone, without any context.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple, Self, TypedDict, cast

from jinja2 import Environment
from pydantic import ConfigDict, Field, model_validator

from infra.manifest import Manifest
from infra.settings import Settings
from infra.templates import page_templates

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that could steer a terminal or reverse the text around them; tab and line feed may stay."""
CURVE_BINS = 240
"""Most points of a drawn curve; longer ones show each bin's mean and range."""
TABLE_ROWS = 12
"""Most rows of the curve's table."""


class DatasetIdentity(Settings):
    """Which dataset: name and version for people, fingerprint of its content for machines."""

    name: str
    version: str
    fingerprint: str


class StageCounts(Settings):
    """What one stage did with the documents that entered it."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    name: str
    entered: int = Field(alias="in", ge=0)
    """Documents that entered; `in` in JSON, which is a keyword in Python."""
    kept: int = Field(ge=0)
    dropped: dict[str, int] = Field(default_factory=dict)
    """Dropped documents by reason code."""
    seconds: float = Field(ge=0, allow_inf_nan=False)
    """Wall time."""

    @property
    def unaccounted(self) -> int:
        """Documents that entered and were neither kept nor dropped."""
        return self.entered - self.kept - sum(self.dropped.values())

    @property
    def rate(self) -> float | None:
        """Documents for each second of wall time."""
        return self.entered / self.seconds if self.seconds else None


class RecordCounts(Settings):
    """What became of the archive's records."""

    read: int = Field(ge=0)
    documents: int = Field(ge=0)
    """Records that became documents."""
    quarantined: int = Field(ge=0)
    """Records that could not be read."""
    skipped: dict[str, int] = Field(default_factory=dict)
    """Readable records that are no documents, by reason."""


class Layout(Settings):
    """Ranks of tensor, pipeline and data parallelism."""

    tp: int = Field(ge=1)
    pp: int = Field(ge=1)
    dp: int = Field(ge=1)


class LossRange(Settings):
    """Training loss at the first and the last step, nats per token."""

    first: float
    last: float


class BitsPerByte(Settings):
    """Cost of held-out text, bits per UTF-8 byte."""

    trained: float = Field(ge=0, allow_inf_nan=False)
    untrained: float = Field(ge=0, allow_inf_nan=False)
    unigram: float = Field(ge=0, allow_inf_nan=False)

    @property
    def verdict(self) -> str:
        """What the three numbers mean, in a sentence."""
        if self.trained >= self.untrained:
            return "Training did not help: held-out text costs the trained model as much as it cost before, or more."
        saved = f"Training made held-out text {1 - self.trained / self.untrained:.0%} cheaper to predict"
        if self.trained >= self.unigram:
            return f"{saved}, yet token frequencies alone do as well or better: the model needs to train longer."
        below = f"{1 - self.trained / self.unigram:.0%} below what token frequencies alone achieve"
        return f"{saved}, and {below}: the model has learned to use context."


class Sample(Settings):
    """A prompt and the text that the trained model gave for it."""

    prompt: str
    text: str


class CorpusReport(Manifest):
    """A run that built a dataset."""

    dataset: DatasetIdentity
    stages: tuple[StageCounts, ...]
    records: RecordCounts
    tokens: int = Field(ge=0)
    """Tokens in the dataset, all splits."""

    @model_validator(mode="after")
    def _nothing_disappears(self) -> Self:
        for position, stage in enumerate(self.stages):
            allowed = self.records.quarantined if position == 0 else 0
            if not 0 <= stage.unaccounted <= allowed:
                raise ValueError(
                    f"stage {stage.name}: {stage.entered} in, {stage.kept} kept and {sum(stage.dropped.values())} "
                    f"dropped leave {stage.unaccounted} unaccounted for; {allowed} may be quarantined"
                )
        return self


class Report(CorpusReport):
    """A run that built a dataset and trained on it."""

    parameters: int = Field(ge=1)
    """Weights of the model."""
    layout: Layout
    loss: LossRange
    bits_per_byte: BitsPerByte | None
    """None where the model gives a text no likelihood."""
    samples: tuple[Sample, ...]
    mlflow_run_id: str | None
    prefect_flow_run_id: str | None


class CurveRow(TypedDict):
    """One logged training step."""

    step: int
    loss: float
    """Nats per token."""
    learning_rate: float
    gradient_norm: float
    tokens_per_second: float
    tokens: int
    """Tokens trained on up to this step."""


def printable(text: str) -> str:
    """The text with control and direction characters replaced, safe to show in a terminal or a page."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


# The page


def render_html(report: CorpusReport, curve: Sequence[CurveRow], links: Mapping[str, str]) -> str:
    """One self-contained page: no script, nothing loaded from elsewhere. `links` gives an address or a command."""
    trained = report if isinstance(report, Report) else None
    return (
        _template()
        .get_template("report.html.jinja")
        .render(
            report=report,
            trained=trained,
            bars=_bits_bars(trained.bits_per_byte) if trained and trained.bits_per_byte else [],
            funnel=[(stage, _segments(stage)) for stage in report.stages],
            slowest=max((stage.seconds for stage in report.stages), default=0) or 1,
            charts=_charts(curve) if trained else [],
            rows=_table_rows(curve) if trained else [],
            steps=curve[-1]["step"] if curve else 0,
            throughput=_median([row["tokens_per_second"] for row in curve]),
            links=links,
        )
    )


@cache
def _template() -> Environment:
    return page_templates(printable=printable, short=short, count="{:,}".format, duration=duration)


def short(value: float) -> str:
    """A number in four significant digits, with k, M, G for thousands: 12.3M, 0.0003."""
    if not math.isfinite(value):
        return "not finite"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scale = 1e3 if unit == "k" else size
            return f"{value / scale:.4g}{unit}"
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 0.4 s, 75 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Segment(NamedTuple):
    """A stretch of a stacked bar; `tint` 0 is what was kept, 1 to 5 and 6 for all others are reasons."""

    label: str
    documents: int
    percent: float
    tint: int


def _segments(stage: StageCounts) -> list[Segment]:
    """Kept, the five most frequent reasons, and the rest together."""
    ordered = sorted(stage.dropped.items(), key=lambda item: (-item[1], item[0]))
    parts = [("kept", stage.kept), *ordered[:5]]
    if len(ordered) > 5:
        parts.append((f"{len(ordered) - 5} other reasons", sum(count for _, count in ordered[5:])))
    if stage.unaccounted:
        parts.append(("quarantined", stage.unaccounted))
    whole = stage.entered or 1
    return [
        Segment(label, count, round(100 * count / whole, 3), min(tint, 6)) for tint, (label, count) in enumerate(parts)
    ]


def _bits_bars(bits: BitsPerByte) -> list[tuple[str, float, float]]:
    """Name, value and width in percent of each bar."""
    values = {"Trained model": bits.trained, "Token frequencies": bits.unigram, "Untrained model": bits.untrained}
    longest = max(values.values()) or 1
    return [(name, value, round(100 * value / longest, 2)) for name, value in values.items()]


def _table_rows(curve: Sequence[CurveRow]) -> list[CurveRow]:
    """Rows spread evenly over the curve, first and last among them."""
    if len(curve) <= TABLE_ROWS:
        return list(curve)
    last = len(curve) - 1
    return [curve[round(i * last / (TABLE_ROWS - 1))] for i in range(TABLE_ROWS)]


def _median(values: Iterable[float]) -> float:
    ordered = sorted(filter(math.isfinite, values))
    return ordered[len(ordered) // 2] if ordered else math.nan


# Line charts, as SVG that takes its colours from the page

PLOT_LEFT, PLOT_TOP, PLOT_BOTTOM, PLOT_RIGHT = 60, 14, 30, 14


class Tick(NamedTuple):
    """A mark of an axis: position in the drawing and label."""

    at: float
    label: str


class Chart(NamedTuple):
    """A drawn line chart, in units of the drawing."""

    title: str
    unit: str
    summary: str
    """Text alternative."""
    width: int
    height: int
    line: str
    """Points of the polyline."""
    band: str
    """Points of the polygon between least and greatest values; empty where every value is drawn."""
    xs: list[Tick]
    ys: list[Tick]


def _charts(curve: Sequence[CurveRow]) -> list[Chart]:
    """Loss, large; learning rate and gradient norm, small. Steps whose value is not finite are left out."""
    wanted = (
        ("Training loss", "nats per token", "loss", (720, 300)),
        ("Learning rate", "", "learning_rate", (360, 200)),
        ("Gradient norm", "before clipping", "gradient_norm", (360, 200)),
    )
    charts: list[Chart] = []
    for title, unit, key, size in wanted:
        points = [(row["step"], cast("float", row[key])) for row in curve if math.isfinite(row[key])]
        if points:
            charts.append(_chart(title, unit, points, size))
    return charts


def _chart(title: str, unit: str, points: list[tuple[int, float]], size: tuple[int, int]) -> Chart:
    bins = _bins(points)
    lows, highs = [b[1] for b in bins], [b[3] for b in bins]
    start, end = points[0][0], points[-1][0]
    x_ticks = _ticks(start, end, size[0] // 110, whole=True)
    y_ticks = _ticks(min(*lows, *highs), max(*lows, *highs), 4)
    low, high = min(y_ticks[0], *lows), max(y_ticks[-1], *highs)
    width, height = size

    def x(step: float) -> float:
        return round(PLOT_LEFT + (step - start) / ((end - start) or 1) * (width - PLOT_LEFT - PLOT_RIGHT), 1)

    def y(value: float) -> float:
        return round(PLOT_TOP + (high - value) / ((high - low) or 1) * (height - PLOT_TOP - PLOT_BOTTOM), 1)

    edge = [(b[0], b[1]) for b in bins] + [(b[0], b[3]) for b in reversed(bins)]
    first, last, steps = points[0][1], points[-1][1], f"{start:,} to {end:,}"
    values = [value for _, value in points]
    summary = f"{title} over steps {steps}: first {short(first)}, last {short(last)}"
    return Chart(
        title=title,
        unit=unit,
        summary=f"{summary}, least {short(min(values))}, greatest {short(max(values))}.",
        width=width,
        height=height,
        line=" ".join(f"{x(b[0])},{y(b[2])}" for b in bins),
        band=" ".join(f"{x(step)},{y(value)}" for step, value in edge) if len(bins) < len(points) else "",
        xs=[Tick(x(tick), f"{tick:,.0f}") for tick in x_ticks if start <= tick <= end],
        ys=[Tick(y(tick), short(tick)) for tick in y_ticks if low <= tick <= high],
    )


def _bins(points: list[tuple[int, float]]) -> list[tuple[float, float, float, float]]:
    """Step, least, mean and greatest value of each bin of neighbouring points; single points while they are few."""
    size = math.ceil(len(points) / CURVE_BINS)
    bins: list[tuple[float, float, float, float]] = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        values = [value for _, value in part]
        step = sum(step for step, _ in part) / len(part)
        bins.append((step, min(values), math.fsum(values) / len(values), max(values)))
    return bins


def _ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about `count` of them."""
    span = (high - low) or abs(high) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / count))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude * count >= span * 0.999)
    step = max(1.0, float(round(step))) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


# The terminal


def render_text(report: CorpusReport) -> str:
    """The short summary for a terminal: what was kept and why not, what the model costs, and one sample."""
    dataset = report.dataset
    lines = [f"Dataset {dataset.name}/{dataset.version} ({dataset.fingerprint}): {report.tokens:,} tokens"]
    counts = report.records
    skipped = sum(counts.skipped.values())
    lines.append(
        f"Records: {counts.read:,} read, {counts.documents:,} documents, {skipped:,} skipped, "
        f"{counts.quarantined:,} quarantined"
    )
    width = max((len(stage.name) for stage in report.stages), default=0)
    for stage in report.stages:
        ordered = sorted(stage.dropped.items(), key=lambda item: (-item[1], item[0]))[:3]
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in ordered)
        numbers = f"{stage.entered:>9,} in {stage.kept:>9,} kept {duration(stage.seconds):>8}"
        lines.append(f"  {stage.name:<{width}} {numbers}  {reasons}".rstrip())
    if isinstance(report, Report):
        lines += _model_lines(report)
    return printable("\n".join(lines)) + "\n"


def _model_lines(report: Report) -> list[str]:
    bits, layout = report.bits_per_byte, report.layout
    lines = [
        f"Model: {short(report.parameters)} parameters, tp {layout.tp} x pp {layout.pp} x dp {layout.dp}, "
        f"loss {report.loss.first:.3f} -> {report.loss.last:.3f}",
    ]
    if bits is not None:
        numbers = f"{bits.trained:.3f} trained, {bits.unigram:.3f} unigram, {bits.untrained:.3f} untrained"
        lines += [f"Bits per byte: {numbers}", bits.verdict]
    first = [f"Sample: {sample.prompt} | {' '.join(sample.text.split())[:200]}" for sample in report.samples[:1]]
    return lines + first
