"""The change report of a dataset version: what came in since the version before, and how far it has drifted.

Words: documents *seen* entered the build; those *added* are in the new version; *known* ones were left out because an
earlier dataset holds them, although they passed every rule; all others were *dropped* for a reason.
"""

from collections.abc import Sequence
from functools import cache
from typing import Literal, NamedTuple

from jinja2 import Environment
from pydantic import Field

from infra.dataset_report import percent
from infra.manifest import Manifest, dataset_folder
from infra.report import DatasetIdentity, printable, short
from infra.settings import Settings
from infra.tables_page import PageTable, as_markdown, as_text
from infra.templates import page_templates

Population = Literal["measured", "kept"]
"""All documents that were measured, whatever became of them; or those that are in the dataset."""
Level = Literal["stable", "moderate", "alarm", "not judged"]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The quantiles of a summary."""
_ROWS_SHOWN = 15


class Counts(Settings):
    """What became of some documents."""

    documents: int = 0
    """Documents seen."""
    added: int = 0
    known: int = 0
    tokens: int = 0
    """Tokens of what was added, copies included."""

    @property
    def dropped(self) -> int:
        """Documents that were neither added nor known."""
        return self.documents - self.added - self.known


class GroupChange(Settings):
    """One language, source or host in both versions."""

    name: str
    now: Counts
    before: Counts | None
    """None where there is no version before."""


class ReasonChange(Settings):
    """A reason to drop documents, STAGE/REASON."""

    reason: str
    documents: int
    share: float
    """Of all documents seen."""
    documents_before: int | None = None
    share_before: float | None = None


class Summary(Settings):
    """The values of a signal in one version."""

    documents: int
    """Documents of the population, with a value or without."""
    missing: float
    """Share of documents without a finite value."""
    mean: float | None
    quantiles: tuple[float, ...] = ()
    """Those of QUANTILES."""


class DriftBin(Settings):
    """One bin of a signal, cut at quantiles of the version before."""

    lower: float | None
    """Least value; None for everything below `upper`."""
    upper: float | None
    """Where the next bin begins; None for everything from `lower`."""
    missing: bool = False
    """Whether it holds documents without a value instead."""
    before: float
    """Share of documents in the version before."""
    now: float


class SignalDrift(Settings):
    """How the distribution of a signal has moved between two versions."""

    signal: str
    population: Population
    level: Level
    psi: float | None = None
    """Population stability index, less what equal distributions give by chance."""
    bound: float | None = None
    """What the index may be at most; None if the signal raises no alarm."""
    ks: float | None = None
    """Kolmogorov-Smirnov distance: the largest difference of the two distribution functions."""
    before: Summary | None
    """None where the version before does not have the signal."""
    now: Summary | None
    bins: tuple[DriftBin, ...] = ()


class CategoryDrift(Settings):
    """How the shares of languages, buckets or reasons have moved."""

    category: str
    level: Level
    psi: float
    bound: float


class Alarm(Settings):
    """Something that moved beyond its bound."""

    name: str
    value: float
    bound: float
    found: str
    """What moved, in words."""
    look_at: str
    """Where to find out why."""

    @property
    def text(self) -> str:
        """The alarm in a sentence."""
        return f"{self.found} (bound {short(self.bound)}): look at {self.look_at}"


class ChangeReport(Manifest):
    """What a dataset version brought, and what moved since the one before. Equal datasets give equal reports."""

    dataset: DatasetIdentity
    previous: DatasetIdentity | None
    """None for a first version: nothing is compared."""
    crawls: tuple[str, ...] = ()
    """Crawls that this version was made from, as its builder names them."""
    total: GroupChange
    quarantined: int
    """Records that could not be read."""
    languages: tuple[GroupChange, ...] = ()
    sources: tuple[GroupChange, ...] = ()
    hosts: tuple[GroupChange, ...] = ()
    """Registered domains with most documents."""
    known_from: dict[str, int] = Field(default={})
    """Documents that were left out as known, by the earlier dataset that holds them."""
    reasons: tuple[ReasonChange, ...] = ()
    signals: tuple[SignalDrift, ...] = ()
    """The ones that moved most first."""
    categories: tuple[CategoryDrift, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    notes: tuple[str, ...] = ()
    """What was not judged and why; what moved without passing a bound."""

    @property
    def folder(self) -> str:
        """The dataset's folder, relative to the root."""
        return dataset_folder(self.dataset.name, self.dataset.version)

    def text(self) -> str:
        """The report for a terminal."""
        return "\n".join([*headline(self), "", as_text(tables(self))])

    def markdown(self) -> str:
        """The report for Prefect."""
        return "\n\n".join([*headline(self), as_markdown(tables(self))])


def change_report_paths(folder: str) -> tuple[str, str]:
    """Page and figures of a dataset's change report."""
    return f"{folder}/changes.html", f"{folder}/changes.json"


