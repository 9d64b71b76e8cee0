"""Backup and restore of a root: its files and both databases, while everything runs.

    FOLDER/files/...               the root's files; those that are there already are not copied again
           databases/NAME          SQLite's own online copies, or pg_dump's archives (`prefect.dump`, `mlflow.dump`)
           backup.json             written last: the backup is whole

Databases are copied first: what they tell of is then among the files, which never change once they have their names.
Postgres is meant where PREFECT_SERVER_DATABASE_CONNECTION_URL or MLFLOW_BACKEND_STORE_URI say so, as they do for the
servers themselves; its own tools `pg_dump` and `pg_restore` must be there.
"""

import logging
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from infra.errors import BadInput, RunFailed
from infra.manifest import Manifest
from infra.store import TEMPORARY_SUFFIX, Store, sync_path

logger = logging.getLogger(__name__)
_DATABASES = ("prefect/prefect.db", "mlflow.db")
ADDRESSES = {"prefect": "PREFECT_SERVER_DATABASE_CONNECTION_URL", "mlflow": "MLFLOW_BACKEND_STORE_URI"}
_NOT_KEPT = ("services", "dask", "prefect")
"""Logs and scratch of servers that run; of Prefect's home the database alone."""


class BackupRecord(Manifest):
    """A whole backup."""

    made_at: str
    root: str
    """Where its files were."""
    databases: tuple[str, ...]
    files: int
    bytes: int
    copied: int
    """Files that no earlier backup in the same folder had."""

    def text(self) -> str:
        """The same for people."""
        what = (
            f"{self.files:,} files ({self.copied:,} copied now), {self.bytes:,} bytes, {len(self.databases)} databases"
        )
        return f"Backup of {self.root} at {self.made_at}: {what}"


def back_up(root: str, folder: Path) -> BackupRecord:
    """Copy a root and its databases; BadInput for a folder within the root, RunFailed where a database refuses."""
    source = _local(root)
    target = folder.absolute()
    if target.resolve().is_relative_to(source.resolve()):
        raise BadInput(f"backup folder {folder}", "it must lie outside the root", "Name a folder of another disk")
    (target / "files").mkdir(parents=True, exist_ok=True, mode=0o700)
    (target / "backup.json").unlink(missing_ok=True)
    databases = list(_databases(source, target / "databases"))
    files = copied = total = 0
    for path in _files(source):
        try:
            copied += _copy(path, target / "files" / path.relative_to(source))
            total += path.stat().st_size
            files += 1
        except FileNotFoundError:  # an older checkpoint, say, that went in this moment
            logger.info("%s went while it was copied", path)
    record = BackupRecord(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        root=str(source),
        databases=tuple(databases),
        files=files,
        bytes=total,
        copied=copied,
    )
    record.save(Store(str(target)), "backup.json")
    return record


def restore(folder: Path, root: str) -> BackupRecord:
    """Copy a backup back into an empty root; databases in Postgres go into the empty ones that the addresses name.

    BadInput for a backup that is not whole, and for a root in which something is.
    """
    target, store = _local(root), Store(str(folder.absolute()))
    if not store.exists("backup.json"):
        raise BadInput(f"backup {folder}", "a whole backup has a backup.json", "Name another, or make it again")
    if target.exists() and any(target.iterdir()):
        raise BadInput(
            f"root {root}", "a backup is restored into an empty folder", "Name another root, or move it away"
        )
    record = BackupRecord.load(store, "backup.json")
    if str(target) != record.root:
        logger.warning("the root was %s: runs that were recorded without a server name that folder", record.root)
    files = folder.absolute() / "files"
    for path in sorted(files.rglob("*")):
        if path.is_file():
            _copy(path, target / path.relative_to(files))
    for name in record.databases:
        saved = folder.absolute() / "databases" / name
        if name.endswith(".dump"):
            _restore_postgres(name.removesuffix(".dump"), saved)
        else:
            _copy(saved, target / next(each for each in _DATABASES if each.endswith(name)))
    return record


