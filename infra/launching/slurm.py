"""Jobs of ranks on a Slurm cluster, through submitit.

The job belongs to Slurm: it goes on if the flow that waits for it is killed, and the next flow for the same folder
waits for the job that is there instead of handing in a second one. Cancelling the flow makes the ranks write a
checkpoint and ends the job. Before its time limit, and when it has to make room or its node fails, the job is queued
again and goes on from its checkpoint; see `infra.launching.slurm_agent`. Accounting (sacct) is not needed.

Several jobs that are handed in together are one job array. Its records are written before it has a number, so that a
flow which was killed meanwhile finds its jobs by the array's name. Whoever stops one of them stops the array.

    FOLDER/model.train.lock          held by the flow that is about to hand in a job
    FOLDER/jobs/model.train.json     the job's number, until it has ended
    FOLDER/jobs/123_0_log.out        lines of its first node, without secrets; of the second one, 123_1_log.out
    FOLDER/jobs/123_submitted.pkl    submitit's files, and its job script
    FOLDER/jobs/123.stop             the launcher asked the job to stop
    FOLDER/jobs/124_3_0_log.out      of an array, all jobs' files lie in the folder of the first one
    FOLDER/jobs/124.stop             the launcher asked the whole array to stop
"""

import getpass
import logging
import os
import pickle
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from infra.errors import BadInput, GristmillError, RunFailed
from infra.launching.job_lines import JobLines
from infra.launching.job_record import (
    JobRecord,
    forget_job,
    job_name,
    jobs_folder,
    load_job,
    require_same_job,
    save_job,
    work_of,
)
from infra.launching.launch import JobResult, JobSpec
from infra.launching.launcher_settings import NodeShape, SlurmSettings
from infra.launching.ranks import RankOutput, secrets_of
from infra.launching.slurm_agent import NodeAgent
from infra.launching.slurm_commands import (
    GONE,
    LIVING,
    UNKNOWN,
    ask,
    jobs_named,
    require_slurm,
    state,
    state_and_reason,
)
from infra.launching.slurm_options import sbatch_options
from infra.lock import only_one
from infra.manifest import fingerprint
from infra.store import Store

logger = logging.getLogger(__name__)

_KILL_SECONDS = 90.0
"""Time in which Slurm ends a job that it was told to end."""
_SILENCE_SECONDS = 600.0
"""How long Slurm may give no answer before waiting for a job ends; the job itself goes on."""
_RESULT_SECONDS = 30.0
"""Time in which a file of a node becomes visible here."""


