"""Where MLflow has a run, whatever it was recorded by."""

from flows.runs import tracked_run
from infra.environment import Environment
from infra.store import Store
from model.run import LaunchRecord, load_launch
from tests.flows.evaluated_runs import trained


def test_the_server_that_is_wanted_is_asked_first(evaluated_store: Store, caplog, monkeypatch) -> None:
    store, environment = evaluated_store, Environment(root=evaluated_store.root)
    run = trained(store, "somewhere", 0.5)
    here = load_launch(store, run).tracked
    assert here is not None
    moved = here.model_copy(update={"tracking_uri": "http://127.0.0.1:9"})
    path = f"{run.folder}/launch.json"
    LaunchRecord(tracked=moved, flow_run_id="1").save(store, path)

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    silent = environment.model_copy(update={"mlflow_tracking_uri": "http://127.0.0.1:10"})
    assert tracked_run(store, run, silent) == moved
    assert "http://127.0.0.1:10" in caplog.text
    assert tracked_run(store, run, environment) == here
    assert load_launch(store, run) == LaunchRecord(tracked=here, flow_run_id="1")
    absent = environment.model_copy(update={"mlflow_tracking_uri": f"sqlite:///{store.local_path('other.db')}"})
    assert tracked_run(store, run, absent) == here
    LaunchRecord().save(store, path)
    assert tracked_run(store, run, environment) is None
