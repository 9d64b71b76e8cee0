"""One process at a time on this machine: an advisory lock on a file, which the kernel takes back when its holder dies.

There is nothing to clean up after a kill, and no age from which a lock counts as stale.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from infra.errors import RunFailed
from infra.manifest import fingerprint
from infra.store import Store


@contextmanager
def only_one(store: Store, path: str, what: str) -> Iterator[None]:
    """Do something that no other process of this machine may do meanwhile; RunFailed says who does it already.

    `path` is that of the lock's file, relative to the root; of a remote root it is in this machine's folder for
    temporary files. Other machines are not kept away.
    """
    descriptor = _open(store, path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            raise RunFailed(
                f"{what} is under way already{f' ({holder})' if holder else ''}",
                "one goes on at a time",
                "Wait until it has ended, or stop it",
            ) from None
        since = datetime.now(UTC).isoformat(timespec="seconds")
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} since {since}\n".encode())
        yield
        os.truncate(descriptor, 0)
    finally:
        os.close(descriptor)  # which unlocks it; the file stays, because another may wait for it by now


@contextmanager
def in_use(store: Store, path: str) -> Iterator[None]:
    """Use something that `only_one` may be about to change: with others, and after it is done. `path` as there."""
    descriptor = _open(store, path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _open(store: Store, path: str) -> int:
    """The lock's file; that of a remote root lies on this machine."""
    file = store.local_path(path) if store.is_local else _elsewhere(store, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)


def _elsewhere(store: Store, path: str) -> Path:
    return Path(tempfile.gettempdir()) / f"gristmill-{os.getuid()}-{fingerprint(root=store.root, path=path)}.lock"