class SlurmLauncher:
    """Runs jobs on a cluster; see the module docstring."""

    def __init__(self, settings: SlurmSettings) -> None:
        self._settings = settings
        self._alone: ExitStack | None = None

    def check(self, spec: JobSpec) -> None:
        """See that it fills nodes, that Slurm is there and that a job's time lets it write a checkpoint."""
        self._settings.shape(spec.processes)
        require_slurm()
        require_time(spec, self._settings)

    def run(self, spec: JobSpec, on_line: Callable[[str], None] = logger.info) -> JobResult:
        """Hand in the job, or find it, and wait for its end; RunFailed (or what its ranks reported) if it ends badly.

        BadInput where Slurm refuses the settings or is not there.
        """
        started = time.monotonic()
        shape = self._settings.shape(spec.processes)
        output = RankOutput(on_line, secrets_of({**os.environ, **spec.environment}))
        with self._handing_in(spec) as alone:
            found = self._find(spec)
            if found is None and self._ended_well(spec, shape):
                forget_job(spec)
                return JobResult(seconds=time.monotonic() - started)
            job = found or self._submit(spec, shape)
            alone.close()
        lines = JobLines(_files(spec, job), job.id, shape.nodes, output, last_bytes=1 << 16 if found else None)
        if found:
            logger.info("job %s of Slurm is there already; its earlier lines are in %s", job.id, lines.paths[0])
        try:
            ended = self._wait(job.id, lines)
        except BaseException:
            self._stop(job, spec, lines)
            raise
        if ended == UNKNOWN:
            raise RunFailed(
                f"Slurm has told nothing of job {job.id} for {_SILENCE_SECONDS:.0f} s",
                "squeue must answer while a job is waited for",
                "Run the same command again when it does: the job goes on, and is found again",
            )
        forget_job(spec)
        if not _all_succeeded(_files(spec, job), job.id, shape.nodes, patient=ended == "COMPLETED"):
            raise _failure(output, job.id, ended)
        return JobResult(seconds=time.monotonic() - started)

    @contextmanager
    def room(self, spec: JobSpec) -> Iterator[None]:
        """See that no living job of the folder does something else, and none is about to end.

        Another flow that wants to hand in a job of the folder waits until this one has; then it finds that job.
        """
        with self._handing_in(spec):
            self._find(spec)
            yield

    @contextmanager
    def _handing_in(self, spec: JobSpec) -> Iterator[ExitStack]:
        """Keep other flows from handing in a job of the folder, to the block's end or until what is given is closed."""
        if self._alone is not None:
            yield self._alone
            return
        with ExitStack() as alone:
            alone.enter_context(_alone_in(spec))
            self._alone = alone
            try:
                yield alone
            finally:
                self._alone = None

    @contextmanager
    def handed_in(self, specs: Sequence[JobSpec]) -> Iterator[None]:
        """Hand in those that are not there yet as one array, for `run` to find; stopped if the block ends badly."""
        with ExitStack() as alone:
            for spec in sorted(specs, key=lambda each: each.folder):  # in one order, so that no two flows block
                alone.enter_context(_alone_in(spec))
            absent = [spec for spec in specs if self._find(spec) is None]
            alike = [spec for spec in absent if spec.processes == absent[0].processes]
            if len(alike) > 1:
                self._submit_array(alike)
        try:
            yield
        except BaseException:
            self._stop_all(specs)
            raise

    def _find(self, spec: JobSpec) -> JobRecord | None:
        """The job that works for the folder, by its record, or by its name if a flow was killed before it wrote one."""
        require_slurm()
        record = load_job(spec, "slurm")
        if record is not None and record.id.endswith("]"):
            record = _numbered(spec, record)
        if record is not None and state(record.id) in LIVING:
            if any(path.exists() for path in _stop_files(spec, record)):
                self._await_end(record.id, spec)
                return None
            require_same_job(spec, record, f"scancel {record.id}")
            return record
        found = jobs_named(job_name(spec))
        return save_job(spec, "slurm", found[0]) if found else None

    def _ended_well(self, spec: JobSpec, shape: NodeShape) -> bool:
        """Whether the job was done while nobody waited for it, as one of an array may be."""
        job = load_job(spec, "slurm")
        same = job is not None and job.work == work_of(spec)
        return job is not None and same and _all_succeeded(_files(spec, job), job.id, shape.nodes, patient=False)

    def _await_end(self, job: str, spec: JobSpec) -> None:
        """Wait for a job that an earlier flow asked to stop, and that may be writing a checkpoint."""
        logger.info("job %s of Slurm was asked to stop: waiting for its end", job)
        end = time.monotonic() + spec.grace_seconds + _KILL_SECONDS
        while state(job) in LIVING:
            if time.monotonic() > end:
                raise RunFailed(
                    f"job {job} of Slurm was asked to stop and works still",
                    "one job at a time writes to a run's folder",
                    f"End it with `scancel {job}`, and run the same command again",
                )
            time.sleep(self._settings.poll_seconds)

    def _submit(self, spec: JobSpec, shape: NodeShape) -> JobRecord:
        require_time(spec, self._settings)
        with _submitting(job_name(spec)):
            parameters = sbatch_options(spec, self._settings, shape)
            # Where the file system has no locks: two jobs of one folder wait for one another, by their name.
            parameters["additional_parameters"] = {"dependency": "singleton", **parameters["additional_parameters"]}
            executor = self._executor(jobs_folder(spec), parameters)
            job = executor.submit(NodeAgent(spec, shape, requeue=self._settings.requeues > 0))
            record = save_job(spec, "slurm", str(job.job_id))
        logger.info("job %s of Slurm: handed in for %d nodes", job.job_id, shape.nodes)
        return record

    def _submit_array(self, specs: Sequence[JobSpec]) -> None:
        require_time(specs[0], self._settings)
        settings, shape, folder = self._settings, self._settings.shape(specs[0].processes), jobs_folder(specs[0])
        name = f"gristmill-{fingerprint(folders=[spec.folder for spec in specs])[:10]}"
        for place, spec in enumerate(specs):
            save_job(spec, "slurm", f"{name}[{place}]", str(folder))
        several = {"job_name": name, "array_parallelism": settings.array_parallelism}
        with _submitting(name):
            executor = self._executor(folder, {**sbatch_options(specs[0], settings, shape), **several})
            with executor.batch():
                again = settings.requeues > 0
                jobs = [executor.submit(NodeAgent(spec, shape, again, str(folder))) for spec in specs]
            for spec, job in zip(specs, jobs, strict=True):
                save_job(spec, "slurm", str(job.job_id), str(folder))
        logger.info("jobs %s to %s of Slurm: handed in as one array", jobs[0].job_id, jobs[-1].job_id)

    def _executor(self, folder: Path, parameters: dict[str, Any]) -> Any:
        import submitit

        settings = self._settings
        executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=settings.requeues, python=settings.python)
        executor.update_parameters(**parameters)
        return executor

    def _wait(self, job: str, lines: JobLines) -> str:
        """Pass lines on until the job has ended; returns its last state, or UNKNOWN after a long silence of Slurm."""
        before, ended, answered = ("", ""), 0, time.monotonic()
        while ended < 2:  # a job that is queued again looks for a moment as if it had ended
            now, reason = state_and_reason(job)
            lines.pass_on()
            if now == "PENDING" and before[0] not in ("", now):
                lines.begin_again()
            if (now, reason) != before:
                logger.info("job %s of Slurm: %s%s", job, now.lower(), f" ({reason})" if reason else "")
            if now != UNKNOWN:
                answered = time.monotonic()
            elif time.monotonic() - answered > _SILENCE_SECONDS:
                return now
            ended = 0 if now in LIVING else 2 if now in ("COMPLETED", GONE) else ended + 1
            before = (now, reason)
            if ended < 2:
                time.sleep(self._settings.poll_seconds)
        lines.pass_on(last=True)
        return before[0]

    def _stop(self, job: JobRecord, spec: JobSpec, lines: JobLines) -> None:
        """SIGTERM to the ranks, then the end of the job once they have written a checkpoint or their time is over."""
        try:
            running = state(job.id) == "RUNNING"
            _tell(job, spec)
            if running and not self._has_ended(job.id, lines, spec.grace_seconds + 5):
                logger.warning("job %s did not stop within %d s and is ended", job.id, spec.grace_seconds)
        finally:  # at once, where a second interruption ends the waiting
            ask(["scancel", job.id])
        if not self._has_ended(job.id, lines, _KILL_SECONDS):
            logger.warning("job %s of Slurm has still not ended", job.id)
            return
        forget_job(spec)

    def _stop_all(self, specs: Sequence[JobSpec]) -> None:
        """The same for several, whose lines nobody reads."""
        jobs = [(spec, job) for spec in specs if (job := load_job(spec, "slurm")) and state(job.id) in LIVING]
        for spec, job in jobs:
            _tell(job, spec)
        try:
            self._await_all(jobs, max((spec.grace_seconds for spec in specs), default=0) + 5)
        finally:
            if jobs:
                ask(["scancel", *(job.id for _, job in jobs)])
        self._await_all(jobs, _KILL_SECONDS)

    def _await_all(self, jobs: Sequence[tuple[JobSpec, JobRecord]], seconds: float) -> None:
        end = time.monotonic() + seconds
        while any(state(job.id) in LIVING for _, job in jobs) and time.monotonic() < end:
            time.sleep(self._settings.poll_seconds)

    def _has_ended(self, job: str, lines: JobLines, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while (now := state(job)) in LIVING and time.monotonic() < end:
            lines.pass_on()
            time.sleep(min(1.0, self._settings.poll_seconds))
        lines.pass_on(last=True)
        return now not in LIVING


def require_time(spec: JobSpec, settings: SlurmSettings) -> None:
    """BadInput where Slurm would end the job before its ranks have written a checkpoint and it is queued again."""
    warning, limit, needed = settings.warning_seconds, settings.minutes * 60, spec.grace_seconds + 30
    if warning < needed or limit <= warning + needed:
        raise BadInput(
            f"environment.launcher.warning_seconds = {warning} and minutes = {settings.minutes}",
            f"the warning comes at least {needed} s before the limit: ranks have {spec.grace_seconds} s to write a "
            "checkpoint (training.checkpoint.grace_seconds); and the limit leaves time to train",
            f"Set warning_seconds to {max(warning, needed)} or more, minutes to more than "
            f"{(max(warning, needed) + needed) // 60}",
        )


def _files(spec: JobSpec, job: JobRecord) -> Path:
    return Path(job.files) if job.files else jobs_folder(spec)


def _stop_files(spec: JobSpec, job: JobRecord) -> list[Path]:
    """Where the job, and an array that it is of, are asked to stop; the last one is meant for all that belong to it."""
    array = [_files(spec, job) / f"{job.id.partition('_')[0]}.stop"] if job.files else []
    return [jobs_folder(spec) / f"{job.id}.stop", *array]


def _tell(job: JobRecord, spec: JobSpec) -> None:
    """Have ranks write a checkpoint and end, of all jobs of an array; those that wait for their turn end at once."""
    if (asked := _stop_files(spec, job)[-1]).exists():
        return  # a second SIGTERM would have agents leave their ranks alone
    asked.touch()
    number = job.id.partition("_")[0]
    ask(["scancel", "--state=PENDING", number])
    ask(["scancel", "--state=RUNNING", "--signal=TERM", number])


def _numbered(spec: JobSpec, record: JobRecord) -> JobRecord | None:
    """The job of a record that was written before its array had a number; None if it was never handed in, or ended."""
    name, _, place = record.id.removesuffix("]").partition("[")
    found = [job for job in jobs_named(name) if job.endswith(f"_{place}")]
    if not found:
        return None
    require_same_job(spec, record, f"scancel {found[0]}")
    return save_job(spec, "slurm", found[0], record.files)


def _alone_in(spec: JobSpec) -> AbstractContextManager[int]:
    """Until it is left no other flow gets here; one that does waits for as long as the end of a job may take."""
    what, seconds = f"handing in {spec.module} in {spec.folder}", spec.grace_seconds + 2 * _KILL_SECONDS
    return only_one(Store(spec.folder), f"{spec.module}.lock", what, seconds)


@contextmanager
def _submitting(name: str) -> Iterator[None]:
    """BadInput where Slurm refuses a job; none is left where it is cancelled before its number is written down."""
    from submitit.core.utils import FailedJobError

    try:
        yield
    except (FailedJobError, subprocess.CalledProcessError) as error:
        raise BadInput(
            f"environment.launcher ({str(error).strip().splitlines()[-1]})",
            "Slurm must accept the job",
            "Correct the settings; `sinfo` lists partitions, and `sacctmgr show assoc` accounts",
        ) from error
    except BaseException:
        ask(["scancel", f"--user={getpass.getuser()}", f"--name={name}"])
        raise


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
