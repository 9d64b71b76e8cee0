"""Jobs of Dask workers: what has ended is replaced, and whole jobs come and go."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.config
import pytest
from distributed import Client, Worker
from distributed.deploy.spec import ProcessInterface

from infra import dask_jobs
from infra.dask_jobs import JobScaling

library = pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is absent")
PROCESSES = 2


class JobHere(ProcessInterface):
    """A job whose workers are in this process, for want of a batch system."""

    queued = False
    refused = False
    worker_processes = PROCESSES

    def __init__(self, scheduler: str, name: str, **_: Any) -> None:
        super().__init__()
        self._scheduler, self._name, self._workers = scheduler, name, list[Worker]()
        self.job_id = str(id(self))

    @classmethod
    def default_config_name(cls) -> str:
        return "slurm"

    async def start(self) -> None:
        if self.refused:
            raise RuntimeError("the batch system does not answer")
        if not self.queued:
            self._workers = [Worker(self._scheduler, name=f"{self._name}-{n}", nthreads=1) for n in range(PROCESSES)]
            await asyncio.gather(*self._workers)
        await super().start()

    async def close(self) -> None:
        await self.reach_its_time_limit()
        await super().close()

    async def reach_its_time_limit(self) -> None:
        await asyncio.gather(*(worker.close() for worker in self._workers))


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of such jobs, whose number is looked at only when a test says so."""
    monkeypatch.setattr(JobHere, "queued", False)
    monkeypatch.setattr(JobHere, "refused", False)
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "200ms", "distributed.adaptive.interval": "0s"}),
        library.JobQueueCluster(
            job_cls=JobHere,
            processes=PROCESSES,
            scheduler_options={"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"},
        ) as cluster,
    ):
        yield cluster


def scaled(jobs: Any, minimum: int, maximum: int, marks: Path = Path("/nowhere")) -> Callable[[], None]:
    """Looks at the number of jobs, and acts on it."""
    scaling = jobs.adapt(Adaptive=JobScaling, processes=PROCESSES, marks=marks, minimum=minimum, maximum=maximum)
    return lambda: jobs.sync(scaling.adapt)


def wait_until(there: Callable[[], bool], look: Callable[[], None] = lambda: None) -> None:
    end = time.monotonic() + 30
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)
        look()


def test_a_job_whose_time_is_over_is_replaced_once(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    look = scaled(jobs, minimum=2, maximum=2)
    look()
    wait_until(lambda: len(jobs.observed) == 2 * PROCESSES)
    look()
    stays, ends = (jobs.workers[name] for name in sorted(jobs.workers))
    monkeypatch.setattr(JobHere, "queued", True)
    jobs.sync(ends.reach_its_time_limit)
    wait_until(lambda: ends not in jobs.workers.values() and len(jobs.workers) == 2, look)
    now = set(jobs.workers.values())
    assert stays in now
    for _ in range(3):
        look()
        time.sleep(0.02)
    assert set(jobs.workers.values()) == now, "the new one, which may have the name of the old one, is left alone"


def test_a_job_that_waits_in_the_queue_is_left_alone(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobHere, "queued", True)
    look = scaled(jobs, minimum=1, maximum=1)
    look()
    wait_until(lambda: bool(jobs.workers))
    waiting = set(jobs.workers.values())
    for _ in range(3):
        time.sleep(0.15)
        look()
    assert set(jobs.workers.values()) == waiting


def test_a_job_that_has_begun_and_shows_no_worker_is_replaced_once(
    jobs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dask_jobs, "_START_SECONDS", 0.1)
    monkeypatch.setattr(JobHere, "queued", True)
    look = scaled(jobs, minimum=1, maximum=1, marks=tmp_path)
    look()
    wait_until(lambda: bool(jobs.workers))
    (first,) = jobs.workers.values()
    (tmp_path / first.job_id).touch()
    wait_until(lambda: bool(jobs.workers) and first not in jobs.workers.values(), look)
    (second,) = jobs.workers.values()
    for _ in range(3):
        time.sleep(0.1)
        look()
    assert list(jobs.workers.values()) == [second], "it waits in the queue"


def test_a_job_that_the_batch_system_did_not_take_is_handed_in_again(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobHere, "refused", True)
    look = scaled(jobs, minimum=1, maximum=1)
    look()
    wait_until(lambda: bool(jobs.workers))
    monkeypatch.setattr(JobHere, "refused", False)
    wait_until(lambda: len(jobs.observed) == PROCESSES, look)


def test_whole_jobs_come_for_the_work_and_go_after_it(jobs: Any) -> None:
    look = scaled(jobs, minimum=1, maximum=3)
    look()
    wait_until(lambda: len(jobs.observed) == PROCESSES)
    with Client(jobs, set_as_default=False) as client:
        futures = client.map(time.sleep, [0.5] * 120, pure=False)
        wait_until(lambda: len(jobs.observed) == 3 * PROCESSES, look)
        client.cancel(futures)
        wait_until(lambda: len(jobs.observed) == PROCESSES, look)
    assert len(jobs.worker_spec) == 1
