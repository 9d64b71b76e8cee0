"""A backup is whole, is made while others write, and the one before stays until then."""

import fcntl
import os
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
    store.write_bytes("datasets/d/1/manifest.json", b"{}")
    store.write_bytes("runs/r/1/checkpoints/step-1/meta.json", b"{}")
    store.write_bytes("services/prefect-server.log", b"noise")
    store.write_bytes("prefect/storage/x", b"scratch")
    (tmp_path / "root/runs/r/1/.half.tmp").write_bytes(b"half")
    (tmp_path / "root/link").symlink_to("/etc")
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
    assert (record.files, record.copied) == (3, 3)

    again = tmp_path / "again"
    assert restore(tmp_path / "backup", str(again)).made_at == record.made_at
    assert rows(again / "mlflow.db") == ["committed"]
    kept = {"stages/extract/1/part.arrow", "datasets/d/1/manifest.json", "runs/r/1/checkpoints/step-1/meta.json"}
    assert set(files(again)) == kept | {"mlflow.db", "mlflow_users.db"}
    assert (again / "stages/extract/1/part.arrow").read_bytes() == b"personal"
    assert (again / "stages/extract/1/part.arrow").stat().st_mode & 0o777 == 0o600


def test_a_second_backup_copies_what_is_new_and_forgets_what_went(root: Path, tmp_path: Path):
    back_up(str(root), tmp_path / "backup")
    Store(str(root)).write_bytes("datasets/d/2/manifest.json", b"{}")
    (root / "stages/extract/1/part.arrow").unlink()
    (root / "datasets/d/1/manifest.json").chmod(0o600)
    record = back_up(str(root), tmp_path / "backup")
    assert (record.files, record.copied) == (3, 1)
    restore(tmp_path / "backup", str(tmp_path / "again"))
    assert not (tmp_path / "again/stages").exists()
    assert (tmp_path / "again/datasets/d/1/manifest.json").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "backup/files/stages").exists()
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
    assert (after.files, after.copied) == (2, 1)


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
    (root / "mlflow.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(RunFailed, match=r"mlflow\.db"):
        back_up(str(root), tmp_path / "backup")
