"""Dask, as this project uses it: plain futures over shards, a bounded number in flight, and nothing large in them.

A task receives paths and settings and returns a small record. Prefect never sees a shard: mapping shards through its
Dask runner costs about 300 CPU milliseconds a task, a plain future about 6.

A scheduler that dies takes its knowledge of all tasks with it. Items that were in flight are handed to the one that
comes back at the same address: a shard's files appear whole or not at all, so that it may be made twice.
"""

import contextvars
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from uuid import uuid4

import dask.config
from distributed import Client, Future, as_completed
from distributed.client import ClosedClientError

from infra.dask_clusters import WORKER_VARIABLES, open_dask
from infra.dask_settings import LocalDask
from infra.environment import Environment
from infra.errors import BadInput, DiskFull, RunFailed
from infra.rate_limit import RateLimitPlugin
from infra.worker_logs import BEGINNINGS, TOPIC, ForwardLogs, as_record, logged

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")

_BEGINNINGS = 4
"""How often a task may begin without an end: as often as Dask has it lose a worker that dies. One whose worker leaves
because its job's time is over would be begun for ever, if no job has time enough."""
_NO_WORKER_SECONDS = 60.0
"""How long there is no worker before that is said."""
_WORKERS_SECONDS = 30.0
"""How long workers have to find a scheduler that has come back, before work begins with those that are there."""
_DASK_SETTINGS = {
    "distributed.nanny.pre-spawn-environ": WORKER_VARIABLES,
    "distributed.deploy.lost-worker-timeout": "60s",  # a killed worker's parent starts it again, slowly on a busy node
    "distributed.comm.timeouts.connect": "10s",
    "distributed.diagnostics.nvml": False,
}


class _SchedulerLost(Exception):
    """The scheduler has forgotten what it was to do."""


_DISCONNECTED = (CancelledError, ClosedClientError, OSError)
"""What a client raises without its scheduler."""


