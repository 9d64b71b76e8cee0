"""Log records of Dask workers, brought to whoever submitted the shard: at most so many a second from each worker.

A record that is logged while a shard is made goes, through the scheduler, to the client whose shard it is, and is
handled there as if it had been logged there, with the shard and the worker behind its message. What a worker logs
without a shard stays on its own standard error. Records hold what the code says, never texts of documents, and go
without the secrets that the worker's environment holds.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from dask.context import thread_state
from distributed import Worker, get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from infra.launching.ranks import redact, secrets_of
from infra.line_limit import LineLimit

Item = TypeVar("Item")
Result = TypeVar("Result")

TOPIC = "gristmill-logs"
BEGINNINGS = "gristmill-beginnings"
LINE_CHARACTERS = 2000
LIBRARY_CHARACTERS = 200
"""Of a library's line: enough for its point, too little for a document that it may quote."""
OWN_LOGGERS = ("tasks", "infra")
"""Packages whose INFO lines are brought too; of all others, warnings."""


@dataclass(frozen=True)
class Shard:
    """What a thread of a worker is making, and for whom."""

    client: str
    """Id of the Dask client."""
    name: str


class ForwardLogs(WorkerPlugin):
    """Gives a Dask worker the handler that forwards; registering it twice changes nothing."""

    name = TOPIC
    idempotent = True

    def setup(self, worker: Worker) -> None:
        """Attach the handler."""
        self.handler = _Forwarding(worker)
        logging.getLogger().addHandler(self.handler)
        for name in OWN_LOGGERS:
            logging.getLogger(name).setLevel(logging.INFO)

    def teardown(self, worker: Worker) -> None:
        """Detach the handler."""
        logging.getLogger().removeHandler(self.handler)


class _Forwarding(logging.Handler):
    def __init__(self, worker: Worker) -> None:
        super().__init__(logging.INFO)
        self._worker, self._limit = worker, LineLimit()
        self._making: dict[int, Shard] = {}
        self._secrets = secrets_of(os.environ)

    @contextmanager
    def making(self, shard: Shard) -> Iterator[None]:
        """Forward what this thread logs meanwhile, and at the end say how many lines were too many."""
        self._making[threading.get_ident()] = shard
        try:
            yield
        finally:
            del self._making[threading.get_ident()]
            if told := self._limit.tell():
                self._send(shard, __name__, logging.WARNING, time.time(), told)

    def emit(self, record: logging.LogRecord) -> None:
        shard = self._shard(record.thread)
        if shard is None:
            if logging.lastResort is not None and record.levelno >= logging.lastResort.level:
                logging.lastResort.handle(record)
        elif self._limit.admit(time.monotonic()):
            told = self._limit.tell()
            own = record.name.partition(".")[0] in OWN_LOGGERS
            text = self.format(record) if own else f"{record.name}: {self.format(record)}"
            text = shortened(text, LINE_CHARACTERS if own else LIBRARY_CHARACTERS) + (
                f" (before it, {told})" if told else ""
            )
            # Prefect takes records of our packages only.
            self._send(shard, record.name if own else __name__, record.levelno, record.created, text)

    def _shard(self, thread: int | None) -> Shard | None:
        """The shard of a thread; of a thread that a shard function started, where the worker makes one shard only."""
        making = self._making
        return making.get(thread or 0) or (next(iter(making.values()), None) if len(making) == 1 else None)

    def _send(self, shard: Shard, logger: str, level: int, created: float, text: str) -> None:
        message = {
            "client": shard.client,
            "shard": shard.name,
            "worker": self._worker.address,
            "name": logger,
            "level": level,
            "created": created,
            "text": redact(text, self._secrets),
        }
        self._worker.log_event(TOPIC, message)


def logged(client: str, function: Callable[[Item], Result], item: Item) -> Result:
    """Call a function on a worker; what it logs belongs to the item and goes to the client with that id."""
    plugin = get_worker().plugins.get(TOPIC)
    if not isinstance(plugin, ForwardLogs):
        return function(item)
    with _counted(client), plugin.handler.making(Shard(client, str(item))):
        return function(item)


@contextmanager
def _counted(client: str) -> Iterator[None]:
    """Tell the client that a task has begun, and take it back where it fails: what remains are those cut off."""
    worker, begun = get_worker(), {"client": client, "key": str(thread_state.key)}
    worker.log_event(BEGINNINGS, {**begun, "times": 1})
    try:
        yield
    except Exception:
        worker.log_event(BEGINNINGS, {**begun, "times": -1})
        raise


def shortened(text: str, characters: int) -> str:
    """The text, or its first characters and a sign that there are more."""
    return text if len(text) <= characters else f"{text[:characters]}…"


def as_record(message: Mapping[str, Any]) -> logging.LogRecord:
    """The record that a worker forwarded, to be handled by the logger of its name."""
    return logging.makeLogRecord(
        {
            "name": message["name"],
            "levelno": message["level"],
            "levelname": logging.getLevelName(message["level"]),
            "created": message["created"],
            "msg": "%s [%s, worker %s]",
            "args": (message["text"], message["shard"], message["worker"]),
        }
    )
