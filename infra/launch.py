"""Starting a job of several processes, watching it, and stopping it without leaving any of them behind.

`LocalLauncher` runs `torchrun` on this machine: an *agent* process that starts the *ranks*. Whatever stops the caller
(a cancelled flow, an interrupt) becomes SIGTERM to the agent, which forwards it to the ranks so that they can write a
checkpoint; what is left after the grace period is killed. If the caller itself is killed, Linux delivers the SIGTERM
(`PR_SET_PDEATHSIG`), and a rank never outlives its agent.

A rank tells why it stopped in one line (`reporting_failures`), from which the launcher makes the same error again.
"""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, Protocol

from pydantic import Field

from infra.child import child_command, die_with_parent
from infra.errors import BadInput, DamagedData, DiskFull, GristmillError, RunFailed
from infra.settings import Settings

logger = logging.getLogger(__name__)

FAILURE_MARK = "gristmill-failure "
_ERRORS = {error.__name__: error for error in (BadInput, DamagedData, DiskFull, RunFailed)}
_RANK_LINE = re.compile(r"^\[rank(\d+)\]:(.*)$")
_FIRST_FAILURE = re.compile(r"^\s*rank\s*:\s*(\d+)")
_EXIT_CODE = re.compile(r"^\s*exitcode\s*:\s*(-?\d+)")
_REMEMBERED_LINES = 12


class JobSpec(Settings):
    """What to start; nothing in it says where."""

    module: str
    """Python module that every rank runs."""
    arguments: tuple[str, ...] = ()
    """Its command line."""
    processes: int = Field(default=1, ge=1)
    """Ranks."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables set for the job beside those of the caller."""
    grace_seconds: int = Field(default=60, ge=1)
    """Time that the ranks have to stop after SIGTERM before they are killed."""


class JobResult(Settings):
    """A job that ended well."""

    seconds: float
    """Wall time from start to end, with the start of the processes."""


class Launcher(Protocol):
    """Runs a job to its end; on any BaseException it stops the job first."""

    def run(self, spec: JobSpec, on_line: Callable[[str], None]) -> JobResult:
        """Block until the job ends; RunFailed (or what the ranks reported) if it ends badly."""
        ...


class LocalLauncher:
    """Runs jobs on this machine; see the module docstring."""

    def run(self, spec: JobSpec, on_line: Callable[[str], None] = logger.info) -> JobResult:
        """Start, stream each line of the ranks without its secrets, and wait."""
        started = time.monotonic()
        output = _Output(on_line, _secrets({**os.environ, **spec.environment}))
        with tempfile.TemporaryDirectory(prefix="gristmill-launch-") as logs:
            process = _start(spec, logs)
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    output.take(line)
                code = process.wait()
            except BaseException:
                _stop(process, spec.grace_seconds, output)
                raise
            finally:
                _kill(process)
                process.stdout.close()
        if code:
            raise output.failure(code)
        return JobResult(seconds=time.monotonic() - started)


