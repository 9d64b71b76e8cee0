"""`gristmill show NAME`: one dataset in a screenful, from its manifest and the figures of its report."""

from collections.abc import Iterator

from pydantic import Field

from flows.config import DatasetSettings
from infra.dataset_report import (
    DatasetReport,
    DomainRow,
    FunnelStage,
    LanguageRow,
    SourceLossRow,
    percent,
    report_paths,
)
from infra.manifest import DatasetManifest, StageManifest, load_dataset, stage_folder
from infra.report import printable, short
from infra.retained import find_retained
from infra.settings import Settings
from infra.store import Store
from tasks.ledger import LEDGER
from tasks.pipeline import manifest_path

REASONS, LANGUAGES, DOMAINS = 6, 12, 10
"""Most reasons of a stage, languages and domains that the terminal shows."""


class DatasetDetails(Settings):
    """What `gristmill show NAME` prints."""

    name: str
    version: str
    fingerprint: str
    documents: dict[str, int]
    """Documents by split."""
    tokens: dict[str, int]
    """Tokens by split."""
    funnel: tuple[FunnelStage, ...] = ()
    languages: tuple[LanguageRow, ...] = ()
    domains: dict[str, tuple[DomainRow, ...]] = Field(default={})
    """Most frequent domains by language, of the languages that are in the dataset."""
    personal: dict[str, int] = Field(default={})
    """Replaced personal data by kind."""
    alarms: tuple[SourceLossRow, ...] = ()
    """Sources that lost too much as duplicates."""
    ledger: tuple[str, ...] = ()
    """Parquet files with a row for each document."""
    ledger_rows: int = 0
    retained: dict[str, str] = Field(default={})
    """Stages whose texts retention has deleted, with what its mark says."""
    report: str | None = None
    """The page to look at; None if it was never written."""

    def text(self) -> str:
        """The same for people."""
        split = ", ".join(
            f"{self.documents[each]:,} documents {self.tokens[each]:,} tokens {each}" for each in self.tokens
        )
        lines = [f"Dataset {self.name}/{self.version} ({self.fingerprint}): {split}"]
        lines += self._funnel() + self._languages()
        if self.personal:
            lines.append("Personal data replaced: " + ", ".join(f"{name} {n:,}" for name, n in self.personal.items()))
        lines += [
            f"Alarm: source {each.source} lost {each.lost:,} of {each.documents:,} documents as duplicates"
            for each in self.alarms
        ]
        if self.ledger:
            folder = self.ledger[0].rpartition("/")[0]
            lines.append(f"Ledger  {folder}/*.parquet ({self.ledger_rows:,} rows in {len(self.ledger):,} files)")
        lines += [f"Texts of {stage}: {text}" for stage, text in self.retained.items()]
        lines.append(f"Report  {self.report or 'none yet: run `gristmill corpus` with the same settings again'}")
        return printable("\n".join(lines))

    def _funnel(self) -> list[str]:
        lines = ["Funnel"] if self.funnel else []
        width = max((len(each.name) for each in self.funnel), default=0)
        for each in self.funnel:
            reasons = [f"{reason} {count:,}" for reason, count in each.dropped.items()]
            more = [f"{len(reasons) - REASONS} more"] if len(reasons) > REASONS else []
            numbers = f"{each.entered:>11,} in {each.kept:>11,} kept {percent(each.kept, each.entered):>6}"
            lines.append(f"  {each.name:<{width}} {numbers}  {', '.join([*reasons[:REASONS], *more])}".rstrip())
        return lines

    def _languages(self) -> list[str]:
        lines = ["Languages, with the most frequent domains of those in the dataset"] if self.languages else []
        for each in self.languages[:LANGUAGES]:
            numbers = f"{each.kept:,} of {each.measured:,} documents, {short(each.tokens)} tokens"
            lines.append(f"  {each.language:<4} {numbers}")
            rows = [f"{row.name} {row.kept:,}/{row.documents:,}" for row in self.domains.get(each.language, ())]
            lines += [f"       {', '.join(rows[:DOMAINS])}"] if rows else []
        hidden = len(self.languages) - LANGUAGES
        return [*lines, f"  and {hidden} more"] if hidden > 0 else lines


def dataset_details(store: Store, settings: DatasetSettings) -> DatasetDetails:
    """A dataset by name, the newest version unless one is given; BadInput names what there is instead."""
    dataset = load_dataset(store, settings.name, settings.version)
    ledger = _ledger(store, dataset)
    page, figures = report_paths(dataset.folder)
    report = DatasetReport.load(store, figures) if store.exists(figures) else None
    common = DatasetDetails(
        name=dataset.name,
        version=dataset.version,
        fingerprint=dataset.fingerprint,
        documents={split: sum(each.documents for each in dataset.split(split)) for split in ("train", "heldout")},
        tokens={split: dataset.tokens(split) for split in ("train", "heldout")},
        ledger=() if ledger is None else tuple(store.full_path(path) for path in ledger.kept_paths),
        ledger_rows=0 if ledger is None else ledger.kept,
        retained=dict(_retained(store, dataset)),
    )
    if report is None:
        return common
    kept = {each.language for each in report.languages if each.kept}
    return common.model_copy(
        update={
            "funnel": report.funnel,
            "languages": report.languages,
            "domains": {each.language: each.domains for each in report.domains if each.language in kept},
            "personal": report.personal,
            "alarms": tuple(each for each in (report.dedup.sources if report.dedup else ()) if each.alarm),
            "report": store.full_path(page),
        }
    )


def _retained(store: Store, dataset: DatasetManifest) -> Iterator[tuple[str, str]]:
    for stage, fingerprint in dataset.stages.items():
        if (mark := find_retained(store, stage_folder(stage, fingerprint))) is not None:
            yield stage, mark.text


def _ledger(store: Store, dataset: DatasetManifest) -> StageManifest | None:
    """The ledger's manifest, unless the dataset is older than ledgers."""
    if LEDGER.name not in dataset.stages:
        return None
    return StageManifest.load(store, manifest_path(dataset, LEDGER.name))
