"""A lock that goes with its holder."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from infra.errors import RunFailed
from infra.lock import in_use, only_one
from infra.store import Store

HOLD = "import sys; from infra.lock import only_one; from infra.store import Store\n" + (
    "with only_one(Store(sys.argv[1]), 'locks/a.lock', 'it'): print('held', flush=True); sys.stdin.read()"
)


def test_one_holds_and_a_kill_frees(tmp_path: Path):
    store = Store(str(tmp_path))
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(RunFailed, match=rf"it is under way already \(process {other.pid} since 2"),
            only_one(store, "locks/a.lock", "it"),
        ):
            pass
        with only_one(store, "locks/b.lock", "another"):
            pass
        os.kill(other.pid, signal.SIGKILL)
    with only_one(store, "locks/a.lock", "it"), pytest.raises(RunFailed), only_one(store, "locks/a.lock", "it"):
        pass
    with only_one(store, "locks/a.lock", "it"):
        pass


def test_a_remote_root_is_locked_on_this_machine():
    store = Store("memory://lock-test")
    with only_one(store, "a.lock", "it"), pytest.raises(RunFailed), only_one(Store(store.root), "a.lock", "it"):
        pass


def test_a_file_system_without_locks_refuses_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def none(*_: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    store = Store(str(tmp_path))
    with only_one(store, "a.lock", "it"), in_use(store, "a.lock"):
        pass
    assert "has no locks (Function not implemented)" in caplog.text


def test_many_use_what_one_changes(tmp_path: Path):
    store = Store(str(tmp_path))
    with (
        in_use(store, "locks/a.lock"),
        in_use(store, "locks/a.lock"),
        pytest.raises(RunFailed),
        only_one(store, "locks/a.lock", "it"),
    ):
        pass
    entered = threading.Event()

    def use() -> None:
        with in_use(store, "locks/a.lock"):
            entered.set()

    with only_one(store, "locks/a.lock", "it"):
        user = threading.Thread(target=use)
        user.start()
        assert not entered.wait(0.2)
    assert entered.wait(60)
    user.join()
