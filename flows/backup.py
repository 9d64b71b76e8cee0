"""Backup of a root: its files and its databases, while everything runs. The folder holds one backup, the newest.

    FOLDER/files/...                the root's files; those that are there already are not copied again
           databases/TIME/NAME      SQLite's own online copies, or pg_dump's archives (`prefect.dump`, `mlflow.dump`)
           backup.json              names the files and the databases of the backup

Databases are copied first: what they tell of is then among the files, which seldom change once they have their names.
Until backup.json is replaced, the backup before can be restored: databases have a folder for each time, and files that
did change wait under temporary names until all is copied. What backup.json no longer names goes after that, deleted
personal data with it. So what would make a good backup a worse one is refused: a folder that is gone whole, a database
that is not where it was, a link.
"""

import logging
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from flows.postgres import ADDRESSES, dump, find_address
from infra.errors import BadInput, RunFailed
from infra.lock import only_one
from infra.manifest import Manifest
from infra.store import TEMPORARY_SUFFIX, Store, sync_path

logger = logging.getLogger(__name__)
RECORD, LOCK = "backup.json", "backup.lock"
RESTORING = "restoring.json"
"""In a root that is not whole yet."""
SQLITE = ("prefect/prefect.db", "mlflow.db", "mlflow_users.db")
"""Databases below a root that servers have open."""
FOUND = "lost+found"
"""In every new file system of some kinds; it is nobody's."""
_NOT_KEPT = ("services", "dask", "prefect", FOUND)
"""Logs and scratch of servers that run; of Prefect's home the database alone."""
_LASTING = ("datasets", "stages", "indexes", "runs", "tokenizers", "models", "mlflow-artifacts")
"""Folders that no command empties; in others, such as `refreshes`, files come and go."""


class BackupRecord(Manifest):
    """A whole backup."""

    made_at: str
    root: str
    """Where its files were."""
    databases: tuple[str, ...]
    files: int
    bytes: int
    copied: int
    """Files that the folder did not have as they are now."""

    def text(self) -> str:
        """The same for people."""
        what = (
            f"{self.files:,} files ({self.copied:,} copied now), {self.bytes:,} bytes, {len(self.databases)} databases"
        )
        return f"Backup of {self.root} at {self.made_at}: {what}"


class Backup(Manifest):
    """All that a restore needs to know; what else lies in the folder is of no backup."""

    record: BackupRecord
    time: str
    """Name of the databases' folder."""
    files: tuple[str, ...]
    """Relative to the root."""
    folders: dict[str, int]
    """Modes of all folders of files and databases; that of the root is `.`."""


def back_up(root: str, folder: Path) -> BackupRecord:
    """Copy a root and its databases; BadInput for a root or folder that is none, RunFailed where a copy fails."""
    source, target = local(root), folder.absolute()
    if target.resolve().is_relative_to(source.resolve()):
        raise BadInput(f"backup folder {folder}", "it must lie outside the root", "Name a folder of another disk")
    store = Store(str(target))
    _require_own_folder(store)
    make_folder(target)
    with only_one(store, LOCK, f"a backup or a restore with {folder}"):
        before = Backup.load(store, RECORD) if store.exists(RECORD) else None
        _require_good_root(source, folder, before)
        if before is not None:
            _require_nothing_lost(source, target, before)
        try:
            make_folder(target / "files")
            _prune_databases(target, before)
            backup = _copy_all(source, target)
            backup.save(store, RECORD)
            _prune_files(target, backup)
            _prune_databases(target, backup)
        except OSError as error:
            raise RunFailed(
                str(error),
                "every file of the root is copied; until then the backup before stays",
                "Mend the cause and run the command again: what was copied is kept",
            ) from error
    return backup.record


def local(root: str) -> Path:
    """A root as a folder of this machine; BadInput if it is none."""
    store = Store(root)
    if not store.is_local:
        raise BadInput(
            f"root {root}", "only a folder of this machine is backed up here", "Use the object store's own copies"
        )
    return store.local_path("").absolute()


def make_folder(path: Path) -> None:
    """Make a folder for its owner alone, with its parents, and make that durable."""
    if not path.exists():
        make_folder(path.parent)
        path.mkdir(mode=0o700)
        sync_path(path.parent)


def copy_beside(source: Path, target: Path) -> Path | None:
    """Copy a file, its mode and its time under a temporary name; None if the same is at its place already."""
    found = source.stat()
    if target.exists():
        there = target.stat()
        if (there.st_size, there.st_mtime_ns) == (found.st_size, found.st_mtime_ns):
            shutil.copymode(source, target)
            return None
    make_folder(target.parent)
    temporary = target.with_name(f".{target.name}{TEMPORARY_SUFFIX}")
    shutil.copy2(source, temporary)
    sync_path(temporary)
    return temporary


def put(temporary: Path, target: Path) -> None:
    """Give a copy its name, durably."""
    temporary.replace(target)
    sync_path(target.parent)


def _require_own_folder(store: Store) -> None:
    """BadInput for a folder that is somebody else's: a backup removes what it does not name."""
    there = set(store.names("")) - {FOUND}
    if there and not there & {RECORD, LOCK}:  # the lock is of a first backup that was stopped
        raise BadInput(
            f"{store.root} holds {min(there)}, and no backup", "a backup has its folder to itself", "Name a new folder"
        )


def _require_good_root(source: Path, folder: Path, before: Backup | None) -> None:
    """BadInput where a new backup would put less, or something else, in the place of a good one."""
    if not source.is_dir() or not any(source.iterdir()):
        raise BadInput(f"root {source} is empty", "there is something to back up", "Name the root; is its disk there?")
    if (source / RESTORING).exists():
        raise BadInput(f"root {source} is not restored yet", "a backup is of a whole root", "Run the restore again")
    if before is not None and before.record.root != str(source):
        raise BadInput(
            f"{folder} holds a backup of {before.record.root}",
            "a folder holds the backup of one root",
            "Name another folder",
        )


