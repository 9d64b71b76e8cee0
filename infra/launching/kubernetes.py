"""Jobs of ranks on Kubernetes, as TrainJobs of Kubeflow Trainer.

The TrainJob belongs to the cluster: it goes on if the flow that waits for it is killed, and as its name is made of the
run's folder, the next flow for that folder waits for the one that is there. Cancelling the flow deletes it: its pods
have the grace period to write a checkpoint. A TrainJob that succeeded is deleted too; one that failed stays, for its
pods' sake, until the next launch.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import urllib3

from infra.errors import BadInput, RunFailed
from infra.launching.job_record import JobRecord, job_name, require_same_job
from infra.launching.kubernetes_api import TrainJobs, reason
from infra.launching.launch import JobResult, JobSpec
from infra.launching.launcher_settings import KubernetesSettings
from infra.launching.ranks import RankOutput, secrets_of
from infra.launching.train_job import WORK, lost_fields, train_job

logger = logging.getLogger(__name__)
_OVERLAP_SECONDS = 5
"""By which two readings of a log overlap; lines are told apart by their times."""
_SILENCE_SECONDS = 600.0
"""How long the cluster may give no answer before waiting for a job ends; the job itself goes on."""
_DELETE_SECONDS = 120.0
"""Time in which the cluster removes what has stopped."""


class KubernetesLauncher:
    """Runs jobs on a cluster; see the module docstring."""

    def __init__(self, settings: KubernetesSettings) -> None:
        self._settings = settings

    def check(self, spec: JobSpec) -> None:
        """See that it fills nodes, that its manifest can be and that something says where the cluster is."""
        train_job(spec, self._settings, self._settings.shape(spec.processes))
        TrainJobs(self._settings.namespace)

    @contextmanager
    def room(self, spec: JobSpec) -> Iterator[None]:
        """See that no living TrainJob of the folder does something else."""
        self._require_room(TrainJobs(self._settings.namespace), spec)
        yield

    def handed_in(self, specs: Sequence[JobSpec]) -> AbstractContextManager[None]:
        """Each TrainJob is created in its turn."""
        return nullcontext()

    def run(self, spec: JobSpec, on_line: Callable[[str], None] = logger.info) -> JobResult:
        """Create the TrainJob, or find it, and wait for its end; RunFailed (or what its ranks reported) if it fails.

        BadInput where the cluster refuses it or does not answer.
        """
        started = time.monotonic()
        manifest = train_job(spec, self._settings, self._settings.shape(spec.processes))
        jobs, name = TrainJobs(self._settings.namespace), job_name(spec)
        output = RankOutput(on_line, secrets_of({**os.environ, **spec.environment}))
        lines = _PodLines(jobs, name, output)
        self._require_room(jobs, spec)
        try:
            self._create(jobs, manifest)
            ending, message = self._wait(jobs, name, lines)
        except BadInput:
            raise
        except BaseException:
            _stop(jobs, name, spec.grace_seconds, lines)
            raise
        if ending != "Complete":
            raise output.failure(f"TrainJob {name} ended ({ending}: {message})")
        jobs.delete(name)
        return JobResult(seconds=time.monotonic() - started)

    def _require_room(self, jobs: TrainJobs, spec: JobSpec) -> None:
        """RunFailed where a living TrainJob of the same name does something else; one that ended is removed.

        One that is being deleted, as by a flow that was cancelled, has its grace period first.
        """
        name = job_name(spec)
        found = jobs.get(name)
        if found is None:
            return
        if "deletionTimestamp" not in found["metadata"]:
            if _ending(found) is None:
                work = found["metadata"].get("annotations", {}).get(WORK, "")
                remove = f"kubectl delete trainjob -n {self._settings.namespace} {name}"
                require_same_job(spec, JobRecord(kind="kubernetes", id=name, work=work), remove)
                return
            jobs.delete(name)
        self._await_absence(jobs, name, spec.grace_seconds + _DELETE_SECONDS)

    def _await_absence(self, jobs: TrainJobs, name: str, seconds: float) -> None:
        """RunFailed where a TrainJob that is being deleted stays: pods may still write to the run's folder."""
        logger.info("TrainJob %s is being deleted; waiting %.0f s for its end", name, seconds)
        end = time.monotonic() + seconds
        while jobs.get(name) is not None:
            if time.monotonic() > end:
                raise RunFailed(
                    f"TrainJob {name} is being deleted and is still there after {seconds:.0f} s",
                    "one job at a time writes to a run's folder",
                    f"Look at its pods (kubectl get pods -n {self._settings.namespace}) and run the same command again",
                )
            time.sleep(min(1.0, self._settings.poll_seconds))

    def _create(self, jobs: TrainJobs, manifest: dict[str, Any]) -> None:
        """RunFailed where the cluster keeps less of the patch: pods would have no volume, or no time to stop."""
        name, created = manifest["metadata"]["name"], jobs.create(manifest)
        word = "there already" if created is None else "created"
        logger.info("TrainJob %s in namespace %s: %s", name, self._settings.namespace, word)
        patches = {"runtimePatches": manifest["spec"]["runtimePatches"]}
        if created is not None and (lost := lost_fields(patches, created["spec"])):
            raise RunFailed(
                f"the cluster drops {', '.join(lost)} from TrainJob {name}",
                "its pods need their volume, and time to write a checkpoint when they are stopped",
                "Install Kubeflow Trainer 2.3 or later on the cluster",
            )

    def _wait(self, jobs: TrainJobs, name: str, lines: "_PodLines") -> tuple[str, str]:
        """Pass lines on until the TrainJob has ended; returns the condition that says so, and its message."""
        silent_since: float | None = None
        while True:
            try:
                found, silent_since = jobs.get(name), None
            except BadInput as error:  # the cluster may be away for a while without harm to the job
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > _SILENCE_SECONDS:
                    raise
                logger.warning("TrainJob %s: %s", name, error.value)
                time.sleep(self._settings.poll_seconds)
                continue
            lines.pass_on()
            if found is None:
                return "Deleted", "someone removed it"
            if (ending := _ending(found)) is not None:
                return ending
            time.sleep(self._settings.poll_seconds)


