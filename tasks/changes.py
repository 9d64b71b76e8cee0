"""What changed between two versions of a dataset, from their ledgers alone: counts, shares, drift, alarms."""

from collections.abc import Sequence

from infra.change_report import ChangeReport, Counts, GroupChange, ReasonChange
from infra.manifest import DatasetManifest, StageManifest, stage_folder
from infra.report import DatasetIdentity
from infra.store import Store
from tasks.drift_judgement import DriftSettings, judge
from tasks.ledger import LEDGER
from tasks.ledger_counts import CountedVersion, counted
from tasks.stage import StageRunner


def change_report(
    store: Store,
    dataset: DatasetManifest,
    previous: DatasetManifest | None,
    drift: DriftSettings,
    crawls: Sequence[str] = (),
    runner: StageRunner | None = None,
) -> ChangeReport:
    """What a dataset version brought, and how it differs from the one before, if there is one.

    Ledgers are counted on the runner's cluster where one is given, in this process otherwise. `crawls` is only said.
    BadInput if the dataset has no ledger; a previous version without one is not compared.
    """
    notes = []
    if previous is not None and LEDGER.name not in previous.stages:
        notes.append(f"{previous.name}/{previous.version} has no ledger to compare with")
        previous = None
    now = counted(store, dataset, runner)
    before = None if previous is None else counted(store, previous, runner)
    report = ChangeReport(
        dataset=_identity(dataset),
        previous=None if previous is None else _identity(previous),
        crawls=tuple(crawls),
        total=GroupChange(name="", now=now.total(), before=None if before is None else before.total()),
        quarantined=_quarantined(store, dataset),
        languages=_groups(now, before, "language"),
        sources=_groups(now, before, "source"),
        hosts=_groups(now, before, "domain")[: drift.max_hosts],
        known_from={name: each.documents for name, each in now.groups("known").items()},
        reasons=_reasons(now, before),
        notes=tuple(notes),
    )
    return report if before is None else judge(report, now, before, drift)


def _identity(dataset: DatasetManifest) -> DatasetIdentity:
    return DatasetIdentity(name=dataset.name, version=dataset.version, fingerprint=dataset.fingerprint)


def _quarantined(store: Store, dataset: DatasetManifest) -> int:
    paths = [f"{stage_folder(*each)}/manifest.json" for each in dataset.stages.items()]
    return sum(StageManifest.load(store, path).rows_of("quarantined") for path in paths if store.exists(path))


def _groups(now: CountedVersion, before: CountedVersion | None, table: str) -> tuple[GroupChange, ...]:
    """Groups of either version, those with most tokens added now first."""
    new, old = now.groups(table), {} if before is None else before.groups(table)
    rows = [
        GroupChange(name=name, now=new.get(name, Counts()), before=None if before is None else old.get(name, Counts()))
        for name in new.keys() | old.keys()
    ]
    return tuple(sorted(rows, key=lambda each: (-each.now.tokens, -each.now.documents, each.name)))


def _reasons(now: CountedVersion, before: CountedVersion | None) -> tuple[ReasonChange, ...]:
    new, old = now.dropped, {} if before is None else before.dropped
    whole, of_before = now.total().documents, 0 if before is None else before.total().documents
    rows = [
        ReasonChange(
            reason=name,
            documents=new.get(name, 0),
            share=new.get(name, 0) / max(whole, 1),
            documents_before=None if before is None else old.get(name, 0),
            share_before=None if before is None else old.get(name, 0) / max(of_before, 1),
        )
        for name in new.keys() | old.keys()
    ]
    return tuple(sorted(rows, key=lambda each: (-each.documents, -(each.documents_before or 0), each.reason)))
