"""The report of a dataset: what was kept and what was not, and why, for people who have to judge the rules.

`DatasetReport` holds plain figures and rows; `render_dataset_html` makes one page of them that needs nothing else: no
script, nothing loaded from elsewhere. Texts, addresses and words come from the web and are not trusted: they are
escaped and freed of control characters. They are as they were before redaction, so page and JSON are private files.
Equal reports give equal bytes.
"""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Literal, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import Field

from infra.manifest import Manifest
from infra.report import DatasetIdentity, printable, short
from infra.settings import Settings

Bound = Literal["min", "above", "max", "below"]
PASSES: dict[Bound, str] = {"min": "at least", "above": "more than", "max": "at most", "below": "less than"}
"""How a bound is said: what passes it."""


class FunnelStage(Settings):
    """What one stage did with the documents that entered it."""

    name: str
    entered: int = Field(ge=0)
    kept: int = Field(ge=0)
    dropped: dict[str, int] = Field(default_factory=dict)
    """Dropped documents by reason code, the most frequent first."""
    quarantined: int = Field(default=0, ge=0)
    """Records that could not be read."""
    copies: int = Field(default=0, ge=0)
    """Further copies of kept documents that the mixture made here; counted neither as entered nor as kept."""


class LanguageRow(Settings):
    """What became of the documents of one language."""

    language: str
    measured: int
    """Documents whose signals were measured."""
    kept: int
    refused: dict[str, int] = Field(default_factory=dict)
    """Documents that were refused for their language, by reason code."""
    dropped: int
    """Documents that were dropped for any other reason."""
    words: int
    """Words of all measured documents."""
    words_kept: int
    tokens: int
    """Tokens in the dataset, every copy counted."""


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


class Example(Settings):
    """A document as people see it."""

    id: str
    url: str | None
    language: str | None
    value: float | None
    """The value that decided."""
    threshold: float | None
    detail: str | None
    text: str | None
    """The first characters of the text, before redaction."""


class RuleExamples(Settings):
    """Documents that a rule dropped, and those that it nearly dropped."""

    reason: str
    stage: str
    documents: int
    """Documents dropped for this reason."""
    thresholds: tuple[Threshold, ...] = ()
    """The rule's bounds; none for reasons that are no comparison."""
    dropped: tuple[Example, ...] = ()
    kept: tuple[Example, ...] = ()
    """Kept documents whose signal lies nearest to the threshold."""


class LanguageWords(Settings):
    """The most frequent words of what the filter kept of one language, in the shards that were looked at."""

    language: str
    words: tuple[tuple[str, int], ...]


class FertilityRow(Settings):
    """How well the vocabulary fits one language or source."""

    group: str
    name: str
    documents: int
    tokens: int
    bytes_per_token: float
    tokens_per_word: float | None


class DomainRow(Settings):
    """One domain of a language, or one source."""

    name: str
    kept: int
    dropped: int
    tokens: int

    @property
    def documents(self) -> int:
        """Kept and dropped."""
        return self.kept + self.dropped


class LanguageDomains(Settings):
    """The most frequent domains of one language."""

    language: str
    domains: tuple[DomainRow, ...]
    others: int
    """Domains that are not listed."""


class SourceLossRow(Settings):
    """What one source lost as duplicates."""

    source: str
    documents: int
    lost: int
    alarm: bool


class ClusterRow(Settings):
    """One of the largest clusters, by the document that stayed."""

    survivor: str
    url: str | None
    dataset: str | None
    """NAME/VERSION of the earlier dataset that has it; None for this one."""
    documents: int


class DedupFigures(Settings):
    """Duplicates."""

    kinds: dict[str, int]
    clusters: int
    cluster_sizes: dict[str, int]
    largest: tuple[ClusterRow, ...]
    sources: tuple[SourceLossRow, ...]
    max_source_loss: float
    """Share from which on a source's loss is an alarm."""


class BenchmarkRow(Settings):
    """What was found of one benchmark."""

    benchmark: str
    items: int
    indexed: int
    """Items that are long enough to be looked for."""
    hit: int
    """Items that documents held."""
    documents: int