class _PodLines:
    """The logs of a TrainJob's pods, of which new lines are passed on."""

    def __init__(self, jobs: TrainJobs, name: str, output: RankOutput) -> None:
        self._jobs, self._name, self._output = jobs, name, output
        self._last: dict[str, tuple[str, str]] = {}
        self._asked: dict[str, float] = {}

    def pass_on(self) -> None:
        """Hand over what was written since the last call; a cluster that does not answer is asked again later."""
        from kubernetes.client import ApiException

        try:
            for pod in self._jobs.pods(self._name):
                self._pass_on(pod)
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            logger.warning("lines of TrainJob %s: %s", self._name, reason(error))

    def _pass_on(self, pod: str) -> None:
        now = time.monotonic()
        before = self._asked.get(pod)
        text = self._jobs.log(pod, None if before is None else int(now - before) + _OVERLAP_SECONDS)
        self._asked[pod] = now
        for line in text.splitlines():
            stamp, _, said = line.partition(" ")
            whole, _, fraction = stamp.removesuffix("Z").partition(".")
            when = (whole, fraction.ljust(9, "0"))
            if when > self._last.get(pod, ("", "")):
                self._last[pod] = when
                self._output.take(said)


def _stop(jobs: TrainJobs, name: str, grace_seconds: int, lines: _PodLines) -> None:
    """Delete the TrainJob and read on until its pods are gone or their time is over."""
    end = time.monotonic() + grace_seconds + _DELETE_SECONDS
    try:
        jobs.delete(name)
        while jobs.get(name) is not None and time.monotonic() < end:
            lines.pass_on()
            time.sleep(1)
    except BadInput as error:  # what stopped the caller matters more
        logger.warning("TrainJob %s may still work: %s", name, error.value)
    if time.monotonic() > end:
        logger.warning("TrainJob %s was deleted and is still there after %d s", name, grace_seconds + _DELETE_SECONDS)


def _ending(job: dict[str, Any]) -> tuple[str, str] | None:
    """The condition with which a TrainJob has ended, and its message; None while it works."""
    for each in job.get("status", {}).get("conditions", []):
        if each["type"] in ("Complete", "Failed") and each["status"] == "True":
            return each["type"], each.get("message", "")
    return None
