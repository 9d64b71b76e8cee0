"""MLflow with a real SQLite store."""

import json
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from infra.errors import BadInput
from infra.manifest import DatasetManifest, TokenizerRecord
from infra.metric_rows import MetricRows
from infra.run_description import used_dataset
from infra.store import Store
from infra.tracking import (
    TrackedRun,
    describe_run,
    ending_with,
    finish_run,
    log_dict,
    log_figure,
    log_file,
    log_metrics,
    log_table,
    log_text,
    open_run,
    run_at,
    tracking_errors,
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
    used = [used_dataset(store, DATASET, "training"), used_dataset(store, DATASET, "evaluation")]
    return open_run(store, None, "tests", request.node.name, datasets=used, tags=tags, parameters=parameters)


def client(run: TrackedRun) -> MlflowClient:
    return MlflowClient(run.tracking_uri)


def test_a_run_names_its_dataset_by_its_fingerprint(store, run) -> None:
    found = client(run).get_run(run.run_id)
    assert found.inputs is not None
    inputs = {each.dataset.name: each for each in found.inputs.dataset_inputs}
    assert {name: each.tags[0].value for name, each in inputs.items()} == {
        "cc-en/2026.11.22": "training",
        "cc-en/2026.11.22 held out": "evaluation",
    }
    used = inputs["cc-en/2026.11.22"].dataset
    assert used.digest == "0123456789ab"
    assert used.source == f'{{"uri": "{store.full_path("datasets/cc-en/2026.11.22/manifest.json")}"}}'
    searched = client(run).search_runs([found.info.experiment_id], "dataset.digest = '0123456789ab'")
    assert run.run_id in {each.info.run_id for each in searched}
    assert found.data.params == {"model.num_layers": "2", "seed": "7"}
    assert found.data.tags["gristmill.fingerprint"] == "abc"
    assert store.exists("mlflow.db")


def test_another_launch_continues_the_run(store, run) -> None:
    finish_run(run, "FAILED")
    again = open_run(store, None, "tests", "again", tags={"prefect.flow_run_id": "2"}, previous=run)
    assert again == run
    found = client(run).get_run(run.run_id)
    assert (found.info.status, found.data.tags["prefect.flow_run_id"]) == ("RUNNING", "2")
    finish_run(run)
    assert client(run).get_run(run.run_id).info.status == "FINISHED"


def test_a_run_that_is_gone_is_started_anew(store, run) -> None:
    gone = run.model_copy(update={"run_id": "0" * 32})
    assert open_run(store, None, "tests", "anew", previous=gone).run_id not in (gone.run_id, run.run_id)


def test_artifacts_lie_under_the_root(store, run, tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("{}\n")
    log_file(run, path, "training")
    log_dict(run, {"text": "once"}, "samples.json")
    stored = {item.relative_to(store.local_path("mlflow-artifacts")).parts[-1] for item in artifacts(store)}
    assert {"metrics.jsonl", "samples.json"} <= stored


def test_a_run_that_was_deleted_is_started_anew(store, run) -> None:
    assert run_at(run, run.tracking_uri) == run
    client(run).delete_run(run.run_id)
    assert run_at(run, run.tracking_uri) is None
    assert open_run(store, None, "tests", "anew", previous=run).run_id != run.run_id


def test_a_run_is_told_by_its_id_whatever_the_address_of_its_database(store, run, tmp_path) -> None:
    elsewhere = run.model_copy(update={"tracking_uri": "http://127.0.0.1:9"})
    parameters = {"model": {"num_layers": 4}}  # a run keeps its first ones
    assert open_run(store, None, "tests", "again", previous=elsewhere, parameters=parameters) == run
    assert run_at(elsewhere, run.tracking_uri) == run
    assert run_at(run.model_copy(update={"run_id": "0" * 32}), run.tracking_uri) is None


def test_a_database_that_is_gone_is_not_made_anew(run, tmp_path, caplog) -> None:
    gone = run.model_copy(update={"tracking_uri": f"sqlite:///{tmp_path}/gone/mlflow.db"})
    assert run_at(run, gone.tracking_uri) is None
    log_metrics(gone, 1, {"loss": 2.0})
    assert "MLflow did not take metrics ([Errno 2]" in caplog.text
    assert not (tmp_path / "gone").exists()


def test_what_a_server_refuses_is_told_as_that(store) -> None:
    run = open_run(store, None, "given up", "small")
    with pytest.raises(BadInput, match=r"a//b.*answers, and must take what is recorded"):
        open_run(store, None, "given up", "small", tags={"a//b": "c"})
    client(run).delete_experiment(client(run).get_run(run.run_id).info.experiment_id)
    with pytest.raises(BadInput, match=r"experiment given up was deleted.*mlflow experiments restore -x \d"):
        open_run(store, None, "given up", "small", previous=run)


def test_a_store_of_artifacts_that_cannot_be_reached_stops_nothing(store, run, tmp_path, caplog, monkeypatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    client(run).create_experiment("in S3", artifact_location="s3://bucket/mlflow")
    log_text(open_run(store, None, "in S3", "small"), "a page", "page.md")
    assert "MLflow did not take page.md (Unable to locate credentials)" in caplog.text
    with pytest.raises(BadInput, match=r"Unable to locate credentials.*a store that this machine must reach"):
        open_run(store, None, "in S3", "small", parameters={"seed": 1})


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


def write(path: Path, rows: list[dict[str, float]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_each_step_is_delivered_once(run, tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "time": 1000.0 + step, "loss": 1.0 / step, "tokens": 64.0 * step} for step in range(1, 901)]
    first = MetricRows(run, path, "loss")
    assert first.deliver() == 0, "there is no file yet"
    write(path, rows[:300])
    with path.open("a") as file:
        file.write('{"step": 301, "lo')
    assert (first.deliver(), first.deliver(), first.last_step) == (300, 0, 300)
    # The next process of the same run makes the last steps again, and others after them.
    write(path.with_suffix(".tmp"), rows)
    path.with_suffix(".tmp").replace(path)
    assert MetricRows(run, path, "loss").deliver() == 600
    assert steps(run) == list(range(1, 901))
    history = client(run).get_metric_history(run.run_id, "loss")
    assert [metric.timestamp for metric in history if metric.step in (1, 900)] == [1001, 1900]


def test_steps_that_a_rollback_made_otherwise_are_told_again(run, tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, [{"step": step, "loss": 2.0} for step in (1, 2, 3)])
    rows = MetricRows(run, path, "loss")
    rows.deliver()
    write(path.with_suffix(".tmp"), [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}])
    path.with_suffix(".tmp").replace(path)
    assert rows.deliver() == 1
    assert client(run).get_run(run.run_id).data.metrics["loss"] == 2.0, "until step 3 is made again"
    history = client(run).get_metric_history(run.run_id, "loss")
    assert sorted((metric.step, metric.value) for metric in history) == [(1, 2.0), (2, 1.5), (2, 2.0), (3, 2.0)]


def test_metrics_wait_for_a_server_that_does_not_answer(run, tmp_path, caplog, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = run.model_copy(update={"tracking_uri": f"http://127.0.0.1:{unused.getsockname()[1]}"})
    write(tmp_path / "metrics.jsonl", [{"step": 1, "loss": 2.0}])
    rows = MetricRows(away, tmp_path / "metrics.jsonl", "loss")
    with pytest.raises(tracking_errors()):
        rows.deliver()
    with caplog.at_level(logging.WARNING):
        log_metrics(away, 1, {"heldout_loss": 2.0})
    assert "MLflow did not take metrics (" in caplog.text
    rows._run = run  # the server is back
    assert rows.deliver() == 1
    assert steps(run) == [1]


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (BadInput("a", "b", "c"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_a_run_ends_as_what_it_records_does(run, error, status) -> None:
    with suppress(BadInput, KeyboardInterrupt), ending_with(run):
        if error:
            raise error
    assert client(run).get_run(run.run_id).info.status == status


def test_parameters_and_tags_of_any_number_and_length_are_taken(store, tmp_path) -> None:
    parameters = {"long": "x" * 9000, "of": {f"number {place}": place for place in range(150)}, "odd?key": None}
    tags = {f"tag {place}": "y" * 6000 for place in range(101)}
    run = open_run(store, None, "tests", "large", tags=tags, parameters=parameters)
    data = client(run).get_run(run.run_id).data
    assert len(data.params) == 152
    assert (len(data.params["long"]), data.params["of.number 149"], data.params["odd_key"]) == (6000, "149", "None")
    assert data.params["long"].endswith("(cut: parameters.json has it whole)")
    assert json.loads(artifact(run, "parameters.json", tmp_path)) == parameters
    assert len(data.tags["tag 100"]) == 5000


def test_addresses_with_passwords_and_silent_servers_are_refused(store, monkeypatch) -> None:
    with pytest.raises(BadInput, match="MLFLOW_TRACKING_PASSWORD") as refusal:
        open_run(store, "https://me:hunter2@host", "tests", "run")
    assert "hunter2" not in str(refusal.value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(BadInput, match="must answer before a run starts"):
        open_run(store, "http://127.0.0.1:9", "tests", "run")
