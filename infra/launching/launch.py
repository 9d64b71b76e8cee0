"""Starting a job of several processes, watching it, and stopping it without leaving any of them behind.

`LocalLauncher` runs `torchrun` on this machine: an *agent* process that starts the *ranks*. Whatever stops the caller
(a cancelled flow, an interrupt) becomes SIGTERM to the agent, which forwards it to the ranks so that they can write a
checkpoint; what is left after the grace period is killed. If the caller itself is killed, Linux delivers the SIGTERM
(`PR_SET_PDEATHSIG`), and a rank never outlives its agent.

Where jobs run elsewhere, the same agents run there: see `slurm` and `kubernetes` beside this module; `launchers` has
the choice.
"""

import logging
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from pydantic import Field

from infra.child import LINGER, child_command
from infra.launching.ranks import LINE_PREFIX, RankOutput, secrets_of
from infra.lock import only_one
from infra.settings import Settings
from infra.store import Store

logger = logging.getLogger(__name__)
_LINGER_SECONDS = 30
"""After its ranks' grace period an agent that lost its parent is ended."""


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
    folder: str = ""
    """Folder that the job writes to and that every node sees, where it is known: launchers of other machines keep the
    number of the job and its lines under it, so that there is one job at a time and it can be found again."""


class JobResult(Settings):
    """A job that ended well."""

    seconds: float
    """Wall time from start to end, with the start of the processes."""


class Launcher(Protocol):
    """Runs a job to its end; on any BaseException it stops the job first."""

    def check(self, spec: JobSpec) -> None:
        """BadInput where such a job could not be started; nothing is, and none of its files need be there yet."""
        ...

    def room(self, spec: JobSpec) -> AbstractContextManager[None]:
        """Around what is written for a job, and its `run`: RunFailed where another one works in the folder."""
        ...

    def run(self, spec: JobSpec, on_line: Callable[[str], None]) -> JobResult:
        """Block until the job ends; RunFailed (or what the ranks reported) if it ends badly."""
        ...

    def handed_in(self, specs: Sequence[JobSpec]) -> AbstractContextManager[None]:
        """Around `run` of jobs that need nothing of one another: a cluster may begin with all of them at once.

        What is left of them is stopped on any BaseException in the block.
        """
        ...


class LocalLauncher:
    """Runs jobs on this machine; see the module docstring."""

    def __init__(self) -> None:
        self._lock: int | None = None

    def check(self, spec: JobSpec) -> None:
        """Any job can be started; what its ranks lack they say."""

    @contextmanager
    def room(self, spec: JobSpec) -> Iterator[None]:
        """Wait for a job of the folder that is about to end; agents hold its lock too, and outlive a killed caller."""
        if self._lock is not None or not spec.folder:
            yield
            return
        patience = spec.grace_seconds + _LINGER_SECONDS + 10
        with only_one(Store(spec.folder), f"{spec.module}.lock", f"{spec.module} in {spec.folder}", patience) as lock:
            self._lock = lock
            try:
                yield
            finally:
                self._lock = None

    def handed_in(self, specs: Sequence[JobSpec]) -> AbstractContextManager[None]:
        """Nothing begins before its turn: one job has all of the machine."""
        return nullcontext()

    def run(self, spec: JobSpec, on_line: Callable[[str], None] = logger.info) -> JobResult:
        """Start, stream each line of the ranks without its secrets, and wait."""
        started = time.monotonic()
        output = RankOutput(on_line, secrets_of({**os.environ, **spec.environment}))
        with self.room(spec), tempfile.TemporaryDirectory(prefix="gristmill-launch-") as logs:
            process = _start(spec, logs, self._lock)
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    output.take(line)
                code = process.wait()
            except BaseException:
                with _told_once():
                    _stop(process, spec.grace_seconds, output)
                raise
            finally:
                _kill(process)
                process.stdout.close()
        if code:
            raise output.failure(f"the job ended with code {code}")
        return JobResult(seconds=time.monotonic() - started)


def _start(spec: JobSpec, logs: str, lock: int | None) -> subprocess.Popen[str]:
    meeting = ["--standalone", f"--nproc-per-node={spec.processes}"]
    return subprocess.Popen(
        child_command("torch.distributed.run", agent_arguments(spec, meeting, logs)),
        env={**os.environ, **agent_environment(spec)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        pass_fds=() if lock is None else (lock,),
    )


def agent_arguments(spec: JobSpec, meeting: Sequence[str], logs: str | None = None) -> list[str]:
    """Command line of the agent of one node; `meeting` says how many ranks it starts and where agents meet."""
    # The role and --tee make torchrun put "[rank0]:" before each line that a rank writes.
    naming = ["--role=rank", "--tee=3", *([f"--log-dir={logs}"] if logs else [])]
    return [*meeting, "--max-restarts=0", *naming, "-m", spec.module, *spec.arguments]


def agent_environment(spec: JobSpec) -> dict[str, str]:
    """Variables of an agent and its ranks beside those of the process that starts it."""
    defaults = {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "PYTHONUNBUFFERED": "1",
        "TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE": LINE_PREFIX,
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(spec.grace_seconds),
        LINGER: str(spec.grace_seconds + _LINGER_SECONDS),
    }
    return {**defaults, **spec.environment}


@contextmanager
def _told_once() -> Iterator[None]:
    """Ignore SIGTERM: another one, of `gristmill down` after a cancellation, say, would kill ranks that still write."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _stop(process: subprocess.Popen[str], grace_seconds: int, output: RankOutput) -> None:
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
