"""One process at a time on this machine: an advisory lock on a file, which the kernel takes back when its holder dies.

There is nothing to clean up after a kill, and no age from which a lock counts as stale.
"""

import errno
import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from infra.errors import RunFailed
from infra.manifest import fingerprint
from infra.store import Store

logger = logging.getLogger(__name__)


@contextmanager
def only_one(store: Store, path: str, what: str, patience_seconds: float = 0.0) -> Iterator[int]:
    """Do something that no other process of this machine may do meanwhile; RunFailed says who does it already.

    Gives the descriptor of the lock: it is held for as long as any process has it open.

    `path` is that of the lock's file, relative to the root; of a remote root it is in this machine's folder for
    temporary files. Other machines are not kept away, but those that share a file system with locks (NFS 4).
    """
    descriptor = _open(store, path)
    end = time.monotonic() + patience_seconds
    try:
        if not _locked(descriptor):
            _wait(descriptor, what, end)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} since {since}\n".encode())
        yield descriptor
        os.truncate(descriptor, 0)
    finally:
        os.close(descriptor)  # which unlocks it; the file stays, because another may wait for it by now


@contextmanager
def in_use(store: Store, path: str) -> Iterator[None]:
    """Use something that `only_one` may be about to change: with others, and after it is done. `path` as there."""
    descriptor = _open(store, path)
    try:
        _flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int, what: str, end: float) -> None:
    holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
    if time.monotonic() < end:
        logger.info("%s is under way already (%s): waiting for its end", what, holder)
    while not _locked(descriptor):
        if time.monotonic() >= end:
            raise RunFailed(
                f"{what} is under way already{f' ({holder})' if holder else ''}",
                "one goes on at a time",
                "Wait until it has ended, or stop it",
            )
        time.sleep(0.5)


def _locked(descriptor: int) -> bool:
    """Take the lock if nobody has it."""
    try:
        _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _flock(descriptor: int, how: int) -> None:
    """Lock, where the file system can: Lustre, for one, may be mounted without locks, and work is not refused there."""
    try:
        fcntl.flock(descriptor, how)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
        logger.warning("this file system has no locks (%s): see to it that nothing runs twice", error.strerror)


def _open(store: Store, path: str) -> int:
    """The lock's file; that of a remote root lies on this machine."""
    file = store.local_path(path) if store.is_local else _elsewhere(store, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)


def _elsewhere(store: Store, path: str) -> Path:
    return Path(tempfile.gettempdir()) / f"gristmill-{os.getuid()}-{fingerprint(root=store.root, path=path)}.lock"
