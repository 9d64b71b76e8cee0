"""Jobs of ranks on a Slurm cluster, through submitit.

The job belongs to Slurm: it goes on if the flow that waits for it is killed, and the next flow for the same folder
waits for the job that is there instead of handing in a second one. Cancelling the flow makes the ranks write a
checkpoint and ends the job. Before its time limit, and when it has to make room or its node fails, the job is queued
again and goes on from its checkpoint; see `infra.launching.slurm_agent`. Accounting (sacct) is not needed.

    FOLDER/jobs/model.train.json     the job's number, until it has ended
    FOLDER/jobs/123_0_log.out        lines of its first node; of the second one, 123_1_log.out
    FOLDER/jobs/123_submitted.pkl    submitit's files, and its job script
    FOLDER/jobs/123.stop             the launcher asked the job to stop
"""

import getpass
import importlib.util
import logging
import os
import pickle
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.errors import BadInput, GristmillError, RunFailed
from infra.launching.job_record import forget_job, job_name, jobs_folder, load_job, require_same_job, save_job
from infra.launching.launch import JobResult, JobSpec
from infra.launching.launcher_settings import NodeShape, SlurmSettings
from infra.launching.ranks import RankOutput, secrets_of
from infra.launching.slurm_agent import NodeAgent

logger = logging.getLogger(__name__)

