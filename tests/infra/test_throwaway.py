"""Work that is thrown away: it is gone at its end, after SIGTERM, and at last after a kill."""

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.store import Store
from infra.throwaway import left_over, remove_left_over, throwaway


def test_sigterm_leaves_nothing(tmp_path: Path):
    def work() -> None:
        with throwaway(Store(str(tmp_path))) as folder:
            (folder / "pages").write_text("unredacted")
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as stopped:
        work()
    assert stopped.value.code == 143
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_what_a_kill_left_is_removed_later(tmp_path: Path):
    store, now = Store(str(tmp_path)), datetime.now(UTC)
    with throwaway(store) as folder:
        (folder / "pages").write_text("unredacted")
        remove_left_over(store, now)
        assert folder.exists(), "someone may still be at it"
        assert left_over(store, now + timedelta(days=2)) == [folder]
        remove_left_over(store, now + timedelta(days=2))
        assert not folder.exists()
