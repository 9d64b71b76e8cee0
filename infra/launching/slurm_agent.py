"""What runs in a job of Slurm, once on each node: a torchrun agent, and what signals mean to it.

- SIGUSR2, some time before the time limit: the ranks write a checkpoint and the first node queues the job again.
- SIGTERM without being asked for by the launcher, which is how Slurm makes room for another job: the same.
- SIGTERM after the launcher wrote the stop file: the ranks write a checkpoint and the job ends.

Slurm sends a signal to every process of a job's step, so the agents and ranks hear SIGTERM by themselves; SIGUSR2 is
ignored by all of them but this one. submitit loads this class on the node and has handlers of its own, which note a
SIGTERM and answer SIGUSR2 by calling `checkpoint`.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

from infra.child import child_command
from infra.errors import RunFailed
from infra.launching.launch import JobSpec, agent_arguments, agent_environment
from infra.launching.launcher_settings import NodeShape
from infra.launching.ranks import RedactedLines, secrets_of

logger = logging.getLogger(__name__)
_POLL_SECONDS = 0.2
_SIGNALS_APART_SECONDS = 5.0
"""Nodes may hear of the same signal that long after one another."""
_LINES_SECONDS = 5.0


class NodeAgent:
    """A function for submitit; its state is pickled when it is submitted and when the job is queued again."""

    def __init__(self, spec: JobSpec, shape: NodeShape, requeue: bool, files: str = "") -> None:
        """`files` is the folder of the job's files, where the job is one of an array."""
        self._spec, self._shape, self._requeue, self._files = spec, shape, requeue, files
        self._agent: subprocess.Popen[str] | None = None
        self._lines: RedactedLines | None = None
        self._heard: set[int] = set()
        self._agent_knows = False

    def __call__(self) -> None:
        """Run the node's ranks to their end; RunFailed if one of them fails."""
        queue_again: Any = signal.getsignal(signal.SIGUSR2)  # submitit's: calls `checkpoint` on the first node
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, self._note)
        if self._is_asked_to_stop:
            raise RunFailed("the job", "it was asked to stop before it started", "Run the same command again")
        with tempfile.TemporaryDirectory(prefix="gristmill-launch-") as logs:
            self._agent = self._start(logs)
            if self._heard:  # before there was an agent to hear it
                self._tell(self._agent)
            while (code := self._agent.poll()) is None:
                if signal.SIGUSR2 in self._heard and self._is_first:
                    queue_again(signal.SIGUSR2, None)
                time.sleep(_POLL_SECONDS)
            self._await_lines()
        if code and self._is_wished_for():
            if self._is_first and _is_running():
                queue_again(signal.SIGUSR2, None)
            # Were this node to end with an error, srun would end the first one before it has queued the job again.
            time.sleep(self._spec.grace_seconds + 60)
        if code:
            raise RunFailed(
                f"torchrun ended with code {code}", "a job ends well only if every process does", "Read the lines above"
            )

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._heard.add(number)
        self._agent_knows |= number == signal.SIGTERM and self._agent is not None

    def _tell(self, agent: "subprocess.Popen[str]") -> None:
        """Have the agent stop its ranks; a second SIGTERM would make it leave them alone."""
        if not self._agent_knows:
            self._agent_knows = True
            agent.send_signal(signal.SIGTERM)

    def checkpoint(self) -> Any:
        """What submitit queues again, once the ranks have stopped; None where it shall not be."""
        import submitit

        if self._agent is not None:
            self._tell(self._agent)
            self._wait_for_ranks(self._agent)
        if not self._requeue or self._is_asked_to_stop:
            return None
        return submitit.helpers.DelayedSubmission(NodeAgent(self._spec, self._shape, self._requeue, self._files))

    @property
    def _is_first(self) -> bool:
        return os.environ["SLURM_NODEID"] == "0"

    @property
    def _is_asked_to_stop(self) -> bool:
        """By a file of the launcher, for this job or for the array that it is of."""
        array, place = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        name = f"{array}_{place}" if array else os.environ["SLURM_JOB_ID"]
        files = [Path(self._spec.folder) / "jobs" / f"{name}.stop"]
        files += [Path(self._files) / f"{array}.stop"] if array else []
        return any(path.exists() for path in files)

    def _start(self, logs: str) -> subprocess.Popen[str]:
        # srun runs on the first node; its address is one that Slurm itself uses between nodes.
        port = 15000 + int(os.environ["SLURM_JOB_ID"]) % 15000
        meeting = [
            f"--nnodes={self._shape.nodes}",
            f"--node-rank={os.environ['SLURM_NODEID']}",
            f"--nproc-per-node={self._shape.processes_per_node}",
            "--rdzv-backend=c10d",
            f"--rdzv-id={os.environ['SLURM_JOB_ID']}",
            f"--rdzv-endpoint={os.environ['SLURM_LAUNCH_NODE_IPADDR']}:{port}",
            f"--rdzv-conf=is_host={int(self._is_first)}",
        ]
        environment = {**os.environ, **agent_environment(self._spec)}
        agent = subprocess.Popen(
            child_command("torch.distributed.run", agent_arguments(self._spec, meeting, logs)),
            env=environment,
            stdout=subprocess.PIPE,  # Slurm writes what this process says into a file
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=_ignore_warnings,
        )
        assert agent.stdout is not None
        self._lines = RedactedLines(agent.stdout, sys.stdout, secrets_of(environment))
        return agent

    def _wait_for_ranks(self, agent: subprocess.Popen[str]) -> None:
        try:
            agent.wait(self._spec.grace_seconds + 5)
        except subprocess.TimeoutExpired:
            logger.warning("the ranks did not stop within %d s and are killed", self._spec.grace_seconds)
            agent.kill()  # the ranks follow through their death signal
            agent.wait()
        self._await_lines()

    def _await_lines(self) -> None:
        """The last ones, after the agent's end; something that it has left behind may keep the other end open."""
        if self._lines is not None:
            self._lines.join(_LINES_SECONDS)

    def _is_wished_for(self) -> bool:
        """Whether ranks that ended were told to by Slurm, to go on later."""
        if not self._is_first and not self._heard:
            time.sleep(_SIGNALS_APART_SECONDS)
        return bool(self._heard) and self._requeue and not self._is_asked_to_stop


def _ignore_warnings() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _is_running() -> bool:
    """Whether Slurm holds this job for running, which it does not when a person cancelled it."""
    asked = ["squeue", "--noheader", "--format=%T", f"--jobs={os.environ['SLURM_JOB_ID']}"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == "RUNNING"
