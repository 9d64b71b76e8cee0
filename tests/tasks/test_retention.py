"""Retention: old texts from before redaction go, and nothing that a dataset needs does."""

import os
import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from infra.errors import RunFailed
from infra.manifest import StageManifest, Telemetry, load_dataset
from infra.retained import find_retained
from infra.store import Store
from tasks.changes import DriftSettings, change_report
from tasks.config import STAGES
from tasks.examples import EXAMPLES
from tasks.pipeline import measure, remeasured
from tasks.privacy.redact import REDACT
from tasks.retention import BEFORE_REDACTION, RetentionSettings, retain_texts
from tasks.stage import StageRunner, finished_stage
from tasks.training_documents import training_documents
from tests.tasks.small_corpus import Small

MONTH = RetentionSettings(older_than_days=30)
LATER = datetime.now(UTC) + timedelta(days=31)
PERSONAL = "@example.com"


@pytest.fixture
def store(small: Small, tmp_path: Path) -> Store:
    """A copy of the small corpus that a test may change."""
    shutil.copytree(small.store.local_path(""), tmp_path / "root", symlinks=True)
    return Store(str(tmp_path / "root"))


def contents(store: Store) -> dict[str, bytes]:
    return {each.path: store.read_bytes(each.path) for each in store.files("")}


def holding_personal_data(store: Store) -> Iterator[str]:
    """Arrow files with an address in any text."""
    for each in store.files("stages"):
        read = store.read_table(each.path) if each.path.endswith(".arrow") else pa.table({})
        if any(PERSONAL in str(texts) for texts in _texts(read)):
            yield each.path


def _texts(table: pa.Table) -> Iterator[list[object]]:
    for field in table.schema:
        if field.name in ("text", "payload", "passage"):
            yield table[field.name].to_pylist()


def test_every_stage_with_texts_is_listed() -> None:
    listed = {stage.name for stage in BEFORE_REDACTION}
    for stage in (*STAGES[: STAGES.index(REDACT)], EXAMPLES):
        if {"text", "payload"} & set(getattr(stage.schema, "names", ())):
            assert stage.name in listed
    assert all(stage.private for stage in BEFORE_REDACTION)
    assert not {"redact", "mix", "tokenization", "ledger", "tokenizer", "signatures"} & listed


def test_what_is_young_stays(store: Store) -> None:
    before = contents(store)
    found = retain_texts(store, MONTH, datetime.now(UTC) + timedelta(days=29))
    assert found.stages == found.reports == found.readable == found.links == ()
    assert contents(store) == before


def test_a_dry_run_says_what_would_go_and_deletes_nothing(store: Store) -> None:
    before = contents(store)
    found = retain_texts(store, RetentionSettings(dry_run=True), LATER)
    assert contents(store) == before
    assert found.stages == retain_texts(store, MONTH, LATER).stages != ()
    assert "would be deleted" in found.text()


def test_old_texts_go_and_the_dataset_stays(store: Store, small: Small) -> None:
    assert list(holding_personal_data(store))
    size = sum(each.bytes for each in store.files(""))
    found = retain_texts(store, MONTH, LATER)
    assert not list(holding_personal_data(store))
    assert size - sum(each.bytes for each in store.files("")) == pytest.approx(found.bytes, rel=0.05)
    for name in ("fetch", "extract", "signals", "filter", "dedup", "examples"):
        folder = f"stages/{name}/{store.names(f'stages/{name}')[0]}"
        assert {each.path.rpartition(".")[2] for each in store.files(folder)} == {"json"}
        manifest = StageManifest.load(store, f"{folder}/manifest.json")
        assert manifest == StageManifest.load(small.store, f"{folder}/manifest.json")
        assert finished_stage(store, f"{folder}/manifest.json") is None
        mark = find_retained(store, folder)
        assert mark is not None
        assert (mark.files, mark.bytes) == next((s.files, s.bytes) for s in found.stages if s.folder == folder)
    dataset = load_dataset(store, "small")
    assert all(store.sha256(shard.path) == shard.sha256 for shard in dataset.shards)
    assert store.sha256(dataset.tokenizer.path) == dataset.tokenizer.sha256
    assert training_documents(store, dataset) is not None
    ours = change_report(small.store, small.dataset, None, DriftSettings())
    assert change_report(store, dataset, None, DriftSettings()) == ours
    assert retain_texts(store, MONTH, LATER + timedelta(days=9)).stages == ()


def test_a_rebuild_says_when_its_documents_were_deleted(store: Store, small: Small) -> None:
    retain_texts(store, MONTH, LATER)
    runner = StageRunner(store, small.runner.cluster)
    with pytest.raises(RunFailed, match=f"deleted by retention on {LATER:%Y-%m-%d}"):
        remeasured(runner, small.settings, small.dataset)


def test_what_was_deleted_is_made_anew_to_the_same_bytes(store: Store, small: Small) -> None:
    retain_texts(store, MONTH, LATER)
    build = measure(StageRunner(store, small.runner.cluster), small.settings)
    assert [each.digest for each in build.passed] == [small.stage(each.stage).digest for each in build.passed]
    for each in build.passed:
        assert find_retained(store, each.folder) is None
        assert finished_stage(store, f"{each.folder}/manifest.json") == each


