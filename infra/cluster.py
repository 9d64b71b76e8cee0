"""Dask, as this project uses it: plain futures over shards, a bounded number in flight, and nothing large in them.

A task receives paths and settings and returns a small record. Prefect never sees a shard: mapping shards through its
Dask runner costs about 300 CPU milliseconds a task, a plain future about 6.
"""

import contextvars
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import uuid4

import dask.config
from distributed import Client, Future, LocalCluster, as_completed

from infra.environment import Environment
from infra.errors import BadInput, DiskFull, RunFailed
from infra.rate_limit import RateLimitPlugin
from infra.worker_logs import TOPIC, ForwardLogs, as_record, logged

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")

_DASK_SETTINGS = {
    # glibc keeps freed memory of many small texts otherwise, and workers seem to leak.
    "distributed.nanny.pre-spawn-environ": {"MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"},
    "distributed.comm.timeouts.connect": "10s",
    "distributed.diagnostics.nvml": False,
}


class Cluster:
    """A Dask client and how to map shard functions over it."""

    def __init__(self, client: Client, retries: int) -> None:
        self._client = client
        self._retries = retries
        self._context = contextvars.copy_context()
        client.register_plugin(RateLimitPlugin())
        client.register_plugin(ForwardLogs())
        client.subscribe_topic(TOPIC, self._take_record)

    @property
    def dashboard(self) -> str:
        """Address of the Dask dashboard."""
        return str(self._client.dashboard_link)

    @property
    def workers(self) -> int:
        """Worker processes now connected."""
        return len(self._client.scheduler_info(n_workers=-1)["workers"])

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
        to another. On any exception, cancellation included, what is still queued is cancelled.
        """
        self._context = contextvars.copy_context()
        queue = iter(items)
        owners: dict[Future, Item] = {}
        finished: Any = as_completed(loop=self._client.loop, raise_errors=False)

        def submit_next() -> None:
            for item in queue:
                future = self._client.submit(
                    logged, self._client.id, function, item, key=f"{label}-{uuid4()}", retries=self._retries
                )
                owners[future] = item
                finished.add(future)
                return

        try:
            for _ in range(4 * max(self.workers, 1)):
                submit_next()
            for future in finished:
                item = owners.pop(future)
                try:
                    result = self._result(future, item, label)
                except RunFailed as error:
                    if on_failure is None or isinstance(error, DiskFull):
                        raise
                    on_failure(item, error)
                else:
                    yield result
                future.release()
                submit_next()
        finally:
            self._client.cancel(list(owners), force=True)

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

    def _result(self, future: Future, item: Any, label: str) -> Any:
        if future.status == "finished":
            return future.result()
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
    """Connect to the scheduler that the environment names, or start worker processes on this machine's loopback."""
    logging.getLogger("distributed").setLevel(logging.ERROR)  # it sets INFO for itself when it is imported
    with dask.config.set(_DASK_SETTINGS), _client(environment) as client:
        yield Cluster(client, environment.shard_retries)


@contextmanager
def _client(environment: Environment) -> Iterator[Client]:
    if environment.scheduler is not None:
        try:
            client = Client(environment.scheduler, set_as_default=False, timeout="10s")
        except OSError as error:
            raise BadInput(
                f"environment.scheduler={environment.scheduler} does not answer ({error})",
                "a Dask scheduler must listen there",
                "Start one with `dask scheduler`, or leave the setting out to use this machine",
            ) from error
        with client:
            yield client
        return
    with (
        LocalCluster(
            n_workers=environment.workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=environment.worker_memory,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
