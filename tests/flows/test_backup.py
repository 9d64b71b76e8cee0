"""A backup is whole, is made while others write, and the one before stays until then."""

import fcntl
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.backup import Backup, back_up
from flows.restoring import restore
from infra.errors import BadInput, RunFailed
from infra.store import Store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    store = Store(str(tmp_path / "root"))
    store.write_bytes("stages/extract/1/part.arrow", b"personal", private=True)
    store.write_bytes("stages/extract/1/manifest.json", b"{}")
    store.write_bytes("datasets/d/1/manifest.json", b"{}")
    store.write_bytes("runs/r/1/checkpoints/step-1/meta.json", b"{}")
    store.write_bytes("services/prefect-server.log", b"noise")
    store.write_bytes("prefect/storage/x", b"scratch")
    (tmp_path / "root/runs/r/1/.half.tmp").write_bytes(b"half")
    for name in ("mlflow.db", "mlflow_users.db"):
        write(tmp_path / "root" / name, "committed")
    return tmp_path / "root"


def write(path: Path, row: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE IF NOT EXISTS runs (name TEXT)")
        database.execute("INSERT INTO runs VALUES (?)", (row,))
        database.commit()


def rows(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [name for (name,) in database.execute("SELECT name FROM runs")]


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_what_comes_back_is_what_was_there_while_another_wrote(root: Path, tmp_path: Path):
    with closing(sqlite3.connect(root / "mlflow.db")) as writer:
        writer.execute("INSERT INTO runs VALUES ('not yet')")  # a transaction that is open all the while
        record = back_up(str(root), tmp_path / "backup")
        writer.rollback()
    assert record.databases == ("mlflow.db", "mlflow_users.db")
    assert (record.files, record.copied) == (4, 4)

    again = tmp_path / "again"
    assert restore(tmp_path / "backup", str(again)).made_at == record.made_at
    assert rows(again / "mlflow.db") == ["committed"]
    kept = {path.removeprefix("files/") for path in files(tmp_path / "backup") if path.startswith("files/")}
    assert set(files(again)) == kept | {"mlflow.db", "mlflow_users.db"}
    assert not [name for name in kept if name.startswith(("services", "prefect")) or name.endswith(".tmp")]
    assert (again / "stages/extract/1/part.arrow").read_bytes() == b"personal"
    assert (again / "stages/extract/1/part.arrow").stat().st_mode & 0o777 == 0o600


def test_a_second_backup_copies_what_is_new_and_forgets_what_went(root: Path, tmp_path: Path):
    Store(str(root)).write_bytes("refreshes/d.json", b"of a refresh that goes on")
    back_up(str(root), tmp_path / "backup")
    Store(str(root)).write_bytes("datasets/d/2/manifest.json", b"{}")
    (root / "refreshes/d.json").unlink()
    (root / "stages/extract/1/part.arrow").unlink()
    (root / "datasets/d/1/manifest.json").chmod(0o600)
    record = back_up(str(root), tmp_path / "backup")
    assert (record.files, record.copied) == (4, 1)
    restore(tmp_path / "backup", str(tmp_path / "again"))
    assert not (tmp_path / "again/stages/extract/1/part.arrow").exists()
    assert (tmp_path / "again/datasets/d/1/manifest.json").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "backup/files/stages/extract/1/part.arrow").exists()
    (databases,) = (tmp_path / "backup/databases").iterdir()
    assert (databases / "mlflow.db").stat().st_mode & 0o777 == 0o600


def test_a_backup_that_fails_leaves_the_one_before(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = back_up(str(root), tmp_path / "backup")
    expected = files(tmp_path / "backup")
    del expected["backup.lock"]
    write(root / "mlflow.db", "later")
    Store(str(root)).write_bytes("datasets/d/1/manifest.json", b"{'it': 'changed'}")
    (root / "stages/extract/1/part.arrow").unlink()
    os.mkfifo(root / "stages/what-nobody-can-copy")
    for _ in range(2):
        with pytest.raises(RunFailed, match="what-nobody-can-copy"):
            back_up(str(root), tmp_path / "backup")
    assert len(list((tmp_path / "backup/databases").iterdir())) == 2
    (root / "stages/what-nobody-can-copy").unlink()
    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_BACKEND_STORE_URI", "postgresql://nobody:secret-word@127.0.0.1:1/none")
        with pytest.raises((RunFailed, BadInput), match="pg_dump") as refused:
            back_up(str(root), tmp_path / "backup")
        assert "secret-word" not in str(refused.value)
    assert expected.items() <= files(tmp_path / "backup").items()
    assert restore(tmp_path / "backup", str(tmp_path / "again")) == before
    assert rows(tmp_path / "again/mlflow.db") == ["committed"]
    assert (tmp_path / "again/datasets/d/1/manifest.json").read_bytes() == b"{}"

    after = back_up(str(root), tmp_path / "backup")
    assert set(files(tmp_path / "backup/files")) == set(
        Backup.load(Store(str(tmp_path / "backup")), "backup.json").files
    )
    assert (after.files, after.copied) == (3, 1)


def test_what_would_go_wrong_is_refused(root: Path, tmp_path: Path):
    with pytest.raises(BadInput, match="outside the root"):
        back_up(str(root), root / "backup")
    back_up(str(root), tmp_path / "backup")
    with pytest.raises(BadInput, match="is its disk there"):
        back_up(str(tmp_path / "not mounted"), tmp_path / "backup")
    Store(str(tmp_path / "other")).write_bytes("datasets/d/1/manifest.json", b"{}")
    with pytest.raises(BadInput, match=f"holds a backup of {root}"):
        back_up(str(tmp_path / "other"), tmp_path / "backup")
    with (tmp_path / "backup/backup.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunFailed, match="under way"):
            back_up(str(root), tmp_path / "backup")
    back_up(str(root), tmp_path / "backup")
    (root / "mlflow.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(RunFailed, match=r"mlflow\.db"):
        back_up(str(root), tmp_path / "backup")


def test_a_folder_that_is_somebody_elses_is_left_alone(root: Path, tmp_path: Path):
    theirs = Store(str(tmp_path / "srv"))
    theirs.write_bytes("databases/customers/crm.dump", b"precious")
    theirs.write_bytes("files/photos/a.jpg", b"precious")
    before = files(tmp_path / "srv")
    with pytest.raises(BadInput, match="holds databases, and no backup"):
        back_up(str(root), tmp_path / "srv")
    assert files(tmp_path / "srv") == before


def test_a_new_disk_is_as_good_as_an_empty_folder(root: Path, tmp_path: Path):
    for name in ("root", "backup", "new"):
        (tmp_path / name / "lost+found").mkdir(parents=True)
    back_up(str(root), tmp_path / "backup")
    restore(tmp_path / "backup", str(tmp_path / "new"))
    assert (tmp_path / "new/datasets/d/1/manifest.json").exists()
    assert not (tmp_path / "backup/files/lost+found").exists()


def test_a_first_backup_that_was_stopped_goes_on(root: Path, tmp_path: Path):
    os.mkfifo(root / "stages/what-nobody-can-copy")
    with pytest.raises(RunFailed, match="what-nobody-can-copy"):
        back_up(str(root), tmp_path / "backup")
    (root / "stages/what-nobody-can-copy").unlink()
    back_up(str(root), tmp_path / "backup")


@pytest.mark.parametrize("name", ["runs", "mlflow.db", "datasets/d/1/manifest.json"])
def test_what_was_moved_elsewhere_is_kept(root: Path, tmp_path: Path, name: str):
    """To a disk that is not mounted, say, or behind a link: nothing of the backup before goes."""
    back_up(str(root), tmp_path / "backup")
    before = files(tmp_path / "backup")
    del before["backup.lock"]
    (root / name).rename(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="was copied from is gone"):
        back_up(str(root), tmp_path / "backup")
    if name != "mlflow.db":
        (root / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(BadInput, match=f"{root / name} is a link"):
            back_up(str(root), tmp_path / "backup")
    assert before.items() <= files(tmp_path / "backup").items()


def test_a_root_whose_disk_is_not_mounted_is_seen_by_what_is_missing(root: Path, tmp_path: Path):
    back_up(str(root), tmp_path / "backup")
    root.rename(tmp_path / "not mounted")
    Store(str(root)).write_bytes("locks/stages.lock", b"")
    with pytest.raises(BadInput, match="files/datasets was copied from is gone"):
        back_up(str(root), tmp_path / "backup")


def test_what_was_meant_to_go_goes_with_its_copy(root: Path, tmp_path: Path):
    back_up(str(root), tmp_path / "backup")
    for each in (root / "runs", tmp_path / "backup/files/runs"):
        shutil.rmtree(each)
    assert back_up(str(root), tmp_path / "backup").files == 3


def test_a_database_in_postgres_is_not_forgotten(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By a backup that was told no address, as one of cron's, while the old SQLite file lies there still."""
    back_up(str(root), tmp_path / "backup")
    store = Store(str(tmp_path / "backup"))
    backup = Backup.load(store, "backup.json")
    dump = f"databases/{backup.time}/mlflow.dump"
    store.write_bytes(dump, b"")
    moved = backup.record.model_copy(update={"databases": (*backup.record.databases, "mlflow.dump")})
    backup.model_copy(update={"record": moved}).save(store, "backup.json")
    monkeypatch.delenv("MLFLOW_BACKEND_STORE_URI", raising=False)
    with pytest.raises(BadInput, match="MLFLOW_BACKEND_STORE_URI names no Postgres"):
        back_up(str(root), tmp_path / "backup")
    assert store.exists(dump)
