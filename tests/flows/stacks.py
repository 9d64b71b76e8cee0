"""`gristmill up` as tests use it: all servers on free ports with their files in a folder of the test's own."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.flows.conftest import REPOSITORY, free_port, running

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Stack:
    """Servers that run."""

    root: Path
    prefect: str
    """Address of Prefect's pages; its API is at /api below."""
    mlflow: str
    dask: str
    """Address of the scheduler."""
    environment: Mapping[str, str]
    """Of a process that is to find Prefect's server."""
    log: Path
    """What `gristmill up` says."""

    @property
    def api(self) -> str:
        return f"{self.prefect}/api"

    def flow_runs(self) -> list[dict[str, Any]]:
        return ask(f"{self.api}/flow_runs/filter", {})

    def artifacts(self) -> list[dict[str, Any]]:
        return ask(f"{self.api}/artifacts/filter", {})

    def start(self, deployment: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Start FLOW/NAME with these parameters over its own; returns the flow run."""
        found = ask(f"{self.api}/deployments/name/{deployment}")
        return ask(f"{self.api}/deployments/{found['id']}/create_flow_run", {"parameters": parameters})

    def finished(self, flow_run: str, seconds: float = 600) -> dict[str, Any]:
        """The flow run of an id, once it has ended, well or not."""
        ended = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        wait_until(lambda: self._state(flow_run)["state_type"] in ended, self.log, seconds)
        return self._state(flow_run)

    def _state(self, flow_run: str) -> dict[str, Any]:
        return ask(f"{self.api}/flow_runs/{flow_run}")


@contextmanager
def running_stack(root: Path, environment: Mapping[str, str], *assignments: str) -> Iterator[Stack]:
    """Start everything for the length of a block; assignments are PATH=VALUE of its settings, its ports among them."""
    ports = {name: str(free_port()) for name in ("prefect_port", "mlflow_port", "dask_port", "dashboard_port")}
    ports |= {name: value for name, _, value in (each.partition("=") for each in assignments) if name in ports}
    given = [f"{name}={port}" for name, port in ports.items()] + list(assignments)
    command = [str(BIN / "gristmill"), "up", "--root", str(root), "--set", "environment.workers=2"]
    command += [part for each in given for part in ("--set", each)]
    log = root / "up.log"
    with running(command, dict(environment), log):
        wait_until(lambda: "Dask " in log.read_text(), log, 300)
        prefect, mlflow = (f"http://127.0.0.1:{ports[name]}" for name in ("prefect_port", "mlflow_port"))
        known = {
            "PREFECT_HOME": str(root / "prefect"),
            "PREFECT_API_URL": f"{prefect}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }
        dask = f"tcp://127.0.0.1:{ports['dask_port']}"
        yield Stack(root, prefect, mlflow, dask, {**environment, **known}, log)


def wait_until(holds: Callable[[], bool], log: Path, seconds: float = 180) -> None:
    """AssertionError with the end of a log if something does not come true."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.2)


def call(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a `prefect` command that must work."""
    command = [str(BIN / "prefect"), *arguments]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def ask(url: str, body: Mapping[str, Any] | None = None) -> Any:
    """The answer of a JSON API; posts if there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    for _ in range(60):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503:  # by which Prefect asks to be asked again, where SQLite is busy
                raise
            time.sleep(1)
    raise AssertionError(f"{url} is not available")


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} becomes {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *folders, name = path.split(".")
        inner = tree
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[name] = value
    return tree