class MixtureRow(Settings):
    """A group of documents before and after sampling."""

    source: str
    language: str
    bucket: str
    documents_before: int
    documents_after: int
    bytes_before: int
    bytes_after: int


class SampleRow(Settings):
    """How much text of one kind the vocabulary was learned from."""

    column: str
    value: str
    bytes: int


class DatasetReport(Manifest):
    """All that the page shows."""

    dataset: DatasetIdentity
    documents: dict[str, int]
    """Documents by split."""
    tokens: dict[str, int]
    """Tokens by split."""
    text_bytes: int
    vocabulary: int
    """Size of the vocabulary."""
    ledger: tuple[str, ...]
    """Folders of the Parquet files, relative to the root."""
    funnel: tuple[FunnelStage, ...]
    languages: tuple[LanguageRow, ...]
    histograms: tuple[Histogram, ...]
    histogram_languages: tuple[str, ...]
    """Languages whose documents the histograms count; none means all."""
    rules: tuple[RuleExamples, ...]
    words: tuple[LanguageWords, ...]
    fertility: tuple[FertilityRow, ...]
    domains: tuple[LanguageDomains, ...]
    sources: tuple[DomainRow, ...]
    dedup: DedupFigures | None = None
    personal: dict[str, int] = Field(default_factory=dict)
    """Replaced finds by kind."""
    personal_documents: int = 0
    """Documents in which something was replaced."""
    repeats: dict[str, int] | None = None
    """What was cut because many documents share it."""
    contamination: tuple[BenchmarkRow, ...] = ()
    contamination_kept: bool = False
    """Whether contaminated documents were only marked."""
    mixture: tuple[MixtureRow, ...] = ()
    sample: tuple[SampleRow, ...] = ()


def report_paths(dataset_folder: str) -> tuple[str, str]:
    """Where the page and its figures lie, given where the dataset does."""
    return f"{dataset_folder}/report.html", f"{dataset_folder}/report.json"


# The page


def render_dataset_html(report: DatasetReport) -> str:
    """One self-contained page."""
    bounded = [_chart(each) for each in report.histograms if each.thresholds]
    others = [_chart(each) for each in report.histograms if not each.thresholds]
    return (
        _environment()
        .get_template("dataset_report.html.jinja")
        .render(
            report=report,
            fetched=report.funnel[0].entered if report.funnel else 0,
            anchors={each.reason: f"rule-{number}" for number, each in enumerate(report.rules, 1)},
            bounded=bounded,
            others=others,
            refused=_refused(report.languages),
            largest=_largest(report),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("infra", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"p": printable, "short": short, "count": "{:,}".format, "percent": percent}
    environment.globals["percent"] = percent
    return environment


def percent(part: float, whole: float) -> str:
    """A share for people: 0.04%, 3.2%, 47%; a dash of nothing."""
    if not whole:
        return "\N{EN DASH}"
    share = 100 * part / whole
    if share in (0, 100):
        return f"{share:.0f}%"
    return f"{share:.2f}%" if share < 0.1 else f"{min(share, 99.9):.1f}%"


def _refused(languages: Sequence[LanguageRow]) -> list[LanguageRow]:
    """Languages that lost documents for what they are, the largest loss first."""
    lost = [each for each in languages if each.refused]
    return sorted(lost, key=lambda each: (-sum(each.refused.values()), each.language))


def _largest(report: DatasetReport) -> dict[str, int]:
    """What the longest bar of each chart stands for."""
    every: dict[str, Iterable[int]] = {
        "refused": (sum(each.refused.values()) for each in report.languages),
        "words": (each.words_kept for each in report.languages),
        "personal": report.personal.values(),
        "clusters": report.dedup.cluster_sizes.values() if report.dedup else (),
        "mixture": (max(each.bytes_before, each.bytes_after) for each in report.mixture),
        "sample": (each.bytes for each in report.sample),
    }
    return {name: max([*values, 1]) for name, values in every.items()}


# Histograms, as SVG that takes its colours from the page

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


def _chart(histogram: Histogram) -> HistogramChart:
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
