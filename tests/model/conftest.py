"""Fixtures: one dataset for all tests, and one rank in this process."""

import logging
import os
import signal
import socket
import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from infra.manifest import DatasetManifest
from infra.store import Store
from model.megatron import on_cpu
from tests.model.small_runs import real_documents, write_dataset

with warnings.catch_warnings():
    # Megatron-Core warns of optional libraries while it is imported; tests hold every later warning for an error.
    warnings.simplefilter("ignore")
    on_cpu.install()
    for name in ("model.loop", "model.evaluation.generation", "model.evaluation.heldout"):
        import_module(name)
    from model.config import ParallelSettings
    from model.parallel import Place, parallel
    from model.rank import quiet_libraries


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A root that all tests add their runs to, under names of their own."""
    return Store(str(tmp_path_factory.mktemp("root")))


@pytest.fixture(scope="session")
def dataset(store: Store) -> DatasetManifest:
    return write_dataset(store, real_documents())


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchrun tells the only rank of a job, and the warnings that every rank ignores."""
    quiet_libraries()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def place(alone: None) -> Iterator[Place]:
    """This process as the only rank of a job."""
    with parallel(ParallelSettings(), seed=1) as here:
        yield here


@pytest.fixture
def stop_at() -> Iterator[Any]:
    """Sends this process SIGTERM when a step is reported."""

    class Handler(logging.Handler):
        step = 0

        def emit(self, record: logging.LogRecord) -> None:
            if f"step {self.step}/" in record.getMessage():
                os.kill(os.getpid(), signal.SIGTERM)

    handler, logger = Handler(), logging.getLogger("model")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield handler
    logger.setLevel(level)
    logger.removeHandler(handler)
