"""Retention: texts as they were before redaction are deleted after some days; what tells where data came from stays.

Pages, extracted texts and everything that passes from stage to stage until redaction hold personal data, as do the
examples in a dataset's report. Of a stage that is old enough all files go but its manifest, its shards' records and
its telemetry; a mark (`infra.retained`), which is written first, says so. Stages from redaction on stay: their texts,
dropped ones included, are redacted, and datasets are read from them. Killed at any moment and run again, it ends the
same. Links are not followed: what lies behind one is left alone, and told.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from infra.dataset_report import DatasetReport, report_paths, save_dataset_report
from infra.manifest import Telemetry, dataset_folder, stage_folder
from infra.report import printable
from infra.retained import MARK, Retained
from infra.settings import Settings, operational
from infra.store import Store, StoredFile
from infra.throwaway import left_over, remove_left_over
from tasks.config import STAGES
from tasks.duplicates.dedup import DEDUP
from tasks.duplicates.repeats import TRIM
from tasks.examples import EXAMPLES
from tasks.extraction.extract import EXTRACT
from tasks.filters import FILTER
from tasks.phrases.decontaminate import DECONTAMINATE
from tasks.signals import SIGNALS
from tasks.sources.fetch import FETCH

BEFORE_REDACTION = (FETCH, EXTRACT, SIGNALS, FILTER, DEDUP, TRIM, DECONTAMINATE, EXAMPLES)
"""The stages that hold pages or texts which nothing has been replaced in."""
_STAYS = (MARK, "manifest.json", "telemetry.json")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class RetentionSettings(Settings):
    """How long texts are kept as they were before personal data was replaced."""

    older_than_days: int = Field(default=30, ge=1)
    """Days after which pages and texts from before redaction are deleted."""
    dry_run: bool = False
    """Say what would be deleted, and delete nothing."""
    wait_hours: float = operational(0.0, ge=0)
    """How long to wait for the end of a corpus that is being built on this machine, before failing."""


class OldStage(Settings):
    """A stage whose texts are old enough."""

    folder: str
    made_at: str
    files: int
    bytes: int


class Retention(Settings):
    """What retention found, and did unless it was a dry run."""

    dry_run: bool
    older_than_days: int
    stages: tuple[OldStage, ...]
    """Stages whose texts were deleted."""
    reports: tuple[str, ...]
    """Reports of datasets whose examples lost their texts."""
    readable: tuple[str, ...]
    """Folders and files that others could read and must not; they cannot any more."""
    links: tuple[str, ...]
    """Links where a stage was expected; what is behind them was left alone."""
    plans: tuple[str, ...] = ()
    """Folders of samples that plans could not remove, which were killed."""

    @property
    def bytes(self) -> int:
        """Bytes that the deleted files had."""
        return sum(each.bytes for each in self.stages)

    def text(self) -> str:
        """The same for people."""
        would = "would be " if self.dry_run else ""
        lines = [
            f"{len(self.stages):,} stages older than {self.older_than_days} days: {would}deleted "
            f"{sum(each.files for each in self.stages):,} files, {self.bytes:,} bytes of text before redaction"
        ]
        lines += [f"  {each.folder}  {each.bytes:,} bytes, made {each.made_at[:10]}" for each in self.stages]
        lines += [f"Texts of examples {would}taken out of {path}" for path in self.reports]
        lines += [f"Sample of a plan that was killed, {would}deleted: {path}" for path in self.plans]
        lines += [f"Readable by others{'' if self.dry_run else ' until now'}: {path}" for path in self.readable]
        lines += [f"Left alone, because it is a link: {path}" for path in self.links]
        return printable("\n".join(lines))


def retain_texts(store: Store, settings: RetentionSettings, now: datetime) -> Retention:
    """Delete what is old enough at a moment, and close what others can read; or only say so."""
    folders, links = _stage_folders(store)
    before = now - timedelta(days=settings.older_than_days)
    chosen = [old for folder in folders if (old := _old_texts(store, folder, before)) is not None]
    plans = left_over(store, now)
    if not settings.dry_run:
        for old in chosen:
            _delete(store, old, settings, now)
        remove_left_over(store, now)
    return Retention(
        dry_run=settings.dry_run,
        older_than_days=settings.older_than_days,
        stages=tuple(old.stage for old in chosen),
        reports=tuple(_clear_reports(store, settings, before, now)),
        readable=tuple(_close(store, [*folders, *_other_folders(store)], settings.dry_run)),
        links=tuple(links),
        plans=tuple(each.name for each in plans),
    )


def _stage_folders(store: Store) -> tuple[list[str], list[str]]:
    """Folders of the stages before redaction, and links that stand in place of one."""
    folders, links = [], []
    for stage in BEFORE_REDACTION:
        for name in store.names(f"stages/{stage.name}"):
            folder = stage_folder(stage.name, name)
            (links if _is_link(store, folder) else folders).append(folder)
    return folders, links


def _is_link(store: Store, path: str) -> bool:
    """Whether a path, or a folder of the root that it is in, is a symbolic link."""
    if not store.is_local:
        return False
    parts = path.split("/")
    return any(store.local_path("/".join(parts[: end + 1])).is_symlink() for end in range(len(parts)))


class _OldTexts(NamedTuple):
    stage: OldStage
    files: Sequence[StoredFile]


def _old_texts(store: Store, folder: str, before: datetime) -> _OldTexts | None:
    """What is to be deleted in a stage's folder; None if it is too young, or nothing is left there."""
    files = [each for each in store.files(folder) if not _stays(folder, each.path)]
    made_at = _made_at(store, folder, files)
    if not files or made_at >= before:
        return None
    size = sum(each.bytes for each in files)
    stage = OldStage(folder=folder, made_at=made_at.isoformat(timespec="seconds"), files=len(files), bytes=size)
    return _OldTexts(stage, files)


