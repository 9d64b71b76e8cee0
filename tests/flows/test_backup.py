"""A backup is whole, is made while others write, and comes back as it was."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.backup import BackupRecord, back_up, restore
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
    with closing(sqlite3.connect(tmp_path / "root/mlflow.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE runs (name TEXT)")
        database.execute("INSERT INTO runs VALUES ('committed')")
        database.commit()
    return tmp_path / "root"


def rows(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [name for (name,) in database.execute("SELECT name FROM runs")]


def test_what_comes_back_is_what_was_there_while_another_wrote(root: Path, tmp_path: Path):
    with closing(sqlite3.connect(root / "mlflow.db")) as writer:
        writer.execute("INSERT INTO runs VALUES ('not yet')")  # a transaction that is open all the while
        record = back_up(str(root), tmp_path / "backup")
        writer.rollback()
    assert record.databases == ("mlflow.db",)
    assert (record.files, record.copied) == (3, 3)

    again = tmp_path / "again"
    assert restore(tmp_path / "backup", str(again)).made_at == record.made_at
    assert rows(again / "mlflow.db") == ["committed"]
    found = {str(path.relative_to(again)) for path in again.rglob("*") if path.is_file()}
    kept = {"stages/extract/1/part.arrow", "datasets/d/1/manifest.json", "runs/r/1/checkpoints/step-1/meta.json"}
    assert found == kept | {"mlflow.db"}
    private = again / "stages/extract/1/part.arrow"
    assert private.read_bytes() == b"personal"
    assert private.stat().st_mode & 0o777 == 0o600
    assert private.parent.stat().st_mode & 0o777 == 0o700


def test_a_second_backup_copies_what_is_new(root: Path, tmp_path: Path):
    back_up(str(root), tmp_path / "backup")
    Store(str(root)).write_bytes("datasets/d/2/manifest.json", b"{}")
    record = back_up(str(root), tmp_path / "backup")
    assert (record.files, record.copied) == (4, 1)
    assert (tmp_path / "backup/databases/mlflow.db").stat().st_mode & 0o777 == 0o600


def test_what_would_go_wrong_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(BadInput, match="outside the root"):
        back_up(str(root), root / "backup")
    with pytest.raises(BadInput, match=r"backup\.json"):
        restore(tmp_path, str(tmp_path / "new"))
    back_up(str(root), tmp_path / "backup")
    with pytest.raises(BadInput, match="empty folder"):
        restore(tmp_path / "backup", str(root))
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "postgresql://nobody:secret-word@127.0.0.1:1/none")
    with pytest.raises((RunFailed, BadInput), match="pg_dump") as refused:
        back_up(str(root), tmp_path / "other")
    assert "secret-word" not in str(refused.value)
    assert not Store(str(tmp_path / "other")).exists("backup.json")


def test_a_backup_of_postgres_wants_postgres_back(root: Path, tmp_path: Path):
    back_up(str(root), tmp_path / "backup")
    folder = Store(str(tmp_path / "backup"))
    folder.write_bytes("databases/prefect.dump", b"")
    record = BackupRecord.load(folder, "backup.json")
    record.model_copy(update={"databases": ("prefect.dump",)}).save(folder, "backup.json")
    with pytest.raises(BadInput, match="PREFECT_SERVER_DATABASE_CONNECTION_URL"):
        restore(tmp_path / "backup", str(tmp_path / "new"))