def _start(spec: JobSpec, logs: str) -> subprocess.Popen[str]:
    agent = ["--standalone", f"--nproc-per-node={spec.processes}", "--max-restarts=0"]
    # The role and --tee make torchrun put "[rank0]:" before each line that a rank writes.
    naming = ["--role=rank", "--tee=3", f"--log-dir={logs}"]
    defaults = {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "PYTHONUNBUFFERED": "1",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(spec.grace_seconds),
    }
    return subprocess.Popen(
        child_command("torch.distributed.run", [*agent, *naming, "-m", spec.module, *spec.arguments]),
        env={**os.environ, **defaults, **spec.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def _stop(process: subprocess.Popen[str], grace_seconds: int, output: "_Output") -> None:
    """SIGTERM to the agent alone: it forwards to the ranks and waits for them."""
    process.send_signal(signal.SIGTERM)
    stdout = process.stdout
    assert stdout is not None
    # The pipe is read on, so that ranks which are writing a checkpoint do not block on a full one.
    reader = threading.Thread(target=lambda: [output.take(line) for line in stdout], daemon=True)
    reader.start()
    try:
        process.wait(grace_seconds + 5)
    except subprocess.TimeoutExpired:
        logger.warning("the job did not stop within %d s and is killed", grace_seconds)
    _kill(process)
    reader.join(2)


def _kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to whatever is left of the agent's group; ranks follow through their death signal."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class _Output:
    """The job's lines: passes them on, and remembers the end of each rank's for the error message."""

    def __init__(self, on_line: Callable[[str], None], secrets: tuple[str, ...]) -> None:
        self._on_line, self._secrets = on_line, secrets
        self._last: dict[int, deque[str]] = {}
        self._agent: deque[str] = deque(maxlen=60)
        self._reported: GristmillError | None = None

    def take(self, line: str) -> None:
        line = redact(line.rstrip(), self._secrets)
        found = _RANK_LINE.match(line)
        if found is None:
            self._agent.append(line)
            return
        rank = int(found[1])
        text = found[2].removeprefix(f"[rank{rank}]: ")  # which torch puts before the lines of a traceback
        if text.startswith(FAILURE_MARK):
            self._reported = self._reported or _error_from(text.removeprefix(FAILURE_MARK))
            return
        self._last.setdefault(rank, deque(maxlen=_REMEMBERED_LINES)).append(text)
        self._on_line(f"[rank {rank}] {text}")

    def failure(self, code: int) -> GristmillError:
        """The error that a rank reported, or what can be said of the rank that failed first."""
        if self._reported:
            return self._reported
        rank, rank_code = self._first_failure()
        lines = list(self._last.get(rank, ())) if rank is not None else list(self._agent)[-5:]
        value = f"the job ended with code {code}" if rank is None else f"rank {rank} {_ending(rank_code)}"
        if lines and rank_code >= 0:
            value += "; its last lines:\n  " + "\n  ".join(lines) + "\n"
        return RunFailed(
            value,
            "a job ends well only if every process does",
            "Run the same command again: training goes on from the latest checkpoint",
        )

    def _first_failure(self) -> tuple[int | None, int]:
        """Rank and exit code under torchrun's heading "Root Cause (first observed failure)"."""
        lines = list(self._agent)
        heading = next((n for n, line in enumerate(lines) if line.startswith("Root Cause")), len(lines))
        ranks = [int(found[1]) for line in lines[heading:] if (found := _FIRST_FAILURE.match(line))]
        codes = [int(found[1]) for line in lines[heading:] if (found := _EXIT_CODE.match(line))]
        return (ranks[0], codes[0]) if ranks and codes else (None, 0)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    name = signal.Signals(-code).name
    hint = " (out of memory, or stopped from outside)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def _error_from(text: str) -> GristmillError:
    report = json.loads(text)
    return _ERRORS.get(report["type"], RunFailed)(report["value"], report["rule"], report["remedy"])


def redact(line: str, secrets: tuple[str, ...] = ()) -> str:
    """The line without the passwords of its URLs and without the given secrets."""
    line = re.sub(r"(\w+://[^\s:/@]*):[^\s/@]+@", r"\1:***@", line)
    for secret in secrets:
        line = line.replace(secret, "***")
    return line


def _secrets(environment: dict[str, str]) -> tuple[str, ...]:
    """Values of variables that by their name hold a secret; short values would redact ordinary words."""
    named = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|_KEY$|CREDENTIAL", re.IGNORECASE)
    return tuple(value for name, value in environment.items() if named.search(name) and len(value) >= 8)


@contextmanager
def reporting_failures() -> Iterator[None]:
    """Around the body of a rank: turns a GristmillError into one line for the launcher and its exit code."""
    die_with_parent(signal.SIGKILL)
    try:
        yield
    except GristmillError as error:
        logger.error("%s", error)
        report = {"type": type(error).__name__, "value": error.value, "rule": error.rule, "remedy": error.remedy}
        sys.stderr.write(f"{FAILURE_MARK}{json.dumps(report)}\n")
        sys.stderr.flush()
        _exit_now(error.exit_code)


def _exit_now(code: int) -> NoReturn:
    """Leave without the interpreter's clean-up, where a process group waits for ranks that are stopping too."""
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(code)