def _stays(folder: str, path: str) -> bool:
    inside = path.removeprefix(f"{folder}/")
    return inside in _STAYS or (inside.startswith("shards/") and inside.endswith(".json"))


def _made_at(store: Store, folder: str, files: Sequence[StoredFile]) -> datetime:
    """When a stage was finished; of one that is not, when its newest file was written."""
    if store.exists(f"{folder}/manifest.json") and store.exists(path := f"{folder}/telemetry.json"):
        return datetime.fromisoformat(Telemetry.load(store, path).finished_at)
    return max((each.modified for each in files), default=datetime.max.replace(tzinfo=UTC))


def _delete(store: Store, old: _OldTexts, settings: RetentionSettings, now: datetime) -> None:
    """Mark, then delete; a mark that is there already is of a retention that was killed."""
    if not store.exists(mark := f"{old.stage.folder}/{MARK}"):
        Retained(
            deleted_at=now.isoformat(timespec="seconds"),
            older_than_days=settings.older_than_days,
            made_at=old.stage.made_at,
            files=old.stage.files,
            bytes=old.stage.bytes,
        ).save(store, mark)
    for file in old.files:
        store.remove(file.path)


# Reports


def _clear_reports(store: Store, settings: RetentionSettings, before: datetime, now: datetime) -> Iterator[str]:
    """Take the texts of examples out of old reports of datasets."""
    for name in store.names("datasets"):
        for version in store.names(f"datasets/{name}"):
            folder = dataset_folder(name, version)
            page, figures = report_paths(folder)
            written = next((each.modified for each in store.files(folder) if each.path == figures), None)
            if written is None or written >= before or _is_link(store, figures):
                continue
            report = DatasetReport.load(store, figures)
            if report.texts_deleted_at is None and any(each.dropped or each.kept for each in report.rules):
                if not settings.dry_run:
                    save_dataset_report(store, folder, report.without_texts(now.isoformat(timespec="seconds")))
                yield page


# Who can read what


def _other_folders(store: Store) -> Iterator[str]:
    """Folders of other stages."""
    done = {stage.name for stage in BEFORE_REDACTION}
    for stage in (name for name in store.names("stages") if name not in done):
        for name in store.names(f"stages/{stage}"):
            if not _is_link(store, folder := stage_folder(stage, name)):
                yield folder


def _close(store: Store, folders: Sequence[str], dry_run: bool) -> Iterator[str]:
    """Private folders and files that others can read; they are closed unless it is a dry run."""
    if not store.is_local:
        return
    for path in _private_paths(store, folders):
        mode = path.lstat().st_mode
        if mode & _OTHERS and not stat.S_ISLNK(mode):
            if not dry_run:
                path.chmod(stat.S_IMODE(mode) & ~_OTHERS)
            yield path.relative_to(store.local_path("")).as_posix()


def _private_paths(store: Store, folders: Sequence[str]) -> Iterator[Path]:
    private = {stage.name for stage in STAGES if stage.private}
    for folder in folders:
        inside = f"{folder}/dropped" if folder.split("/")[1] not in private else folder
        if (place := store.local_path(inside)).is_dir() and not place.is_symlink():
            yield place
            for parent, names, files in os.walk(place):
                yield from (Path(parent) / name for name in names if name != "shards")
                yield from (Path(parent) / name for name in files if not name.endswith(".json"))
    for name in store.names("datasets"):
        for version in store.names(f"datasets/{name}"):
            for report in report_paths(dataset_folder(name, version)):
                if not _is_link(store, report) and store.exists(report):
                    yield store.local_path(report)
