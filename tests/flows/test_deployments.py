"""The system as a team runs it, by `gristmill up`: Prefect's server and worker, MLflow and Dask, all real."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from flows.stack import down, status
from infra.errors import BadInput, RunFailed
from infra.services import Services
from tests.flows.conftest import REPOSITORY, free_port, running
from tests.flows.test_end_to_end import SETTINGS
from tests.tasks.records import CRAWL

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("team")


@pytest.fixture(scope="module")
def team(root: Path, clean_environment: dict[str, str]) -> Iterator[tuple[dict[str, str], str]]:
    """An environment that points at the servers of `gristmill up`, and MLflow's address."""
    ports = {name: free_port() for name in ("prefect_port", "mlflow_port", "dask_port", "dashboard_port")}
    given = [part for name, port in ports.items() for part in ("--set", f"{name}={port}")]
    command = [str(BIN / "gristmill"), "up", "--root", str(root), "--set", "environment.workers=2", *given]
    log = root / "up.log"
    with running(command, clean_environment, log):
        wait_until(lambda: "Dask " in log.read_text(), log)
        url = f"http://127.0.0.1:{ports['prefect_port']}"
        home = str(root / "prefect")
        known = {"PREFECT_HOME": home, "PREFECT_API_URL": f"{url}/api", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        yield clean_environment | known, f"http://127.0.0.1:{ports['mlflow_port']}"


def wait_until(holds: Callable[[], bool], log: Path, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.2)


def call(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "prefect"), *arguments]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def nested(values: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *folders, name = path.split(".")
        inner = tree
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[name] = value
    return tree


def test_a_worker_runs_the_whole_chain(team: tuple[dict[str, str], str], small_crawl: Path, tmp_path: Path):
    environment, mlflow = team
    settings = {
        **SETTINGS,
        "evaluation.prompts": ["The module "],
        "environment.root": str(tmp_path / "root"),
        "environment.mlflow_tracking_uri": mlflow,
        "corpus.source.base_url": str(small_crawl),
        "corpus.source.crawl": CRAWL,
        "training.dtype": "float32",
        "training.parallel.processes": 2,
        "training.parallel.tensor": 2,
    }
    parameters = json.dumps({"settings": nested(settings)})
    call(environment, "deployment", "run", "crawl_to_model/default", "--params", parameters, "--watch")
    api = environment["PREFECT_API_URL"]
    runs = ask(f"{api}/flow_runs/filter", {})
    assert {run["state_type"] for run in runs} == {"COMPLETED"}
    assert len(runs) == 4  # the chain and the three flows that it is made of
    artifacts = {each["key"]: each for each in ask(f"{api}/artifacts/filter", {})}
    assert '"stage": "dedup"' in artifacts["corpus-funnel"]["data"]
    assert mlflow in artifacts["mlflow-run"]["data"]
    logs = [each["message"] for each in ask(f"{api}/logs/filter", {"limit": 200})]
    assert any("filter:" in each for each in logs)
    assert any("step 30/30" in each for each in logs)
    search = {"experiment_ids": [ask(f"{mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name=gristmill")
              ["experiment"]["experiment_id"]]}  # fmt: skip
    (run,) = ask(f"{mlflow}/api/2.0/mlflow/runs/search", search)["runs"]
    tags = {each["key"]: each["value"] for each in run["data"]["tags"]}
    assert run["info"]["status"] == "FINISHED"
    assert tags["prefect.flow_run_id"] in {each["id"] for each in runs}
    assert tags["prefect.flow_run_url"].startswith("http://127.0.0.1")
    listed = ask(f"{mlflow}/api/2.0/mlflow/artifacts/list?run_id={run['info']['run_id']}")
    assert "report.html" in {each["path"] for each in listed["files"]}


def test_the_file_of_deployments_has_the_flows_that_are_registered(team: tuple[dict[str, str], str]):
    environment, _ = team
    flows = {each["id"]: each["name"] for each in ask(f"{environment['PREFECT_API_URL']}/flows/filter", {})}
    found = ask(f"{environment['PREFECT_API_URL']}/deployments/filter", {})
    registered = {each["entrypoint"]: flows[each["flow_id"]] for each in found}
    content = yaml.safe_load((REPOSITORY / "infra/prefect.yaml").read_text())
    assert set(registered) == {each["entrypoint"].replace(":", ".") for each in content["deployments"]}
    call(environment, "--no-prompt", "deploy", "--prefect-file", "infra/prefect.yaml", "--all")


def test_a_wrong_value_is_refused_before_anything_starts(team: tuple[dict[str, str], str]):
    environment, _ = team
    parameters = json.dumps({"corpus": {"heldout": {"min_wrods": 3}}})
    command = [str(BIN / "prefect"), "deployment", "run", "build_corpus/default", "--params", parameters]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "min_wrods" in done.stdout


def test_status_says_what_runs_and_down_stops_all_of_it(team: tuple[dict[str, str], str], root: Path):
    """The last test of this module."""
    services = status(str(root)).services
    names = ["prefect-server", "mlflow-server", "dask-scheduler", "dask-workers", "prefect-worker"]
    assert [each.name for each in services] == names
    assert not any(each.trouble for each in services)
    family = [each for one in services for each in (psutil.Process(one.pid), *psutil.Process(one.pid).children(True))]
    with pytest.raises(RunFailed, match="run already"):
        Services(root / "services")

    assert not down(str(root)).services
    assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family)
    assert "Nothing runs" in status(str(root)).text()
    with pytest.raises(BadInput, match="no service of"):
        down(str(root))
