"""The first program of a container ends after all that it left behind, but waits for nothing for ever."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parents[2]
CHILD = """
import signal, sys, time
def stop(*_):
    time.sleep(0.3)
    open("checkpoint", "w").close()
    sys.exit()
signal.signal(signal.SIGTERM, stop if sys.argv[1] == "writes" else signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""
COMMAND = """
import subprocess, sys, time
from infra.child import child_command
child = subprocess.Popen(child_command("trains", sys.argv[1:]), stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


def outlasting(folder: Path, seconds: float, child: str) -> tuple["subprocess.Popen[str]", int]:
    """A program whose child goes on when it is killed, and the child's number."""
    (folder / "trains.py").write_text(CHILD)
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.outlast", str(seconds), sys.executable, "-c", COMMAND, child],
        env={**os.environ, "PYTHONPATH": f"{folder}:{REPOSITORY}"},
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    assert process.stdout is not None
    with process.stdout:
        return process, int(process.stdout.readline())


def test_what_is_left_behind_may_end_its_work(tmp_path: Path):
    process, child = outlasting(tmp_path, 60, "writes")
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert (tmp_path / "checkpoint").exists()
    assert not psutil.pid_exists(child)


def test_what_never_ends_is_left(tmp_path: Path):
    process, child = outlasting(tmp_path, 0.2, "stays")
    process.terminate()
    try:
        assert process.wait(30) == 128 + signal.SIGTERM
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_background_job_of_a_shell_can_be_interrupted():
    """Such a one ignores SIGINT, and what it starts would too."""
    told = "import signal; print(signal.getsignal(signal.SIGINT) == signal.default_int_handler)"
    command = f"trap '' INT; exec {sys.executable} -m infra.outlast 1 {sys.executable} -c '{told}'"
    found = subprocess.run(["sh", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout == "True\n"
