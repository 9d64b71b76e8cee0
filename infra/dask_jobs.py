"""Dask workers in jobs of a batch system: how many jobs there are to be, and which have ended.

Distributed counts workers. It takes a job whose time is over for one that is still to come, never replaces it, and
cuts jobs in two where they hold several workers. So whole jobs are counted here, and those that have ended are not.
"""

import logging
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dask.config
from dask.utils import parse_timedelta
from distributed import Adaptive, SpecCluster, Status
from distributed.scheduler import WorkerState

logger = logging.getLogger(__name__)
_START_SECONDS = 600.0
"""Time in which a job that has begun shows its first worker; one that cannot reach the scheduler gives up earlier."""


def _job_of(worker: str) -> str:
    """The job of a worker that has others beside it: NAME of NAME-3."""
    return worker.rpartition("-")[0]


def _job_of_state(worker: WorkerState) -> str:
    return _job_of(str(worker.name))


class JobScaling(Adaptive):
    """Keeps between `minimum` and `maximum` jobs of so many `processes` each, and replaces those that have ended.

    Which have ended is not asked of the batch system, as each has its own way to say it. A job has if its workers were
    there and none has been for the lost-worker-timeout of Dask's settings, in which a worker that was killed is back,
    or if it was not taken so long ago, or if it has begun, as a mark of its own says, and shows no worker. A job that
    waits in the queue has no mark yet, and is left alone.
    """

    cluster: SpecCluster

    def __init__(self, cluster: SpecCluster, processes: int, marks: Path, minimum: int, maximum: int) -> None:
        """`marks` is a folder with a file for each job that has begun, named as `Job.job_id`."""
        self._processes, self._marks = processes, marks
        self._last_seen: dict[str, float] = {}
        self._begun: dict[str, float] = {}
        self._patience = parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout"))
        key = _job_of_state if processes > 1 else None
        super().__init__(cluster, minimum=minimum, maximum=maximum, worker_key=key)

    @property
    def plan(self) -> set[str]:
        """Jobs that are to be there."""
        return set(self.cluster.worker_spec)

    @property
    def requested(self) -> set[str]:
        """Those that were handed in."""
        return self.plan & set(self.cluster.workers)

    @property
    def observed(self) -> set[str]:
        """Those of which a worker is there."""
        return self.plan & self._jobs(self.cluster.observed)

    async def target(self) -> int:
        """As many jobs as the work wants."""
        return math.ceil(await super().target() / self._processes)

    async def recommendations(self, target: int) -> dict[str, Any]:
        """What to do about the number of jobs, once those that have ended are out of it."""
        if ended := self._ended():
            names = ", ".join(sorted(ended))
            logger.warning("jobs of Dask workers have ended, or show no worker, and are replaced: %s", names)
            await self.cluster.scale_down(ended)
        return await super().recommendations(target)

    async def workers_to_close(self, target: int) -> list[str]:
        """Jobs that cost the least to close."""
        return sorted(self._jobs(await super().workers_to_close(target * self._processes)))

    async def scale_down(self, workers: Iterable[str]) -> None:
        """End jobs, after their workers have handed over what they hold."""
        suffixes = {job: self.cluster.worker_spec[job].get("group", ()) for job in workers if job in self.plan}
        await super().scale_down([*suffixes, *(job + each for job in suffixes for each in suffixes[job])])

    async def scale_up(self, n: int) -> None:
        """Hand in jobs until there are so many."""
        await super().scale_up(n * self._processes)

    def _jobs(self, workers: Iterable[str]) -> set[str]:
        return {_job_of(each) if self._processes > 1 else each for each in workers}

    def _ended(self) -> set[str]:
        now, plan, there, handed_in = time.monotonic(), self.plan, self.observed, self.cluster.workers
        self._last_seen |= dict.fromkeys(there, now)
        for job in plan & set(handed_in):
            if handed_in[job].status == Status.created:  # the batch system did not take it
                self._last_seen.setdefault(job, now)
        ended = {
            job
            for job, seen in self._last_seen.items()
            if job not in there and (job not in handed_in or now - seen > self._patience)
        }
        ended |= self._without_workers(now)
        # The next job may have the name of one that has ended.
        self._last_seen = {job: seen for job, seen in self._last_seen.items() if job in plan - ended}
        return ended & plan

    def _without_workers(self, now: float) -> set[str]:
        """Jobs that have begun, and have not shown a worker since."""
        unseen = {str(self.cluster.workers[job].job_id): job for job in self.requested - set(self._last_seen)}
        began = unseen.keys() & self._marked() if unseen else set()
        self._begun = {number: self._begun.get(number, now) for number in began}
        return {unseen[number] for number, since in self._begun.items() if now - since > _START_SECONDS}

    def _marked(self) -> set[str]:
        try:
            return {mark.name for mark in self._marks.iterdir()}
        except OSError as error:  # for which Distributed would look at jobs no more
            logger.warning("which jobs of Dask workers have begun is not known: %s", error)
            return set(self._begun)
