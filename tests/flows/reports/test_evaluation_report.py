"""What MLflow gets of an evaluation that it missed."""

from flows.reports.evaluation_report import publish_evaluation
from infra.store import Store
from infra.tracking import client_of
from model.findings.tracking import EVALUATED
from model.run import EvaluationRecord, evaluation_path, load_launch
from tests.flows.evaluated_runs import trained
from tests.model.made_runs import made_summary


def test_an_evaluation_that_mlflow_missed_is_delivered_with_its_page(evaluated_store: Store) -> None:
    store, run = evaluated_store, trained(evaluated_store, "missed", 0.5)
    record, tracked = EvaluationRecord.load(store, evaluation_path(run, 30)), load_launch(store, run).tracked
    assert tracked is not None

    def found() -> list[int]:
        publish_evaluation(store, run, record, 100)
        return [each.step for each in client_of(tracked).get_metric_history(tracked.run_id, EVALUATED)]

    assert found() == [], "a training that goes on delivers by itself"
    made_summary(run).save(store, f"{run.folder}/training.json")
    assert (found(), found()) == ([30], [30])
    tables = client_of(tracked).list_artifacts(tracked.run_id)
    assert {"evaluation.html", "benchmarks.json"} <= {each.path for each in tables}