def _local(root: str) -> Path:
    store = Store(root)
    if not store.is_local:
        raise BadInput(
            f"root {root}", "only a folder of this machine is backed up here", "Use the object store's own copies"
        )
    return store.local_path("").absolute()


def _files(root: Path) -> Iterator[Path]:
    """Files of a root in their order, manifests and the like after what they tell of; never through links."""
    databases = {root / name for name in _DATABASES}
    for folder, names, files in os.walk(root):
        if Path(folder) == root:
            names[:] = [name for name in names if name not in _NOT_KEPT]
        names[:] = sorted(name for name in names if not name.startswith((".plan-", ".")))
        for name in sorted(files, key=lambda each: (each.endswith(".json"), each)):
            path = Path(folder) / name
            base = path.with_name(name.removesuffix("-wal").removesuffix("-shm").removesuffix("-journal"))
            if base not in databases and not name.endswith(TEMPORARY_SUFFIX) and not path.is_symlink():
                yield path


def _copy(source: Path, target: Path) -> bool:
    """Copy a file whole, with its mode and time, and its folders' modes; whether it was not there yet."""
    found = source.stat()
    if target.exists():
        there = target.stat()
        if (there.st_size, there.st_mtime_ns) == (found.st_size, found.st_mtime_ns):
            return False
    if not target.parent.exists():
        target.parent.mkdir(parents=True)
        shutil.copymode(source.parent, target.parent)
    temporary = target.with_name(f".{target.name}{TEMPORARY_SUFFIX}")
    shutil.copy2(source, temporary)
    sync_path(temporary)
    temporary.replace(target)
    sync_path(target.parent)
    return True


def _databases(root: Path, folder: Path) -> Iterator[str]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in (root / name for name in _DATABASES):
        if path.exists():
            yield _copy_sqlite(path, folder / path.name)
    for name in ADDRESSES:
        if (address := _postgres(name)) is not None:
            dump = folder / f"{name}.dump"
            _postgres_tool("pg_dump", address, "--format=custom", "--no-owner", f"--file={dump}")
            dump.chmod(0o600)
            yield dump.name


def _copy_sqlite(source: Path, target: Path) -> str:
    """SQLite's online copy: consistent while others write."""
    temporary = target.with_name(f"{target.name}{TEMPORARY_SUFFIX}")
    temporary.unlink(missing_ok=True)
    reading = sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=60)
    with closing(reading) as one, closing(sqlite3.connect(temporary)) as other:
        one.backup(other)
    temporary.chmod(0o600)
    sync_path(temporary)
    temporary.replace(target)
    return target.name


def _restore_postgres(name: str, dump: Path) -> None:
    if (address := _postgres(name)) is None:
        raise BadInput(
            f"{dump} is of Postgres, and {ADDRESSES[name]} is not set to a Postgres database",
            "a database is restored into an empty one of the same kind",
            f"Make an empty database and set {ADDRESSES[name]}",
        )
    _postgres_tool("pg_restore", address, "--no-owner", "--exit-on-error", str(dump))


def _postgres(name: Literal["prefect", "mlflow"] | str) -> str | None:
    """The address of a database, if it is in Postgres."""
    address = os.environ.get(ADDRESSES[name], "")
    return address if address.startswith("postgres") else None


def _postgres_tool(program: str, address: str, *arguments: str) -> None:
    """Run a program of Postgres; the password goes through its environment, where no other user can read it."""
    parts = urlsplit(address)
    known = {
        "PGHOST": parts.hostname,
        "PGPORT": str(parts.port or 5432),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
    }
    named = [f"--dbname={parts.path.lstrip('/')}", *arguments]
    if (found := shutil.which(program)) is None:
        raise BadInput(f"{program} is not there", "Postgres is copied by its own programs", "Install postgresql-client")
    done = subprocess.run(
        [found, *named],
        env={**os.environ, **{key: value for key, value in known.items() if value}},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RunFailed(
            f"{program} ended with code {done.returncode}: {done.stderr.strip()[-1000:]}",
            "a database must be copied whole",
            "Mend the cause and run the command again",
        )
