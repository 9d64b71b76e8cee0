"""A restore looks first, writes then, and goes on where it was stopped."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from flows.backup import Backup, back_up
from flows.restoring import restore
from infra.errors import BadInput, DamagedData, RunFailed
from infra.run_description import UsedDataset
from infra.store import Store
from infra.tracked_models import log_checkpoint
from infra.tracking import log_text, open_run
from model.run import LaunchRecord
from tests.infra.test_registry import checkpoint


@pytest.fixture
def root(tmp_path: Path) -> Path:
    store = Store(str(tmp_path / "root"))
    store.write_bytes("stages/extract/1/kept/part.arrow", b"personal", private=True)
    (tmp_path / "root/stages/extract/1").chmod(0o700)
    store.write_bytes("datasets/d/1/manifest.json", b"{}")
    (tmp_path / "root/datasets").chmod(0o750)
    back_up(str(tmp_path / "root"), tmp_path / "backup")
    return tmp_path / "root"


def with_dump(folder: Path) -> None:
    """Make it a backup of Prefect's database in Postgres."""
    store = Store(str(folder))
    backup = Backup.load(store, "backup.json")
    store.write_bytes(f"databases/{backup.time}/prefect.dump", b"")
    record = backup.record.model_copy(update={"databases": ("prefect.dump",)})
    backup.model_copy(update={"record": record}).save(store, "backup.json")


def test_every_folder_has_its_mode(root: Path, tmp_path: Path):
    restore(tmp_path / "backup", str(tmp_path / "some" / "where"))
    folders = [path.relative_to(root) for path in root.rglob("*") if path.is_dir()]
    assert len(folders) == 7
    for name in (*folders, Path()):
        assert (tmp_path / "some/where" / name).stat().st_mode == (root / name).stat().st_mode, name


def test_what_is_there_is_not_touched(root: Path, tmp_path: Path):
    with pytest.raises(BadInput, match=r"backup\.json"):
        restore(tmp_path, str(tmp_path / "new"))
    with pytest.raises(BadInput, match="empty folder"):
        restore(tmp_path / "backup", str(root))


def test_it_goes_on_where_it_was_stopped(root: Path, tmp_path: Path):
    new = tmp_path / "new"
    (tmp_path / "backup/files/stages/extract/1/kept/part.arrow").unlink()
    with pytest.raises(DamagedData, match=r"part\.arrow is not there"):
        restore(tmp_path / "backup", str(new))
    assert not new.exists()

    (tmp_path / "backup/files/stages/extract/1/kept/part.arrow").mkdir()  # which cannot be copied as a file
    with pytest.raises(RunFailed, match=r"part\.arrow"):
        restore(tmp_path / "backup", str(new))
    assert (new / "datasets/d/1/manifest.json").exists()
    with pytest.raises(BadInput, match="not restored yet"):
        back_up(str(new), tmp_path / "another")
    (tmp_path / "backup/files/stages/extract/1/kept/part.arrow").rmdir()
    (tmp_path / "backup/files/stages/extract/1/kept/part.arrow").write_bytes(b"personal")
    restore(tmp_path / "backup", str(new))
    assert not (new / "restoring.json").exists()


def test_mlflow_finds_its_artifacts_under_another_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    old, new = tmp_path / "root_1 of us", tmp_path / "other"
    store = Store(str(old))
    source = json.dumps({"uri": f"{old}/datasets/d/1/manifest.json"})
    used = UsedDataset(name="d/1", digest="d1", source=source, context="training")
    run = open_run(store, None, "tests", "small", datasets=[used])
    log_text(run, "# Page", "page.md")
    log_checkpoint(MlflowClient(run.tracking_uri), run, checkpoint("aa", tags={"checkpoint.path": f"{old}/runs/small"}))
    names = ("datasets/d/1/tracked.json", "runs/small/1/launch.json")
    for name in names:
        LaunchRecord(tracked=run).save(store, name)
    back_up(str(old), tmp_path / "backup")
    shutil.rmtree(old)
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "postgresql://nobody@127.0.0.1:1/the-teams-own-which-runs")
    restore(tmp_path / "backup", str(new))
    client = MlflowClient(f"sqlite:///{new}/mlflow.db")
    assert [each.path for each in client.list_artifacts(run.run_id)] == ["page.md"]
    (model,) = client.search_logged_models([client.get_run(run.run_id).info.experiment_id])
    assert model.tags["checkpoint.path"] == f"{new}/runs/small"
    inputs = client.get_run(run.run_id).inputs
    assert inputs is not None
    assert json.loads(inputs.dataset_inputs[0].dataset.source) == {"uri": f"{new}/datasets/d/1/manifest.json"}
    moved = run.model_copy(update={"tracking_uri": f"sqlite:///{new}/mlflow.db"})
    assert [LaunchRecord.load(Store(str(new)), name).tracked for name in names] == [moved, moved]
    assert not old.exists()


@pytest.mark.parametrize(
    ("address", "path", "said"),
    [
        ("", None, "PREFECT_SERVER_DATABASE_CONNECTION_URL"),
        ("postgresql://nobody:secret-word@127.0.0.1:1/none", "", "pg_restore is not there"),
        ("postgresql://nobody:secret-word@127.0.0.1:1/none", None, "psql ended|pg_restore is not there"),
    ],
)
def test_a_backup_of_postgres_wants_postgres_back_before_anything_is_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, path: str | None, said: str
):
    with_dump(tmp_path / "backup")
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", address)
    if path is not None:
        monkeypatch.setenv("PATH", path)
    with pytest.raises((BadInput, RunFailed), match=said) as refused:
        restore(tmp_path / "backup", str(tmp_path / "new"))
    assert "secret-word" not in str(refused.value)
    assert not (tmp_path / "new").exists()