def test_a_killed_retention_is_ended_by_the_next(store: Store, tmp_path: Path) -> None:
    class Killed(Store):
        removals = 0

        def remove(self, path: str) -> None:
            type(self).removals += 1
            if self.removals > 5:
                raise KeyboardInterrupt
            super().remove(path)

    undisturbed = Store(str(tmp_path / "undisturbed"))
    shutil.copytree(store.local_path(""), undisturbed.local_path(""))
    retain_texts(undisturbed, MONTH, LATER)
    with pytest.raises(KeyboardInterrupt):
        retain_texts(Killed(store.root), MONTH, LATER)
    folder = f"stages/fetch/{store.names('stages/fetch')[0]}"
    first = find_retained(store, folder)
    retain_texts(store, MONTH, LATER + timedelta(days=1))
    assert find_retained(store, folder) == first
    assert contents(store).keys() == contents(undisturbed).keys()


def test_links_are_not_followed(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    folder = f"stages/extract/{store.names('stages/extract')[0]}"
    shutil.move(store.local_path(folder), outside)
    store.local_path(folder).symlink_to(outside, target_is_directory=True)
    (store.local_path("stages/fetch") / "elsewhere").symlink_to(tmp_path, target_is_directory=True)
    there = {path: path.stat().st_mode for path in outside.rglob("*")}
    found = retain_texts(store, MONTH, LATER)
    assert set(found.links) == {folder, "stages/fetch/elsewhere"}
    assert {path: path.stat().st_mode for path in outside.rglob("*")} == there


def test_a_link_inside_a_stage_goes_without_what_it_leads_to(store: Store, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o755)
    (kept / "file").write_text("stays")
    folder = store.local_path(f"stages/filter/{store.names('stages/filter')[0]}")
    (folder / "linked-folder").symlink_to(kept, target_is_directory=True)
    (folder / "linked-file").symlink_to(kept / "file")
    retain_texts(store, MONTH, LATER)
    assert (kept / "file").read_text() == "stays"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o755


def test_what_others_can_read_is_closed(store: Store) -> None:
    folder = store.local_path(f"stages/extract/{store.names('stages/extract')[0]}")
    part = next(folder.glob("part-*"))
    dropped = next(store.local_path("stages/redact").glob("*/dropped"))
    for path, mode in ((folder, 0o755), (part, 0o644), (dropped, 0o750)):
        path.chmod(mode)
    named = {path.relative_to(store.local_path("")).as_posix() for path in (folder, part, dropped)}
    now = datetime.now(UTC)
    assert set(retain_texts(store, RetentionSettings(dry_run=True), now).readable) == named
    assert folder.stat().st_mode & 0o077
    assert set(retain_texts(store, MONTH, now).readable) == named
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, part, dropped)] == [0o700, 0o600, 0o700]
    assert retain_texts(store, MONTH, now).readable == ()


def test_a_stage_that_was_never_finished_is_as_old_as_its_newest_file(store: Store) -> None:
    folder = store.local_path("stages/fetch/0123456789ab")
    (folder / "dropped").mkdir(parents=True, mode=0o700)
    for name, days in (("part-0.arrow", 90), ("dropped/part-0.arrow", 5)):
        (folder / name).write_bytes(b"text")
        then = (datetime.now(UTC) - timedelta(days=days)).timestamp()
        os.utime(folder / name, (then, then))
    found = retain_texts(store, RetentionSettings(older_than_days=10), datetime.now(UTC))
    assert found.stages == ()
    found = retain_texts(store, RetentionSettings(older_than_days=4), datetime.now(UTC))
    assert [(each.folder, each.files, each.bytes) for each in found.stages] == [("stages/fetch/0123456789ab", 2, 8)]


def test_the_age_is_that_of_the_run_and_not_of_the_copy(store: Store, small: Small) -> None:
    folder = small.stage("fetch").folder
    path = f"{folder}/telemetry.json"
    old = Telemetry.load(store, path).model_copy(update={"finished_at": "2020-01-01T00:00:00+00:00"})
    old.save(store, path)
    assert [each.folder for each in retain_texts(store, MONTH, datetime.now(UTC)).stages] == [folder]


def test_a_memory_store_is_retained_too() -> None:
    store = Store(f"memory://retention-{os.getpid()}")
    store.write_bytes("stages/fetch/0123456789ab/part-0.arrow", b"text")
    found = retain_texts(store, MONTH, LATER)
    assert [each.files for each in found.stages] == [1]
    assert [each.path for each in store.files("stages")] == ["stages/fetch/0123456789ab/retained.json"]


def test_what_a_killed_plan_left_goes(tmp_path: Path) -> None:
    sample, store = tmp_path / ".plan-1" / "pages.arrow", Store(str(tmp_path))
    sample.parent.mkdir()
    sample.write_text(PERSONAL)
    assert retain_texts(store, MONTH, datetime.now(UTC)).plans == ()
    assert ".plan-1" in retain_texts(store, RetentionSettings(dry_run=True), LATER).text()
    assert sample.exists()
    assert retain_texts(store, MONTH, LATER).plans == (".plan-1",)
    assert not sample.parent.exists()
