"""What people find in MLflow after a chain on real servers, and that no secret of the environment is anywhere."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.tracking import MlflowClient

from infra.manifest import load_dataset
from infra.store import Store
from infra.tracking import open_run
from model.delivery import deliver_rest
from model.run import prepare_run, read_metrics
from tests.flows.conftest import REPOSITORY, free_port
from tests.flows.stacks import Stack, ask, nested, running_stack, wait_until
from tests.flows.test_end_to_end import SETTINGS
from tests.infra.mlflow_server import mlflow_server
from tests.model.small_runs import real_documents, small_training, write_dataset
from tests.model.tracked_steps import make_steps, tracked
from tests.tasks.records import CRAWL

pytestmark = pytest.mark.e2e

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED01",
    "AWS_SECRET_ACCESS_KEY": "planted+aws/secret0123456789abcdefghijkl",
    "MLFLOW_TRACKING_USERNAME": "someone",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-password",
    "PREFECT_API_AUTH_STRING": "someone:planted-prefect-password",
    "SOME_SERVICE_TOKEN": "planted-token-of-a-service",
}
IN_AN_ADDRESS = "planted-in-an-address"


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str]) -> Iterator[Stack]:
    """Servers whose environment has secrets."""
    with running_stack(tmp_path_factory.mktemp("team"), clean_environment | SECRETS) as running:
        yield running


@pytest.fixture(scope="module")
def settings(team: Stack, small_crawl: Path) -> dict[str, Any]:
    return nested(
        {
            **SETTINGS,
            "evaluation.prompts": ["The module "],
            "environment.root": str(team.root / "data"),
            "environment.mlflow_tracking_uri": team.mlflow,
            "environment.cost.core_hour": 0.05,
            "corpus.source.base_url": str(small_crawl),
            "corpus.source.crawl": CRAWL,
            "dataset.name": "docs",
            "training.dtype": "float32",
            "training.parallel.processes": 2,
            "training.checkpoint": {"every_steps": 10, "keep": 2},
            "training.evaluation": {"every_steps": 20, "of": {"max_tokens": 1000}},
            "tracking.title": "Does it learn",
            "tracking.notes": "For the **first** report",
            "tracking.tags": {"team": "docs"},
            "tracking.system_metrics_seconds": 1,
        }
    )


@pytest.fixture(scope="module")
def done(team: Stack, settings: dict[str, Any]) -> str:
    """The chain has run; gives the id of its flow run."""
    started = team.start("crawl_to_model/default", {"settings": settings})
    assert team.finished(started["id"], 900)["state_type"] == "COMPLETED", team.log.read_text()[-3000:]
    return started["id"]


@pytest.fixture(scope="module")
def client(team: Stack) -> MlflowClient:
    return MlflowClient(team.mlflow)


def runs_of(client: MlflowClient, filters: str) -> dict[str, Any]:
    """Runs of all experiments, by the name of the experiment."""
    experiments = {each.experiment_id: each.name for each in client.search_experiments()}
    return {experiments[run.info.experiment_id]: run for run in client.search_runs(list(experiments), filters)}


@pytest.mark.usefixtures("done")
def test_a_dataset_finds_every_run_that_used_or_made_it(team, client) -> None:
    digest = load_dataset(Store(str(team.root / "data")), "docs").fingerprint
    found = runs_of(client, f"dataset.digest = '{digest}'")
    assert set(found) == {"gristmill/corpus", "gristmill/pretraining"}
    contexts = {
        name: {each.dataset.name.partition(" ")[2]: each.tags[0].value for each in run.inputs.dataset_inputs}
        for name, run in found.items()
    }
    assert contexts["gristmill/corpus"] == {"": "published"}
    assert contexts["gristmill/pretraining"] == {"": "training", "held out": "evaluation"}
    assert set(runs_of(client, "dataset.digest = 'nothing'")) == set()


@pytest.mark.usefixtures("done")
def test_a_corpus_is_a_run_with_its_figures_and_no_text(client) -> None:
    run = runs_of(client, "tags.purpose = 'corpus'")["gristmill/corpus"]
    assert run.info.status == "FINISHED"
    assert re.fullmatch(r"Does it learn, docs/[\d.]+, [0-9a-f]{6}", run.info.run_name)
    metrics = run.data.metrics
    assert metrics["filter/in"] == metrics["filter/kept"] + sum(
        value for name, value in metrics.items() if name.startswith("filter/dropped ")
    )
    assert metrics["tokens/train"] > metrics["tokens/heldout"] > 0
    assert metrics["extract/documents_per_second"] > 0
    assert run.data.params["heldout.fraction"] == "0.1"
    files = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert files == {"parameters.json", "funnel.json"}, "no page that holds text"


@pytest.mark.usefixtures("done")
def test_a_training_says_with_what_and_for_what_it_was_made(team, client, done) -> None:
    run = runs_of(client, "tags.team = 'docs' AND tags.purpose = 'pretraining'")["gristmill/pretraining"]
    tags, metrics = run.data.tags, run.data.metrics
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("Does it learn, docs/")
    assert run.data.params["model.hidden_size"] == "64"
    assert len(tags["software.lock"]) == 64
    assert tags["layout"] == "2 processes, data 2"
    assert {"software.torch", "software.python", "hardware.cpu", "hardware.cores", "launcher"} <= set(tags)
    assert tags["mlflow.note.content"].startswith("For the **first** report")
    assert f"{team.prefect}/runs/flow-run/" in tags["mlflow.note.content"].rpartition("(")[2]
    assert tags["prefect.flow_run_id"] in {each["id"] for each in team.flow_runs()}
    assert metrics["cost/core_hours"] > 0
    assert metrics["cost/USD"] == pytest.approx(0.05 * metrics["cost/core_hours"], rel=1e-6)
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_percentage"} <= set(metrics)
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [each.step for each in history] == list(range(1, 31))


@pytest.mark.usefixtures("done")
def test_checkpoints_are_models_found_by_what_they_reach(client) -> None:
    run = runs_of(client, "tags.purpose = 'pretraining'")["gristmill/pretraining"]
    experiment = [run.info.experiment_id]
    there = client.search_logged_models(experiment, "tags.`checkpoint.removed` = 'false'")
    gone = client.search_logged_models(experiment, "tags.`checkpoint.removed` = 'true'")
    assert sorted(int(model.tags["step"]) for model in there) == [20, 30]
    assert {int(model.tags["step"]) for model in gone} <= {10}
    assert {str(model.status) for model in there} == {"READY"}
    assert all(Path(model.tags["checkpoint.path"]).is_dir() for model in there)
    reached = run.data.metrics["heldout/loss"]
    best = client.search_logged_models(experiment, f"metrics.`heldout/loss` <= {reached + 1e-9}")
    assert [model.tags["step"] for model in best] == ["30"]
    assert best[0].params["hidden_size"] == "64"


@pytest.mark.usefixtures("done")
def test_no_secret_is_anywhere(team, settings) -> None:
    wrong = json.loads(json.dumps(settings))
    wrong["environment"]["mlflow_tracking_uri"] = f"https://someone:{IN_AN_ADDRESS}@mlflow.test"
    with pytest.raises(urllib.error.HTTPError) as refused:
        team.start("crawl_to_model/default", {"settings": wrong})
    assert refused.value.code == 409, "refused before it is written down"
    time.sleep(2)  # logs are sent in batches
    logs = json.dumps(ask(f"{team.api}/logs/filter", {"limit": 200}))
    parameters = json.dumps(team.flow_runs())
    looked = 0
    for name, secret in {**SECRETS, "address": IN_AN_ADDRESS}.items():
        if name == "MLFLOW_TRACKING_USERNAME":
            continue
        value = secret.rpartition(":")[2]
        assert value not in logs + parameters, name
        for path in team.root.rglob("*"):
            if path.is_file():
                looked += 1
                assert value.encode() not in path.read_bytes(), f"{name} is in {path}"
    assert looked > 500


def test_a_server_that_hangs_or_is_gone_stops_no_step_and_loses_none(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    run = prepare_run(store, write_dataset(store, real_documents()), "away", small_training(300))
    address = f"http://127.0.0.1:{free_port()}"
    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with mlflow_server(address, database, tmp_path) as server, ExitStack() as training:
        to = open_run(store, address, "away", "away")
        client = MlflowClient(address)
        journal, _ = training.enter_context(tracked(store, run, to))
        took = make_steps(journal, 1, 100, 0.02)
        wait_until(lambda: bool(client.get_metric_history(to.run_id, "loss")), tmp_path / "mlflow.log")
        os.killpg(server.pid, signal.SIGSTOP)
        try:
            took += make_steps(journal, 101, 200, 0.1)  # longer than a request waits
        finally:
            os.killpg(server.pid, signal.SIGCONT)
        server.kill()
        took += make_steps(journal, 201, 300, 0.02)
    assert max(wall for wall, _ in took) < 5, "a request alone waits for ten seconds"
    assert len(read_metrics(store.local_path(run.folder))) == 300
    with mlflow_server(address, database, tmp_path):
        deliver_rest(store, run, to)
        history = MlflowClient(address).get_metric_history(to.run_id, "loss")
        assert [each.step for each in history] == list(range(1, 301))


@pytest.mark.parametrize("ending", ["says that it is complete", "stops", "is killed"])
def test_the_run_ends_as_training_did(tmp_path: Path, ending: str) -> None:
    store = Store(str(tmp_path))
    prepare_run(store, write_dataset(store, real_documents()), "ends", small_training(20))
    to = open_run(store, None, "ends", ending)
    command = [sys.executable, "-m", "tests.model.tracked_steps", str(tmp_path), to.model_dump_json(), ending]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        beside = psutil.Process(int(process.stdout.readline()))
        assert process.stdout.readline() == "20 steps\n"
        if ending == "is killed":
            process.kill()
    beside.wait(120)
    client = MlflowClient(to.tracking_uri)
    assert len(client.get_metric_history(to.run_id, "loss")) == 20
    data = client.get_run(to.run_id).data
    assert {"hardware.cpu", "hardware.cores"} <= set(data.tags)
    assert "system/cpu_utilization_percentage" in data.metrics
    status = client.get_run(to.run_id).info.status
    assert status == ("RUNNING" if ending == "says that it is complete" else "KILLED"), "the flow says FINISHED"
