"""A child does not outlive its parent, even where neither hears a signal."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from infra.child import LINGER

STUBBORN = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)\n"
)
PARENT = """
import os, subprocess, sys
from infra.child import child_command
child = subprocess.Popen(child_command("stubborn", []), stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_program_that_ignores_the_end_of_its_parent_is_ended(tmp_path: Path):
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    repository = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{repository}", LINGER: "0.5"}
    done = subprocess.run([sys.executable, "-c", PARENT], env=environment, capture_output=True, text=True, timeout=60)
    child = int(done.stdout)
    end = time.monotonic() + 30
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_child_of_a_background_job_can_be_interrupted(tmp_path: Path):
    """A shell has SIGINT ignored there, and what the job starts would ignore it too."""
    told = "import signal; print(signal.getsignal(signal.SIGINT) == signal.default_int_handler)"
    (tmp_path / "tells.py").write_text(told)
    start = "import subprocess; from infra.child import child_command; subprocess.run(child_command('tells', []))"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    command = f'trap "" INT; exec {sys.executable} -c "{start}"'
    found = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == "True\n"
