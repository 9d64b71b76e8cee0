"""What hostile programs can do in the sandbox, and what honest ones can."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from infra.sandbox import Outcome, SandboxLimits, check_sandbox, run_python

QUICK = SandboxLimits(cpu_seconds=1, seconds=120, output_bytes=1000)


def run(program: str) -> Outcome:
    return run_python(program, QUICK)


def test_an_honest_program_runs_to_its_end() -> None:
    check_sandbox()
    found = run(
        "import asyncio, collections, dataclasses, hashlib, math, re, typing\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "@dataclasses.dataclass\n"
        "class Pair:\n    left: int\n    right: int\n"
        "async def later():\n    await asyncio.sleep(0.01)\n    return 7\n"
        "with ThreadPoolExecutor(2) as pool:\n    print(list(pool.map(abs, [-1, 2])))\n"
        "print(Pair(1, 2), asyncio.run(later()), __name__)\n"
    )
    assert found == Outcome(finished=True, reason="finished", output="[1, 2]\nPair(left=1, right=2) 7 __main__\n")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("assert 1 == 2, 'no'", "raised AssertionError: no"),
        ("def broken(:", "raised SyntaxError: invalid syntax"),
        ("raise SystemExit(0)", "raised SystemExit: 0"),
        ("import os; os._exit(0)", "ended early"),
        ("import ctypes; ctypes.CDLL(None).abort()", "killed by SIGABRT"),
        ("def again(): again()\nagain()", "raised RecursionError: maximum recursion depth exceeded"),
        ("class Odd(Exception):\n  def __str__(self): return 1\nraise Odd", "raised Odd: <exception str() failed>"),
        ("import numpy", "raised ModuleNotFoundError: No module named 'numpy'"),
    ],
)
def test_why_a_program_did_not_finish_is_told(program: str, reason: str) -> None:
    assert run(program) == Outcome(finished=False, reason=reason, output="")


def test_what_it_prints_is_bounded() -> None:
    found = run("for _ in range(100): print('ä' * 100_000)")
    assert found.finished
    assert len(found.output.encode()) == 1000


@pytest.mark.parametrize(
    "forbidden",
    [
        "while True: os.fork()",
        "subprocess.run(['true'])",
        "os.execv('/bin/true', ['true'])",
        "multiprocessing.Pool(2)",
        "os.kill(os.getppid(), signal.SIGKILL)",
        "os.kill(-1, signal.SIGTERM)",
        "fcntl.fcntl(1, fcntl.F_SETOWN, os.getppid())",
        "resource.prlimit(os.getppid(), resource.RLIMIT_AS, (1, 1))",
        "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
        "os.setuid(1)",
    ],
)
def test_it_makes_and_disturbs_no_other_process(forbidden: str) -> None:
    found = run(f"import fcntl, multiprocessing, os, resource, signal, subprocess\n{forbidden}")
    assert found.reason == "raised PermissionError: [Errno 1] Operation not permitted"


def test_it_reaches_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        found = run(f"import socket\nsocket.create_connection({address!r})")
    assert found.reason == "raised PermissionError: [Errno 1] Operation not permitted"


@pytest.mark.parametrize(
    "change",
    [
        "open({target!r}, 'w')",
        "open('here', 'w')",
        "open('/dev/shm/gristmill', 'w')",
        "os.open({target!r}, os.O_RDWR)",
        "os.remove({target!r})",
        "os.rename({target!r}, {target!r} + '.old')",
        "os.truncate({target!r}, 0)",
        "os.chmod({target!r}, 0o777)",
        "os.utime({target!r}, (1, 1))",
        "os.symlink({target!r}, 'link')",
        "os.mkdir('folder')",
        "os.mkfifo('queue')",
        "os.memfd_create('memory')",
    ],
)
def test_it_writes_and_changes_no_file(change: str, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    before = target.stat()
    found = run(f"import os\n{change.format(target=str(target))}")
    assert found.reason.startswith("raised PermissionError")
    assert target.read_text() == "kept"
    assert (target.stat().st_mode, target.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_it_sees_nothing_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRISTMILL_TEST_SECRET", "hidden")
    found = run("import os, sys\nprint(dict(os.environ).get('GRISTMILL_TEST_SECRET'), sys.argv, sys.stdin.read())")
    assert found.output == "None ['program.py'] \n"


def test_with_landlock_it_reads_no_files_of_others(tmp_path: Path) -> None:
    if not _has_landlock():
        pytest.skip("this kernel has no Landlock")
    (tmp_path / "private").write_text("mine")
    for path in (str(tmp_path / "private"), "/etc/passwd", f"/proc/{os.getpid()}/environ", "/proc/self/cmdline"):
        assert run(f"open({path!r})").reason.startswith("raised PermissionError"), path
    assert run("import os; os.listdir('/')").reason.startswith("raised PermissionError")


def _has_landlock() -> bool:
    import ctypes

    return ctypes.CDLL(None).syscall(444, None, 0, 1) > 0


def test_memory_time_and_threads_are_limited() -> None:
    assert run("x = bytearray(10**9)").reason == "raised MemoryError"
    assert run("while True: pass").reason == f"killed by {signal.SIGXCPU.name}"
    threads = "import threading, time\nfor _ in range(9999): threading.Thread(target=time.sleep, args=(9,)).start()"
    assert run(threads).reason == "raised RuntimeError: can't start new thread"
    assert "Too many open files" in run("import os\nkept = [os.pipe() for _ in range(99)]").reason


def test_one_that_waits_or_hides_is_ended() -> None:
    limits = SandboxLimits(seconds=0.5)
    started = time.monotonic()
    assert run_python("import time; time.sleep(60)", limits).reason == "out of time"
    ignoring = "import signal, time\nfor n in (1, 2, 15, 24): signal.signal(n, signal.SIG_IGN)\nwhile 1: time.sleep(1)"
    assert run_python(ignoring, limits).reason == "out of time"
    assert run("import os, time\nos.close(1)\nos.close(2)\ntime.sleep(110)").reason == "killed by SIGKILL"
    assert time.monotonic() - started < 60
