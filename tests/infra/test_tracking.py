"""MLflow with a real SQLite store."""

import json
import logging
import socket
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from infra.errors import BadInput
from infra.manifest import DatasetManifest, TokenizerRecord
from infra.store import Store
from infra.tracking import (
    MetricWriter,
    TrackedRun,
    describe_run,
    finish_run,
    has_run,
    log_dict,
    log_figure,
    log_file,
    log_metrics,
    log_table,
    log_text,
    open_run,
)

DATASET = DatasetManifest(
    name="cc-en",
    version="2026.11.22",
    fingerprint="0123456789ab",
    stages={},
    settings={},
    tokenizer=TokenizerRecord(path="t.model", sha256="0" * 64, vocabulary_size=8, end_of_document=2, pad=3),
    shards=(),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(str(tmp_path_factory.mktemp("root")))


@pytest.fixture
def run(store: Store, request: pytest.FixtureRequest) -> TrackedRun:
    tags = {"gristmill.fingerprint": "abc", "prefect.flow_run_id": "1"}
    parameters = {"model": {"num_layers": 2}, "seed": 7}
    return open_run(store, None, "tests", request.node.name, dataset=DATASET, tags=tags, parameters=parameters)


def client(run: TrackedRun) -> MlflowClient:
    return MlflowClient(run.tracking_uri)


def test_a_run_names_its_dataset_by_its_fingerprint(store, run) -> None:
    found = client(run).get_run(run.run_id)
    assert found.inputs is not None
    (used,) = found.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("cc-en/2026.11.22", "0123456789ab")
    assert used.dataset.source == f'{{"uri": "{store.full_path("datasets/cc-en/2026.11.22/manifest.json")}"}}'
    assert found.data.params == {"model.num_layers": "2", "seed": "7"}
    assert found.data.tags["gristmill.fingerprint"] == "abc"
    assert store.exists("mlflow.db")


def test_another_launch_continues_the_run(store, run) -> None:
    finish_run(run, failed=True)
    again = open_run(store, None, "tests", "again", tags={"prefect.flow_run_id": "2"}, previous=run)
    assert again == run
    found = client(run).get_run(run.run_id)
    assert (found.info.status, found.data.tags["prefect.flow_run_id"]) == ("RUNNING", "2")
    finish_run(run)
    assert client(run).get_run(run.run_id).info.status == "FINISHED"


def test_a_run_that_is_gone_is_started_anew(store, run) -> None:
    gone = run.model_copy(update={"run_id": "0" * 32})
    assert (has_run(run), has_run(gone)) == (True, False)
    assert open_run(store, None, "tests", "anew", previous=gone).run_id not in (gone.run_id, run.run_id)


def test_artifacts_lie_under_the_root(store, run, tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("{}\n")
    log_file(run, path, "training")
    log_dict(run, {"text": "once"}, "samples.json")
    stored = {item.relative_to(store.local_path("mlflow-artifacts")).parts[-1] for item in artifacts(store)}
    assert {"metrics.jsonl", "samples.json"} <= stored


def test_a_run_that_was_deleted_is_there_no_more(run) -> None:
    client(run).delete_run(run.run_id)
    assert not has_run(run)


def test_a_table_grows_by_steps_and_a_step_stands_in_it_once(run, tmp_path) -> None:
    for step, texts in ((20, ["b", "c"]), (10, ["a"]), (20, ["d"])):
        log_table(run, [{"prompt": "Once", "text": text} for text in texts], "texts/samples.json", step)
    samples = json.loads(artifact(run, "texts/samples.json", tmp_path))
    assert samples == {"columns": ["step", "prompt", "text"], "data": [[10, "Once", "a"], [20, "Once", "d"]]}
    log_table(run, [{"task": "piqa", "acc": 0.5}, {"task": "arc", "error": 0.1}], "tasks.json")
    tasks = json.loads(artifact(run, "tasks.json", tmp_path))
    assert tasks == {"columns": ["task", "acc", "error"], "data": [["piqa", 0.5, None], ["arc", None, 0.1]]}
    tables = json.loads(client(run).get_run(run.run_id).data.tags["mlflow.loggedArtifacts"])
    assert tables == [{"path": path, "type": "table"} for path in ("texts/samples.json", "tasks.json")]


def test_figures_and_pages_keep_their_names(run, tmp_path) -> None:
    log_figure(run, b"<svg/>", "figures/curve.svg")
    log_text(run, "# Größe", "verdict.md")
    describe_run(run, "Step **30**")
    assert client(run).get_run(run.run_id).data.tags["mlflow.note.content"] == "Step **30**"
    assert artifact(run, "figures/curve.svg", tmp_path) == "<svg/>"
    assert artifact(run, "verdict.md", tmp_path) == "# Größe"


def artifact(run: TrackedRun, path: str, folder: Path) -> str:
    return Path(client(run).download_artifacts(run.run_id, path, str(folder))).read_text()


def artifacts(store: Store) -> list[Path]:
    return [path for path in store.local_path("mlflow-artifacts").rglob("*") if path.is_file()]


def steps(run: TrackedRun) -> list[int]:
    return sorted(metric.step for metric in client(run).get_metric_history(run.run_id, "loss"))


def test_each_step_is_delivered_once(run) -> None:
    rows = [{"step": step, "loss": 1.0 / step, "tokens": 64.0 * step} for step in range(1, 401)]
    writer = MetricWriter(run, "loss")
    for row in rows[:300]:
        writer.add(row)
    writer.flush()
    writer.flush()
    assert steps(run) == list(range(1, 301))
    # The next process of the same run knows rows that were delivered and rows that were not.
    resumed = MetricWriter(run, "loss", rows[:350])
    for row in rows[350:]:
        resumed.add(row)
    resumed.flush(last=True)
    assert steps(run) == list(range(1, 401))


def test_metrics_wait_for_a_server_that_does_not_answer(run, caplog, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = run.model_copy(update={"tracking_uri": f"http://127.0.0.1:{unused.getsockname()[1]}"})
    writer = MetricWriter(away, "loss")
    writer.add({"step": 1, "loss": 2.0})
    with caplog.at_level(logging.WARNING):
        writer.flush()
        log_metrics(away, 1, {"heldout_loss": 2.0})
    assert "MLflow did not take metrics of 1 steps, kept for later" in caplog.text
    assert "MLflow did not take metrics (" in caplog.text
    writer._run = run  # the server is back
    writer.add({"step": 2, "loss": 1.5})
    writer.flush()
    assert steps(run) == [], "for half a minute after a failure nothing is tried"
    writer.flush(last=True)
    assert steps(run) == [1, 2]


def test_addresses_with_passwords_and_silent_servers_are_refused(store, monkeypatch) -> None:
    with pytest.raises(BadInput, match="MLFLOW_TRACKING_PASSWORD") as refusal:
        open_run(store, "https://me:hunter2@host", "tests", "run")
    assert "hunter2" not in str(refusal.value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(BadInput, match="must answer before a run starts"):
        open_run(store, "http://127.0.0.1:9", "tests", "run")
