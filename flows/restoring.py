"""The way back from a backup: an empty root, and empty databases where they are in Postgres.

Everything is looked at before anything is written. Databases come first, then files; the modes of folders come last,
and until then they are their owner's alone. A restore that was stopped is run again and goes on: the root says so.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from flows.backup import (
    FOUND,
    LOCK,
    RECORD,
    RESTORING,
    SQLITE,
    Backup,
    BackupRecord,
    copy_beside,
    local,
    put,
)
from flows.postgres import require_address, require_restorable, restore_dump
from infra.errors import BadInput, DamagedData, RunFailed
from infra.lock import only_one
from infra.manifest import Manifest
from infra.store import Store
from infra.tracking import default_tracking_uri

logger = logging.getLogger(__name__)


_PLACES = (
    *(("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location")),
    *(("model_versions", "source"), ("model_versions", "storage_location")),
    *(("logged_model_tags", "tag_value"), ("model_version_tags", "value"), ("datasets", "dataset_source")),
)
"""Where MLflow's tables name files below the root; of the tags it is `checkpoint.path`."""
_TRACKED = ("launch.json", "tracked.json")
"""Files that say where the MLflow run of what they lie beside is."""


class Begun(Manifest):
    """A restore that goes on, or was stopped."""

    time: str
    """Of the backup."""
    restored: tuple[str, ...] = ()
    """Archives that are in Postgres already."""


def restore(folder: Path, root: str) -> BackupRecord:
    """Copy a backup back into an empty root; databases in Postgres go into the empty ones that the addresses name.

    BadInput for a backup that is not whole, and for a root or a database in which something is.
    """
    source, store = folder.absolute(), Store(str(local(root)))
    if not (source / RECORD).exists():
        raise BadInput(f"backup {folder}", "a whole backup has a backup.json", "Name another, or make it again")
    # What cannot be written, such as a disk that is mounted for reading, is pruned by nobody meanwhile.
    writable = os.access(source, os.W_OK)
    with only_one(Store(str(source)), LOCK, f"a backup or a restore with {folder}") if writable else nullcontext():
        backup = _load(Store(str(source)))
        begun = _begin(store, backup)
        try:
            _restore_databases(source / "databases" / backup.time, store, backup, begun)
            _restore_files(Store(str(source / "files")), store, backup)
            if store.root != backup.record.root:
                for database in _mlflow(store, backup):
                    move_artifacts(database, backup.record.root, store.root)
                _move_tracked(store, backup)
        except OSError as error:
            raise RunFailed(
                str(error),
                "every file of the backup is copied",
                "Mend the cause and run the same command again: it goes on",
            ) from error
        store.remove(RESTORING)
    return backup.record


def _load(store: Store) -> Backup:
    """What a backup holds; DamagedData if something of it is not there."""
    backup = Backup.load(store, RECORD)
    names = [f"files/{name}" for name in backup.files]
    names += [f"databases/{backup.time}/{name}" for name in backup.record.databases]
    if missing := next((name for name in names if not store.exists(name)), None):
        raise DamagedData(
            f"{store.full_path(missing)} is not there",
            "the backup holds every file that its backup.json names",
            "Restore another copy of the backup",
        )
    return backup


def _begin(store: Store, backup: Backup) -> Begun:
    """See that everything can be restored, and mark the root as one that is not whole; how far an earlier try came."""
    begun = Begun.load(store, RESTORING) if store.exists(RESTORING) else Begun(time=backup.time)
    if begun.time != backup.time or (set(store.names("")) - {FOUND} and not store.exists(RESTORING)):
        raise BadInput(
            f"root {store.root}", "a backup is restored into an empty folder", "Name another root, or move it away"
        )
    for name in backup.record.databases:
        if name.endswith(".dump") and name not in begun.restored:
            require_restorable(name.removesuffix(".dump"))
    root = store.local_path("")
    if not root.exists():
        root.mkdir(parents=True)
        root.chmod(backup.folders["."])
    begun.save(store, RESTORING)
    return begun


def _restore_databases(folder: Path, store: Store, backup: Backup, begun: Begun) -> None:
    for name in backup.record.databases:
        if name.endswith(".dump"):
            if name not in begun.restored:
                restore_dump(name.removesuffix(".dump"), folder / name)
                begun = begun.model_copy(update={"restored": (*begun.restored, name)})
                begun.save(store, RESTORING)
        else:
            _copy(folder / name, store.local_path(next(each for each in SQLITE if Path(each).name == name)))


def _mlflow(store: Store, backup: Backup) -> Iterator[str]:
    """Addresses of MLflow's databases that were restored; others, such as a team's own that runs, are left alone."""
    if "mlflow.dump" in backup.record.databases:
        yield require_address("mlflow")
    if "mlflow.db" in backup.record.databases:
        yield default_tracking_uri(store)


def move_artifacts(database: str, old: str, new: str) -> None:
    """Have MLflow look for what lies under a root where that is now; doing it again changes nothing."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(database)
    with engine.begin() as connection:
        there = sqlalchemy.inspect(connection)
        for table, column in _PLACES:
            if not there.has_table(table) or column not in {each["name"] for each in there.get_columns(table)}:
                continue
            for before, after in zip(_beginnings(old), _beginnings(new), strict=True):
                statement = f"UPDATE {table} SET {column} = :after || substr({column}, :rest) "  # noqa: S608
                statement += f"WHERE substr({column}, 1, :length) = :before"
                values = {"before": before, "after": after, "length": len(before), "rest": len(before) + 1}
                connection.execute(sqlalchemy.text(statement), values)
    engine.dispose()


def _beginnings(root: str) -> tuple[str, ...]:
    """How MLflow's tables begin what lies below a root: as a path, as an address, as the source of a dataset."""
    return f"{root}/", f"{Path(root).as_uri()}/", json.dumps({"uri": f"{root}/"}).removesuffix('"}')


def _move_tracked(store: Store, backup: Backup) -> None:
    """Have runs and datasets name the root's own MLflow database, and not the one of the root that was backed up."""
    old, new = (default_tracking_uri(Store(root)).encode() for root in (backup.record.root, store.root))
    for name in backup.files:
        if Path(name).name in _TRACKED and old in (content := store.read_bytes(name)):
            store.write_bytes(name, content.replace(old, new))


def _restore_files(files: Store, store: Store, backup: Backup) -> None:
    for name in backup.files:
        _copy(files.local_path(name), store.local_path(name))
    for name, mode in backup.folders.items():
        if name != "." and store.exists(name):
            store.local_path(name).chmod(mode)


def _copy(source: Path, target: Path) -> None:
    if (temporary := copy_beside(source, target)) is not None:
        put(temporary, target)