def _require_nothing_lost(source: Path, target: Path, before: Backup) -> None:
    """BadInput where all files of a folder, or a database, are not where they were for the backup before.

    Their disk may not be mounted, or an address not be told. Who did remove them removes their copies too, and so says.
    """
    had = {folder: [name for name in before.files if name.startswith(f"{folder}/")] for folder in _LASTING}
    gone = [f"files/{each}" for each, names in had.items() if names and not any((source / n).exists() for n in names)]
    now = {*(path.name for path in _sqlite(source)), *(f"{name}.dump" for name in _addresses())}
    gone += [
        f"databases/{before.time}/{name}"
        for name in before.record.databases
        if not now & {name, f"{Path(name).stem}.dump"}
    ]
    if missing := next((target / name for name in gone if (target / name).exists()), None):
        variable = ADDRESSES.get(missing.stem) if missing.suffix == ".dump" else None
        raise BadInput(
            f"what {missing} was copied from is gone{f': {variable} names no Postgres' if variable else ''}",
            "a backup takes the place of the one before",
            f"{f'Set {variable}' if variable else 'Mount its disk'}; if it was meant to go, remove that copy too",
        )


def _copy_all(source: Path, target: Path) -> Backup:
    """Copy everything; a file that the folder has in another form gets its name after the last one is copied."""
    now = datetime.now(UTC)
    time = now.strftime("%Y%m%dT%H%M%S.%fZ")
    databases = tuple(_databases(source, target / "databases" / time))
    modes = {name: _mode(source / name) for name in (".", "prefect") if (source / name).is_dir()}
    files, changed = [], []
    copied = total = 0
    for path in _files(source):
        name = path.relative_to(source)
        kept = target / "files" / name
        try:
            for parent in name.parents:
                modes.setdefault(parent.as_posix(), _mode(source / parent))
            temporary = copy_beside(path, kept)
        except FileNotFoundError:  # an older checkpoint, say, that went in this moment
            logger.info("%s went while it was copied", path)
            continue
        files.append(name.as_posix())
        total += (temporary or kept).stat().st_size
        if temporary is not None:
            copied += 1
            changed.append((temporary, kept)) if kept.exists() else put(temporary, kept)
    for temporary, kept in changed:
        put(temporary, kept)
    record = BackupRecord(
        made_at=now.isoformat(timespec="seconds"),
        root=str(source),
        databases=databases,
        files=len(files),
        bytes=total,
        copied=copied,
    )
    return Backup(record=record, time=time, files=tuple(files), folders=modes)


def _mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


def _files(root: Path) -> Iterator[Path]:
    """Files of a root in their order, manifests and the like after what they tell of; BadInput for a link."""
    databases = {root / name for name in SQLITE}
    for folder, names, files in os.walk(root, onerror=_complain):
        if Path(folder) == root:
            names[:] = [name for name in names if name not in _NOT_KEPT]
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in names:
            _require_no_link(Path(folder) / name)
        for name in sorted(files, key=lambda each: (each.endswith(".json"), each)):
            path = Path(folder) / name
            base = path.with_name(name.removesuffix("-wal").removesuffix("-shm").removesuffix("-journal"))
            if base not in databases and not name.endswith(TEMPORARY_SUFFIX):
                _require_no_link(path)
                yield path


def _require_no_link(path: Path) -> None:
    """BadInput for a link: what it leads to would be missing from the backup, or be anything of this machine."""
    if path.is_symlink():
        raise BadInput(
            f"{path} is a link", "a backup holds what lies below the root itself", "Mount what it leads to in its place"
        )


def _complain(error: OSError) -> None:
    """A folder that went is none of ours; one that cannot be read would be missing from the backup."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _databases(root: Path, folder: Path) -> Iterator[str]:
    make_folder(folder)
    for path in _sqlite(root):
        _copy_sqlite(path, folder / path.name)
        yield path.name
    for name, address in _addresses().items():
        dump(address, folder / f"{name}.dump")
        yield f"{name}.dump"
    sync_path(folder)


def _sqlite(root: Path) -> list[Path]:
    return [path for name in SQLITE if (path := root / name).exists()]


def _addresses() -> dict[str, str]:
    """Those of databases in Postgres."""
    return {name: address for name in ADDRESSES if (address := find_address(name)) is not None}


def _copy_sqlite(source: Path, target: Path) -> None:
    """SQLite's online copy: consistent while others write."""
    reading = sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, timeout=60)
    try:
        with closing(reading) as one, closing(sqlite3.connect(target)) as other:
            one.backup(other)
    except sqlite3.Error as error:
        raise RunFailed(
            f"{source} ({error})", "a database must be copied whole", "Mend the cause and run the command again"
        ) from error
    target.chmod(0o600)
    sync_path(target)


def _prune_files(target: Path, backup: Backup) -> None:
    """Remove files that the backup does not name: what went from the root since, and what killed backups left."""
    named = set(backup.files)
    for path in sorted((target / "files").rglob("*"), reverse=True):  # what is in a folder before the folder
        if not path.is_dir():
            if path.relative_to(target / "files").as_posix() not in named:
                path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()


def _prune_databases(target: Path, backup: Backup | None) -> None:
    """Remove databases of other times; a backup that fails every night must not fill the disk with them."""
    for path in (target / "databases").glob("*"):
        if backup is None or path.name != backup.time:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
