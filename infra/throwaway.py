"""Folders under a root for work that is thrown away: by whoever began it, or later where that was killed."""

import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import NoReturn

from infra.store import Store

_PREFIX = ".plan-"
_LEFT_AFTER = timedelta(days=1)
"""No plan takes so long."""


@contextmanager
def throwaway(store: Store) -> Iterator[Path]:
    """A folder on the disk that holds the root, elsewhere if that is remote; SIGTERM, too, ends in its removal."""
    if store.is_local:
        store.make_folder("")
    with (
        tempfile.TemporaryDirectory(prefix=_PREFIX, dir=store.local_path("") if store.is_local else None) as name,
        _terminated_as_exit(),
    ):
        yield Path(name)


def left_over(store: Store, now: datetime) -> list[Path]:
    """Folders under a root whose owner was killed and could not remove them."""
    if not store.is_local:
        return []
    found = [each for each in store.local_path("").glob(f"{_PREFIX}*") if each.is_dir() and not each.is_symlink()]
    return sorted(each for each in found if each.stat().st_mtime < (now - _LEFT_AFTER).timestamp())


def remove_left_over(store: Store, now: datetime) -> None:
    """Remove them."""
    for each in left_over(store, now):
        shutil.rmtree(each, ignore_errors=True)


@contextmanager
def _terminated_as_exit() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, unless someone else has a use for it: by itself it would clean up nothing."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
