"""What a command costs: CPU time and memory of all its processes, pinned to cores of its own. Linux only.

Processes that outlive their parents are inherited and waited for (PR_SET_CHILD_SUBREAPER), so none escapes the count,
as Dask's workers and datatrove's sandboxes would where a parent is killed.
"""

import ctypes
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SUBREAPER = 36
SAMPLE_SECONDS = 0.2


@dataclass(frozen=True)
class Cost:
    """Seconds and bytes of one command with all its descendants."""

    cpu: float
    """Seconds of CPU time, of user and system."""
    wall: float
    """Seconds from start to end."""
    peak: int
    """Largest proportional set size (shared pages divided among their users) of all processes together, sampled."""


def run(command: Sequence[str], cores: Collection[int], environment: Mapping[str, str]) -> tuple[Cost, str]:
    """Run a command on some cores to its end. Returns its cost and what it wrote; RuntimeError if it fails."""
    ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0)
    before, started, peak = _used(), time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            list(command),
            stdout=out,
            stderr=errors,
            cwd=Path(__file__).parents[2],
            env={**os.environ, **environment},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        while process.poll() is None:
            peak = max(peak, _resident())
            time.sleep(SAMPLE_SECONDS)
        wall = time.monotonic() - started
        _wait_for_orphans()
        out.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}:\n{errors.read()[-4000:]}")
        return Cost(_used() - before, wall, peak), out.read()


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _wait_for_orphans() -> None:
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return


def _resident() -> int:
    total = 0
    for each in psutil.Process().children(recursive=True):
        try:
            total += each.memory_full_info().pss
        except (psutil.Error, OSError):
            continue  # it has just ended
    return total