class Cluster:
    """A Dask client and how to map shard functions over it."""

    def __init__(
        self,
        client: Client,
        retries: int,
        connect: Callable[[], Client] | None = None,
        patience_seconds: float = 0,
        most_workers: int = 1,
        wait_seconds: float = math.inf,
    ) -> None:
        """`connect` makes another client (OSError if none answers): it is tried for so long after a scheduler died.

        Without it the flow has started the scheduler itself, and no other one takes its place.

        Work for `most_workers` is handed out even while fewer are there: a cluster that scales brings them for it.
        Where none at all is there, one is awaited for `wait_seconds`.
        """
        self._retries, self._connect, self._patience = retries, connect, patience_seconds
        self._wait_seconds = wait_seconds
        self._context = contextvars.copy_context()
        self._known_workers, self._most_workers = 0, most_workers
        self._use(client)

    def _use(self, client: Client) -> None:
        self._client, self._scheduler = client, _scheduler_id(client)
        self._begun, self._endless = Counter[str](), set[str]()
        client.register_plugin(RateLimitPlugin())
        client.register_plugin(ForwardLogs())
        client.subscribe_topic(TOPIC, self._take_record)
        client.subscribe_topic(BEGINNINGS, self._count)

    @property
    def dashboard(self) -> str:
        """Address of the Dask dashboard."""
        return str(self._client.dashboard_link)

    @property
    def workers(self) -> int:
        """Worker processes now connected."""
        return int(self._client.scheduler_info(n_workers=0)["n_workers"])

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        label: str,
        on_failure: Callable[[Item, RunFailed], None] | None = None,
    ) -> Iterator[Result]:
        """Yield results as they finish, at most four for each worker in flight; RunFailed names the item that failed.

        With `on_failure`, items that fail are given to it and the others go on, unless the user's input is wrong
        (BadInput) or the disk is full (DiskFull): no other item would fare better. A task whose worker dies is given
        to another; all that were in flight when the scheduler died to the one that comes back. On any exception,
        cancellation included, what is still queued is cancelled.
        """
        self._context = contextvars.copy_context()
        waiting = deque(items)
        while True:
            try:
                self._ensure_scheduler()
                yield from self._map(function, waiting, label, on_failure)
            except _SchedulerLost:
                continue
            return

    def _map(
        self,
        function: Callable[[Item], Result],
        waiting: deque[Item],
        label: str,
        on_failure: Callable[[Item, RunFailed], None] | None,
    ) -> Iterator[Result]:
        """Map what waits, taking it from there; _SchedulerLost has put back what was in flight."""
        owners: dict[Future, Item] = {}
        finished: Any = as_completed(loop=self._client.loop, raise_errors=False)

        def submit_next() -> None:
            if waiting:
                future = self._client.submit(
                    logged, self._client.id, function, waiting[0], key=f"{label}-{uuid4()}", retries=self._retries
                )
                owners[future] = waiting.popleft()
                finished.add(future)

        try:
            with _losing_scheduler():
                self._known_workers = self.workers
                for _ in range(4 * max(self._known_workers, self._most_workers)):
                    submit_next()
            for future in self._as_they_finish(finished, owners, label):
                try:
                    with _losing_scheduler():
                        result = self._result(future, owners[future], label)
                except RunFailed as error:
                    item = owners.pop(future)
                    if on_failure is None or isinstance(error, DiskFull):
                        raise
                    on_failure(item, error)
                else:
                    del owners[future]
                    yield result
                future.release()
                with _losing_scheduler():
                    submit_next()
        except _SchedulerLost:
            waiting.extendleft(owners.values())
            owners.clear()
            raise
        finally:
            with suppress(*_DISCONNECTED):
                self._client.cancel(list(owners), force=True)

    def _as_they_finish(self, finished: Any, futures: Iterable[Future], label: str) -> Iterator[Future]:
        """Yield futures as they finish; RunFailed where for too long there was no worker to do them.

        How long there has been none is said after a while, and again each time that it has doubled.
        """
        seen = looked = time.monotonic()
        silence = _NO_WORKER_SECONDS
        while not finished.is_empty():
            if self._endless:
                with _losing_scheduler():  # they come back as finished
                    self._client.cancel([each for each in futures if each.key in self._endless], force=True)
            if finished.has_ready():
                yield next(finished)
                seen = looked = time.monotonic()
                continue
            with finished.thread_condition:
                finished.thread_condition.wait(0.1)
            now = time.monotonic()
            if now - looked < min(self._wait_seconds, _NO_WORKER_SECONDS) / 10:
                continue
            looked = now
            with _losing_scheduler():
                if self.workers:
                    seen, silence = now, _NO_WORKER_SECONDS
            if now - seen > silence:
                logger.warning("%s: no Dask worker has been there for %.0f s", label, now - seen)
                silence = 2 * (now - seen)
            if now - seen > self._wait_seconds:
                raise RunFailed(
                    f"{label}: no Dask worker has been there for {now - seen:.0f} s",
                    f"one must come within {self._wait_seconds:.0f} s (environment.dask.wait_seconds)",
                    "Look at the queue and at the workers' lines, or raise wait_seconds, and run the same command"
                    " again: finished shards are kept",
                )

    def _ensure_scheduler(self) -> None:
        """Connect to the scheduler that has taken the place of one that died; RunFailed if none has in time."""
        if self._client.status == "running" and _scheduler_id(self._client) == self._scheduler:
            return
        if self._connect is None:
            raise RunFailed(
                "the Dask scheduler of this flow is gone",
                "it lasts as long as the flow",
                "Look at the lines before this one, and run the same command again: finished shards are kept",
            )
        address = self._client._start_arg
        logger.warning("the Dask scheduler %s is gone; waiting %.0f s for another", address, self._patience)
        end = time.monotonic() + self._patience
        with suppress(*_DISCONNECTED, TimeoutError):
            self._client.close(timeout=1)
        while time.monotonic() < end:
            try:
                self._use(self._connect())
            except _DISCONNECTED:
                time.sleep(1)
                continue
            with suppress(TimeoutError):
                self._client.wait_for_workers(max(self._known_workers, 1), timeout=_WORKERS_SECONDS)
            logger.info("the Dask scheduler %s is there again, with %d workers", address, self.workers)
            return
        raise RunFailed(
            f"the Dask scheduler {address} is gone",
            f"it must be there again within {self._patience:.0f} seconds (environment.scheduler_patience_seconds)",
            "Start it, and run the same command again: finished shards are kept",
        )

    def close(self) -> None:
        """Leave the scheduler."""
        with suppress(*_DISCONNECTED):
            self._client.close()

    def run(self, function: Callable[[Item], Result], item: Item, label: str) -> Result:
        """Run one task on a worker and wait for it."""
        return next(self.map(function, [item], label))

    def _take_record(self, event: tuple[float, Any]) -> None:
        """Handle a worker's log record as one of the caller of `map`, whose context says which Prefect run it is of."""
        _, message = event
        if message["client"] == self._client.id:
            logger = logging.getLogger(message["name"])
            if logger.isEnabledFor(message["level"]):
                self._context.run(logger.handle, as_record(message))

    def _count(self, event: tuple[float, Any]) -> None:
        """Note that a task has begun, or that one which had begun has failed."""
        _, message = event
        if message["client"] == self._client.id:
            self._begun[message["key"]] += message["times"]
            if self._begun[message["key"]] > _BEGINNINGS:
                self._endless.add(message["key"])

    def _result(self, future: Future, item: Any, label: str) -> Any:
        key = str(future.key)
        begun, endless = self._begun.pop(key, 0), key in self._endless
        self._endless.discard(key)
        if future.status == "finished":
            return future.result()
        if endless:
            raise RunFailed(
                f"{label}: {item} was begun {begun} times and never ended",
                "a shard must end before its worker leaves, some time before the time limit of the worker's job",
                "Raise environment.dask.walltime, or make shards smaller, and run the same command again: finished"
                " shards are kept",
            )
        if future.status in ("cancelled", "lost"):
            raise _SchedulerLost
        error: Any = future.exception()
        if isinstance(error, BadInput | RunFailed):
            raise error
        raise RunFailed(
            f"{label}: {item} failed ({type(error).__name__}: {error})",
            f"a shard is tried {self._retries + 1} times",
            "Mend the cause and run the same command again: finished shards are kept",
        ) from error