_LIVING = {"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "RESIZING"}
_LIVING |= {"SIGNALING", "STAGE_OUT", "STOPPED", "SPECIAL_EXIT", "REQUEUE_FED", "UNKNOWN"}
_GONE = "GONE"
"""A number that Slurm no longer knows: it forgets ended jobs after MinJobAge, often five minutes."""
_KILL_SECONDS = 90.0
"""Time in which Slurm ends a job that it was told to end."""
_RESULT_SECONDS = 30.0
"""Time in which a file of a node becomes visible here."""


class SlurmLauncher:
    """Runs jobs on a cluster; see the module docstring."""

    def __init__(self, settings: SlurmSettings) -> None:
        self._settings = settings

    def run(self, spec: JobSpec, on_line: Callable[[str], None] = logger.info) -> JobResult:
        """Hand in the job, or find it, and wait for its end; RunFailed (or what its ranks reported) if it ends badly.

        BadInput where Slurm refuses the settings or is not there.
        """
        started = time.monotonic()
        shape = self._settings.shape(spec.processes)
        output = RankOutput(on_line, secrets_of({**os.environ, **spec.environment}))
        job = self._find(spec)
        if job is None:
            job = self._submit(spec, shape)
            save_job(spec, "slurm", job)
            logger.info("job %s of Slurm: handed in for %d nodes", job, shape.nodes)
            lines = JobLines(jobs_folder(spec), job, shape.nodes, output)
        else:
            save_job(spec, "slurm", job)
            lines = JobLines(jobs_folder(spec), job, shape.nodes, output, last_bytes=1 << 16)
            logger.info("job %s of Slurm is there already; its earlier lines are in %s", job, lines.paths[0])
        try:
            state = self._wait(job, lines)
        except BaseException:
            self._stop(job, spec, lines)
            raise
        forget_job(spec)
        if not _all_succeeded(jobs_folder(spec), job, shape.nodes, patient=state == "COMPLETED"):
            raise _failure(output, job, state)
        return JobResult(seconds=time.monotonic() - started)

    def _find(self, spec: JobSpec) -> str | None:
        """The job that works for the folder, by its record, or by its name if a flow was killed before it wrote one."""
        _require_slurm()
        record = load_job(spec, "slurm")
        if record is not None and _state(record.id) in _LIVING:
            if (jobs_folder(spec) / f"{record.id}.stop").exists():
                self._await_end(record.id, spec)
                return None
            require_same_job(spec, record, f"scancel {record.id}")
            return record.id
        named = ["squeue", "--me", "--noheader", "--format=%i", "--states=PENDING,CONFIGURING,RUNNING,SUSPENDED"]
        found = _ask([*named, f"--name={job_name(spec)}"]).stdout.split()
        return found[0] if found else None

    def _await_end(self, job: str, spec: JobSpec) -> None:
        """Wait for a job that an earlier flow asked to stop, and that may be writing a checkpoint."""
        logger.info("job %s of Slurm was asked to stop: waiting for its end", job)
        end = time.monotonic() + spec.grace_seconds + _KILL_SECONDS
        while _state(job) in _LIVING:
            if time.monotonic() > end:
                raise RunFailed(
                    f"job {job} of Slurm was asked to stop and works still",
                    "one job at a time writes to a run's folder",
                    f"End it with `scancel {job}`, and run the same command again",
                )
            time.sleep(self._settings.poll_seconds)

    def _submit(self, spec: JobSpec, shape: NodeShape) -> str:
        import submitit
        from submitit.core.utils import FailedJobError

        settings = self._settings
        executor = submitit.SlurmExecutor(
            folder=jobs_folder(spec), max_num_timeout=settings.requeues, python=settings.python
        )
        executor.update_parameters(**_parameters(spec, settings, shape))
        try:
            return str(executor.submit(NodeAgent(spec, shape, requeue=settings.requeues > 0)).job_id)
        except (FailedJobError, subprocess.CalledProcessError) as error:
            raise BadInput(
                f"environment.launcher ({str(error).strip().splitlines()[-1]})",
                "Slurm must accept the job",
                "Correct the settings; `sinfo` lists partitions, and `sacctmgr show assoc` accounts",
            ) from error
        except BaseException:  # cancelled while it was handed in: its number is not known yet
            _ask(["scancel", f"--user={getpass.getuser()}", f"--name={job_name(spec)}"])
            raise

    def _wait(self, job: str, lines: "JobLines") -> str:
        """Pass lines on until the job has ended; returns its last state."""
        before, ended = "", 0
        while ended < 2:  # a job that is queued again looks for a moment as if it had ended
            state = _state(job)
            lines.pass_on()
            if state != before:
                logger.info("job %s of Slurm: %s", job, state.lower())
            ended = 0 if state in _LIVING else 2 if state in ("COMPLETED", _GONE) else ended + 1
            before = state
            if ended < 2:
                time.sleep(self._settings.poll_seconds)
        lines.pass_on(last=True)
        return before

    def _stop(self, job: str, spec: JobSpec, lines: "JobLines") -> None:
        """SIGTERM to the ranks, then the end of the job once they have written a checkpoint or their time is over."""
        (jobs_folder(spec) / f"{job}.stop").touch()
        try:
            if _state(job) == "RUNNING":
                _ask(["scancel", "--signal=TERM", job])
                if not self._has_ended(job, lines, spec.grace_seconds + 5):
                    logger.warning("job %s did not stop within %d s and is ended", job, spec.grace_seconds)
        finally:  # at once, where a second interruption ends the waiting
            _ask(["scancel", job])
        if not self._has_ended(job, lines, _KILL_SECONDS):
            logger.warning("job %s of Slurm has still not ended", job)
            return
        forget_job(spec)

    def _has_ended(self, job: str, lines: "JobLines", seconds: float) -> bool:
        end = time.monotonic() + seconds
        while (state := _state(job)) in _LIVING and time.monotonic() < end:
            lines.pass_on()
            time.sleep(min(1.0, self._settings.poll_seconds))
        lines.pass_on(last=True)
        return state not in _LIVING


class JobLines:
    """The log files of a job's nodes, of which new lines are passed on."""

    def __init__(self, folder: Path, job: str, nodes: int, output: RankOutput, last_bytes: int | None = None) -> None:
        """`last_bytes` leaves out what stands before the end of the files as they are now."""
        self.paths = [folder / f"{job}_{node}_log.out" for node in range(nodes)]
        self._output = output
        self._read = dict.fromkeys(self.paths, 0)
        self._rest = dict.fromkeys(self.paths, b"")
        if last_bytes is not None:
            sizes = {path: path.stat().st_size for path in self.paths if path.exists()}
            self._read |= {path: max(0, size - last_bytes) for path, size in sizes.items()}

    def pass_on(self, last: bool = False) -> None:
        """Hand over the lines written since the last call; what is no whole line yet waits, unless it is the last."""
        for path in self.paths:
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(self._read[path])
                new = file.read()
            self._read[path] += len(new)
            *whole, self._rest[path] = (self._rest[path] + new).split(b"\n")
            if last and self._rest[path]:
                whole.append(self._rest[path])
                self._rest[path] = b""
            for line in whole:
                self._output.take(line.decode(errors="replace"))


def _parameters(spec: JobSpec, settings: SlurmSettings, shape: NodeShape) -> dict[str, Any]:
    """Options of sbatch as submitit names them. Variables go to the job from this process, never into its script."""
    given = {
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "mem": f"{settings.memory_gib}G" if settings.memory_gib else None,
        "gpus_per_node": shape.processes_per_node if settings.gpus else None,
        "cpus_per_task": settings.cpus_per_process * shape.processes_per_node if settings.cpus_per_process else None,
        "exclusive": settings.exclusive or None,
        "setup": list(settings.setup) or None,
    }
    return {
        "job_name": job_name(spec),
        "time": settings.minutes,
        "nodes": shape.nodes,
        "ntasks_per_node": 1,
        "signal_delay_s": settings.warning_seconds,
        "stderr_to_stdout": True,
        # Ranks of other nodes wait long for one that is gone, so the job ends, and is queued again, as a whole.
        "srun_args": ["--kill-on-bad-exit=1"],
        "additional_parameters": {"requeue" if settings.requeues else "no-requeue": True, **settings.options},
        **{name: value for name, value in given.items() if value is not None},
    }


def _require_slurm() -> None:
    if importlib.util.find_spec("submitit") is None:
        raise BadInput(
            "environment.launcher.kind = slurm", "it needs submitit", "Install it: pip install 'gristmill[slurm]'"
        )
    if missing := [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]:
        raise BadInput(
            f"environment.launcher.kind = slurm without {', '.join(missing)}",
            "jobs are handed in with Slurm's commands",
            "Run where Slurm's commands are on the PATH, such as a login node",
        )


def _ask(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def _state(job: str) -> str:
    """The job's state in Slurm's words; UNKNOWN while Slurm does not answer."""
    try:
        asked = _ask(["squeue", "--noheader", f"--jobs={job}", "--states=all", "--format=%T"])
    except subprocess.TimeoutExpired:
        return "UNKNOWN"
    if asked.returncode == 0:
        return (asked.stdout.split() or [_GONE])[0]
    return _GONE if "Invalid job id" in asked.stderr else "UNKNOWN"


def _all_succeeded(folder: Path, job: str, nodes: int, patient: bool) -> bool:
    """Whether every node's function returned, by the files that submitit writes at its end."""
    results = [folder / f"{job}_{node}_result.pkl" for node in range(nodes)]
    end = time.monotonic() + (_RESULT_SECONDS if patient else 0)
    while not all(path.exists() for path in results) and time.monotonic() < end:
        time.sleep(0.5)
    return all(path.exists() and pickle.loads(path.read_bytes())[0] == "success" for path in results)  # noqa: S301


def _failure(output: RankOutput, job: str, state: str) -> GristmillError:
    ending = f"job {job} of Slurm ended ({state.lower()})"
    if state == "CANCELLED":
        return RunFailed(
            f"job {job} of Slurm was cancelled",
            "a job ends well only if every process does",
            "Run the same command again: training goes on from the latest checkpoint",
        )
    return output.failure(ending)
