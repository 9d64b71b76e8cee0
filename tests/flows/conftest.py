"""A small crawl for whole-chain tests: a web page for each long docstring of the standard library."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from infra.store import Store
from tests.model.findings.contenders import DATASET
from tests.tasks.documents import prose
from tests.tasks.records import members, page, response, warcinfo, write_crawl

SHARDS = 3
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def small_crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in Common Crawl's layout."""
    root = tmp_path_factory.mktemp("crawl")
    pages = [response(f"https://docs.test/{number}", page(text)) for number, text in enumerate(prose())]
    write_crawl(root, [members(warcinfo(), *pages[shard::SHARDS]) for shard in range(SHARDS)])
    return root


@pytest.fixture(scope="session")
def evaluated_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A root for `tests.flows.evaluated_runs.trained`; MLflow's database there takes a second to make."""
    store = Store(str(tmp_path_factory.mktemp("evaluated")))
    DATASET.save(store, f"{DATASET.folder}/manifest.json")
    return store


@pytest.fixture(scope="session")
def clean_environment() -> dict[str, str]:
    """The environment of a newcomer: no Prefect or MLflow settings of anybody's."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(
    command: list[str], environment: dict[str, str], log: Path, ready_url: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server process of its own session, ready when its URL answers, gone with all its children at the end."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, cwd=REPOSITORY
        )
    try:
        if ready_url is not None:
            wait_for(ready_url, process, log)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 120) -> None:
    """Block until a URL answers 200; AssertionError with the server's log if it does not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"{url} does not answer: {log.read_text()[-2000:]}")
