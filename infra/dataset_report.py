"""The report of a dataset: what was kept and what was not, and why, for people who have to judge the rules.

`DatasetReport` holds plain figures and rows; `render_dataset_html` makes one page of them that needs nothing else: no
script, nothing loaded from elsewhere. Texts, addresses and words come from the web and are not trusted: they are
escaped and freed of control characters. They are as they were before redaction, so page and JSON are private files.
Equal reports give equal bytes.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Self

from jinja2 import Environment
from pydantic import Field

from infra.histograms import Histogram, Threshold, draw
from infra.manifest import Manifest
from infra.report import DatasetIdentity, printable, short
from infra.settings import Settings
from infra.store import Store
from infra.templates import page_templates


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
    texts_deleted_at: str | None = None
    """When retention took the texts out of the examples, as UTC; None while they are there."""
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

    def without_texts(self, moment: str) -> Self:
        """The same without the texts of examples, which are from before redaction; says when they went."""
        bare = [
            each.model_copy(update={side: tuple(_without_text(one) for one in getattr(each, side)) for side in _SIDES})
            for each in self.rules
        ]
        return self.model_copy(update={"rules": tuple(bare), "texts_deleted_at": moment})


def save_dataset_report(store: Store, folder: str, report: DatasetReport) -> None:
    """Write page and figures for their owner alone; the folder itself stays as readable as it was."""
    page, figures = report_paths(folder)
    place = store.local_path(folder) if store.is_local else None
    mode = None if place is None else place.stat().st_mode
    try:
        store.write_bytes(page, render_dataset_html(report).encode(), private=True)
        store.write_bytes(figures, report.model_dump_json(indent=1).encode() + b"\n", private=True)
    finally:
        if place is not None and mode is not None:
            place.chmod(mode)  # a private file makes its folder private; the manifest beside it is for everybody


def report_paths(dataset_folder: str) -> tuple[str, str]:
    """Where the page and its figures lie, given where the dataset does."""
    return f"{dataset_folder}/report.html", f"{dataset_folder}/report.json"


# The page


def render_dataset_html(report: DatasetReport) -> str:
    """One self-contained page."""
    bounded = [draw(each) for each in report.histograms if each.thresholds]
    others = [draw(each) for each in report.histograms if not each.thresholds]
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


_SIDES = ("dropped", "kept")


def _without_text(example: Example) -> Example:
    return example.model_copy(update={"text": None})


@cache
def _environment() -> Environment:
    environment = page_templates(p=printable, short=short, count="{:,}".format, percent=percent)
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