def headline(report: ChangeReport) -> list[str]:
    """What is most worth knowing, in sentences."""
    now = report.total.now
    since = "first version" if report.previous is None else f"since {report.previous.version}"
    lines = [
        f"{report.dataset.name}/{report.dataset.version}, {since}: {now.added:,} documents added with "
        f"{now.tokens:,} tokens, {now.known:,} dropped as known, {now.dropped:,} dropped otherwise"
    ]
    lines += [f"Alarm: {alarm.text}" for alarm in report.alarms]
    if report.previous is not None and not report.alarms and any(each.level != "not judged" for each in report.signals):
        lines.append("No signal has drifted beyond its bound")
    return lines


def tables(report: ChangeReport) -> list[PageTable]:
    """The tables of the report, cut to what a person reads."""
    found = [
        *(
            _group_table(title, rows, report.total)
            for title, rows in (
                ("Languages", report.languages),
                ("Sources", report.sources),
                ("Hosts", report.hosts),
            )
            if rows
        ),
        PageTable(
            "Reasons",
            "Shares are of all documents seen.",
            ["reason", "documents", "share", "before"],
            [
                [each.reason, f"{each.documents:,}", percent(each.share, 1), _share(each.share_before)]
                for each in report.reasons[:_ROWS_SHOWN]
            ],
        ),
    ]
    if report.known_from:
        rows = [[name, f"{count:,}"] for name, count in report.known_from.items()]
        found.insert(0, PageTable("Known from", "", ["dataset", "documents"], rows))
    if report.previous is not None:
        found.append(_drift_table(report.signals[:_ROWS_SHOWN]))
    return found


def _group_table(title: str, rows: Sequence[GroupChange], total: GroupChange) -> PageTable:
    head = ["name", "seen", "added", "known", "dropped", "tokens", "share of tokens", "before"]
    cells = [
        [
            each.name or "(none)",
            *(f"{number:,}" for number in (each.now.documents, each.now.added, each.now.known, each.now.dropped)),
            f"{each.now.tokens:,}",
            percent(each.now.tokens, total.now.tokens),
            "" if each.before is None or total.before is None else percent(each.before.tokens, total.before.tokens),
        ]
        for each in rows[:_ROWS_SHOWN]
    ]
    return PageTable(title, "", head, cells)


def _drift_table(rows: Sequence[SignalDrift]) -> PageTable:
    caption = "The population stability index is less what chance gives; KS is the Kolmogorov-Smirnov distance."
    head = ["signal", "documents", "PSI", "KS", "mean before", "mean now", ""]
    cells = [
        [
            each.signal,
            each.population,
            *(_number(value) for value in (each.psi, each.ks, _mean(each.before), _mean(each.now))),
            each.level,
        ]
        for each in rows
    ]
    return PageTable("Drift of signals", caption, head, cells)


def _mean(summary: Summary | None) -> float | None:
    return None if summary is None else summary.mean


def _number(value: float | None) -> str:
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.3g}" if abs(value) < 1000 else short(value)


def _share(value: float | None) -> str:
    return "" if value is None else percent(value, 1)


# The page


class DriftBar(NamedTuple):
    """One bin drawn: where, and how high both versions stand in it."""

    x: float
    width: float
    before_height: float
    now_height: float
    label: str
    """What stands below its left edge."""
    title: str


BARS_HEIGHT, CHART_WIDTH = 100.0, 348.0


def bars(drift: SignalDrift) -> list[DriftBar]:
    """Bins of equal width; heights grow with the share of documents."""
    most = max((max(each.before, each.now) for each in drift.bins), default=0) or 1.0
    step = CHART_WIDTH / max(len(drift.bins), 1)
    every = -(-len(drift.bins) // 6)
    return [
        DriftBar(
            x=round(6 + place * step, 2),
            width=round(step / 2 - 1.5, 2),
            before_height=round(BARS_HEIGHT * each.before / most, 2),
            now_height=round(BARS_HEIGHT * each.now / most, 2),
            label=_label(each) if each.missing or place % every == 0 else "",
            title=f"{_range(each)}: {percent(each.before, 1)} before, {percent(each.now, 1)} now",
        )
        for place, each in enumerate(drift.bins)
    ]


def _label(each: DriftBin) -> str:
    if each.missing:
        return "none"
    return "" if each.lower is None else short(float(f"{each.lower:.3g}"))


def _range(each: DriftBin) -> str:
    if each.missing:
        return "no value"
    edges = ["" if edge is None else f"{edge:.4g}" for edge in (each.lower, each.upper)]
    return f"below {edges[1]}" if not edges[0] else f"from {edges[0]}" + (f" to {edges[1]}" if edges[1] else "")


def render_change_html(report: ChangeReport) -> str:
    """One self-contained page: no script, nothing loaded from elsewhere."""
    loud = [each for each in report.signals if each.level in ("alarm", "moderate")]
    quiet = [each for each in report.signals if each not in loud and len(each.bins) > 1]
    return _template().get_template("change_report.html.jinja").render(report=report, loud=loud, quiet=quiet)


@cache
def _template() -> Environment:
    environment = page_templates(p=printable, short=short, count="{:,}".format, number=_number)
    environment.globals |= {"percent": percent, "bars": bars}
    return environment
