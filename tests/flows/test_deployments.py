"""The system as a team runs it: Prefect server, process worker, deployments and MLflow server, all real."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import REPOSITORY, free_port, running
from tests.flows.test_end_to_end import SETTINGS
from tests.tasks.records import CRAWL

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def team(
    tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str]
) -> Iterator[tuple[dict[str, str], str]]:
    """An environment that points at running servers, and MLflow's address."""
    home = tmp_path_factory.mktemp("team")
    prefect, mlflow = free_port(), free_port()
    environment = clean_environment | {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    servers = [
        ([str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(prefect)],
         f"http://127.0.0.1:{prefect}/api/ready"),
        ([str(BIN / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(mlflow), "--workers", "1",
          "--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}", "--artifacts-destination", str(home / "artifacts")],
         f"http://127.0.0.1:{mlflow}/api/2.0/mlflow/experiments/get?experiment_id=0"),
    ]  # fmt: skip
    with (
        running(servers[0][0], environment, home / "prefect.log", servers[0][1]),
        running(servers[1][0], environment, home / "mlflow.log", servers[1][1]),
    ):
        call(environment, "work-pool", "create", "gristmill", "--type", "process")
        call(environment, "--no-prompt", "deploy", "--prefect-file", "infra/prefect.yaml", "--all")
        worker = [str(BIN / "prefect"), "worker", "start", "--pool", "gristmill"]
        with running(worker, environment, home / "worker.log"):
            yield environment, f"http://127.0.0.1:{mlflow}"


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


def test_a_wrong_value_is_refused_before_anything_starts(team: tuple[dict[str, str], str]):
    environment, _ = team
    parameters = json.dumps({"corpus": {"heldout": {"min_wrods": 3}}})
    command = [str(BIN / "prefect"), "deployment", "run", "build_corpus/default", "--params", parameters]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "min_wrods" in done.stdout