@contextmanager
def open_cluster(environment: Environment) -> Iterator[Cluster]:
    """Connect to the scheduler that the environment names, or start workers where the environment says."""
    logging.getLogger("distributed").setLevel(logging.ERROR)  # it sets INFO for itself when it is imported
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # tracebacks of each try to connect again
    with dask.config.set(_DASK_SETTINGS), _client(environment) as client:
        connect = None if environment.scheduler is None else lambda: _connect(environment)
        # Nothing is known of workers that others start: they are as many as are there, whenever they are.
        workers = LocalDask() if environment.scheduler is not None else environment.dask
        cluster = Cluster(
            client,
            environment.shard_retries,
            connect,
            environment.scheduler_patience_seconds,
            workers.most_workers,
            workers.wait_seconds,
        )
        try:
            yield cluster
        finally:
            cluster.close()


def _scheduler_id(client: Client) -> str:
    """By which a scheduler is told from another one at the same address."""
    return str(client.scheduler_info(n_workers=0)["id"])


@contextmanager
def _losing_scheduler() -> Iterator[None]:
    """Around calls that need the scheduler: what they raise without it becomes _SchedulerLost."""
    try:
        yield
    except _DISCONNECTED as error:
        raise _SchedulerLost from error


def _connect(environment: Environment) -> Client:
    return Client(environment.scheduler, set_as_default=False, timeout="10s")


@contextmanager
def _client(environment: Environment) -> Iterator[Client]:
    if environment.scheduler is not None:
        try:
            client = _connect(environment)
        except OSError as error:
            raise BadInput(
                f"environment.scheduler={environment.scheduler} does not answer ({error})",
                "a Dask scheduler must listen there",
                "Start one with `dask scheduler`, or leave the setting out to use this machine",
            ) from error
        with client:
            yield client
        return
    with open_dask(environment) as client:
        yield client
