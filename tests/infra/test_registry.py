"""MLflow's registry with a real SQLite store, and with a real server."""

import pytest
from mlflow.tracking import MlflowClient

from infra.errors import BadInput, RunFailed
from infra.registry import Checkpoint, Registry
from infra.store import Store
from infra.tracked_models import log_checkpoint, mark_removed
from infra.tracking import TrackedRun, default_tracking_uri, finish_run, open_run
from tests.flows.conftest import free_port
from tests.infra.mlflow_server import mlflow_server


def checkpoint(digest: str, **changes: object) -> Checkpoint:
    values = {
        "name": f"small-{digest}",
        "digest": digest,
        "step": 30,
        "dataset": ("small/2026.11.22", "0123456789ab"),
        "tags": {"step": "30"},
        "parameters": {"layers": 2},
        "metrics": {"heldout/bits_per_byte": 2.5},
    }
    return Checkpoint.model_validate(values | changes)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(str(tmp_path_factory.mktemp("root")))


@pytest.fixture(scope="module")
def run(store: Store) -> TrackedRun:
    return open_run(store, None, "tests", "small")


@pytest.fixture
def registry(store: Store, run: TrackedRun, request: pytest.FixtureRequest) -> Registry:
    return Registry(default_tracking_uri(store), request.node.name)


def test_a_checkpoint_is_one_version_however_often_it_is_registered(registry, run) -> None:
    assert registry.at("champion") is None, "neither model nor alias is there"
    one = registry.register(run, checkpoint("aa"), {"evaluation.json": b"{}", "scores/all.parquet": b"1"})
    again = registry.register(
        run, checkpoint("aa", tags={"step": "30", "evaluation": "e2"}), {"evaluation.json": b"[]"}
    )
    other = registry.register(run, checkpoint("bb"), {})
    assert (one.version, again.version, other.version) == (1, 1, 2)
    assert again.tags["evaluation"] == "e2"
    assert (again.run_id, again.model_id) == (run.run_id, one.model_id)
    assert registry.read(again, "evaluation.json") == b"[]"
    assert registry.read(again, "absent.json") is None
    assert registry.at("champion") is None, "no alias is there"

    client = MlflowClient(run.tracking_uri)
    model = client.get_logged_model(one.model_id)
    assert (model.params, model.status) == ({"layers": "2"}, "READY")
    assert [(metric.key, metric.value, metric.step) for metric in model.metrics or ()] == [
        ("heldout/bits_per_byte", 2.5, 30)
    ]
    outputs = client.get_run(run.run_id).outputs
    assert outputs is not None
    assert {each.model_id for each in outputs.model_outputs} >= {one.model_id, other.model_id}


def test_checkpoints_that_are_gone_are_marked(run) -> None:
    client = MlflowClient(run.tracking_uri)
    for digest, loss in (("kept", 2.0), ("gone", 1.0)):
        log_checkpoint(client, run, checkpoint(digest, metrics={"marked/loss": loss}))
    mark_removed(client, run, {"kept"})
    experiment = [client.get_run(run.run_id).info.experiment_id]
    found = {
        removed: [
            model.tags["checkpoint"]
            for model in client.search_logged_models(
                experiment, f"metrics.`marked/loss` < 3 AND tags.`checkpoint.removed` = '{removed}'"
            )
        ]
        for removed in ("true", "false")
    }
    assert found == {"true": ["gone"], "false": ["kept"]}
    log_checkpoint(client, run, checkpoint("gone"))
    assert not client.search_logged_models(
        experiment, "tags.`checkpoint.removed` = 'true' AND tags.checkpoint = 'gone'"
    )


def test_the_champion_changes_and_comes_back(registry, run) -> None:
    versions = [registry.register(run, checkpoint(f"{registry.model}-{digest}"), {}) for digest in "abc"]
    registry.nominate(versions[0])
    registry.promote(versions[0], None)
    assert registry.at("candidate") is None
    registry.promote(versions[0], None)  # again, after a kill
    registry.nominate(versions[1])
    registry.promote(versions[1], versions[0])
    registry.nominate(versions[2])
    found = {alias: registry.at(alias) for alias in ("candidate", "champion", "previous")}
    assert {alias: each and each.version for alias, each in found.items()} == {
        "candidate": 3,
        "champion": 2,
        "previous": 1,
    }
    with pytest.raises(RunFailed, match="was judged against version 1"):
        registry.promote(versions[2], versions[0])

    now, taken_back = registry.take_back("wrote only commas")
    assert (now.version, now.aliases, taken_back.version, taken_back.aliases) == (1, ("champion",), 2, ())
    assert taken_back.was_taken_back
    assert taken_back.tags["taken_back"] == "wrote only commas"
    with pytest.raises(BadInput, match="no champion before version 1"):
        registry.take_back("again")
    with pytest.raises(BadInput, match="has no champion"):
        Registry(registry.tracking_uri, "nothing").take_back("no reason")


def test_versions_are_described(registry, run) -> None:
    version = registry.register(run, checkpoint("described"), {})
    registry.annotate(version.version, {"verdict": "refused"}, "# Refused")
    found = MlflowClient(run.tracking_uri).get_model_version(registry.model, str(version.version))
    assert (found.description, found.tags["verdict"]) == ("# Refused", "refused")


def test_a_silent_server_is_bad_input(monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(BadInput, match="it must answer"):
        Registry("http://127.0.0.1:9", "model").at("champion")
    with pytest.raises(BadInput, match="MLFLOW_TRACKING_PASSWORD") as refusal:
        Registry("https://me:hunter2@host", "model")
    assert "hunter2" not in str(refusal.value)


def test_a_server_keeps_versions_and_files(store, tmp_path, capsys) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with mlflow_server(address, default_tracking_uri(store), tmp_path):
        run = open_run(store, address, "served", "small")
        registry = Registry(address, "served")
        version = registry.register(run, checkpoint("served"), {"evaluation.json": b"{}"})
        finish_run(run)
        assert not capsys.readouterr().out, "what a command prints with --json is one object"
        assert registry.register(run, checkpoint("served"), {}).version == version.version
        assert registry.read(version, "evaluation.json") == b"{}"
        registry.promote(version, None)
        assert registry.at("champion") == registry.version(version.version)
