"""Comparison of evaluations that lie on disk, tracked in a real MLflow."""

import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from flows.comparison import compare_runs
from flows.reports.task_table import evaluation_text, number, task_table
from infra.environment import Environment
from infra.errors import BadInput
from infra.store import Store
from model.findings.comparing import Comparison, ComparisonSettings
from model.run import prepare_run
from tests.flows.evaluated_runs import write_evaluation
from tests.model.findings.contenders import DATASET, contender, rights
from tests.model.small_runs import small_training

SETTINGS = ComparisonSettings(bootstrap_draws=200)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(root=str(tmp_path_factory.mktemp("root")), mlflow_experiment="tests")
    store = Store(environment.root)
    DATASET.save(store, f"{DATASET.folder}/manifest.json")
    evaluated(store, "base", {10: (0.3, 3.0), 20: (0.4, 2.5), 30: (0.5, 2.0)})
    evaluated(store, "other", {30: (0.6, 1.9)})
    prepare_run(store, DATASET, "empty", small_training(seed=5))
    return environment


def evaluated(store: Store, name: str, steps: dict[int, tuple[float, float]]) -> None:
    """A run with evaluations of some steps: the share of right answers and bits per byte of each."""
    run = prepare_run(store, DATASET, name, small_training(seed=sum(name.encode())))
    for step, (share, bits) in steps.items():
        write_evaluation(
            store, contender({"piqa": rights(share), "boolq": rights(0.5, seed=2)}, bits, run=run, step=step)
        )
    rows = [json.dumps({"step": step, "tokens": 100 * step}) + "\n" for step in range(1, 31)]
    store.write_bytes(f"{run.folder}/metrics.jsonl", "".join(rows).encode())


def test_two_runs_side_by_side(environment: Environment) -> None:
    store = Store(environment.root)
    found = compare_runs(store, ("base", "other"), SETTINGS, environment)
    made = found.comparison
    assert [(each.label, each.step, each.tokens) for each in made.runs] == [("base", 30, 3000), ("other", 30, 3000)]
    assert made.folder == "comparison/base-vs-other"
    piqa = next(row for row in made.tables[0].rows if row.task == "piqa")
    assert piqa.figures[1].difference is not None
    assert piqa.figures[1].difference.difference == pytest.approx(0.1)
    assert {(each.label, len(each.points)) for each in made.curves} == {("base", 3), ("other", 1)}
    text = found.text()
    assert "0.5000 [" in text
    assert "+0.1000 [" in text
    assert "better" in text
    assert Comparison.load(store, f"{made.folder}/comparison.json") == made
    folder = Path(found.page).parent
    assert sorted(path.name for path in folder.rglob("*.*")) == [
        "comparison.html",
        "comparison.json",
        "comparison.md",
        "curves.png",
        "curves.svg",
        "scores.png",
        "scores.svg",
    ]
    page = Path(found.page).read_text()
    assert page.count("<svg") == 2
    assert "| piqa | acc | 400 |" in (folder / "comparison.md").read_text()

    again = compare_runs(store, ("base", "other"), SETTINGS, environment)
    assert again == found, "the same run of MLflow, the same figures"
    assert Path(found.page).read_text() == page
    assert made.tracked is not None
    client = MlflowClient(made.tracked.tracking_uri)
    run = client.get_run(made.tracked.run_id)
    assert run.data.tags["purpose"] == "comparison"
    assert run.info.status == "FINISHED"
    assert run.data.metrics["difference/other/piqa/acc"] == pytest.approx(0.1)
    names = {each.path for each in client.list_artifacts(made.tracked.run_id)}
    pages = {"comparison.html", "comparison.json", "comparison.md", "comparison-table.json", "figures"}
    assert names == {*pages, "parameters.json"}
    table = json.loads(Path(client.download_artifacts(made.tracked.run_id, "comparison-table.json")).read_text())
    assert table["columns"] == ["table", "task", "metric", "run", "score", "difference", "p", "verdict"]


def test_two_steps_of_one_run(environment: Environment) -> None:
    store = Store(environment.root)
    found = compare_runs(store, ("base@10", "base@30"), SETTINGS, environment).comparison
    assert [each.label for each in found.runs] == ["base@10", "base@30"]
    assert found.name == "base-10-vs-base-30"
    assert [len(each.points) for each in found.curves if each.label == "base@30"] == [3, 3, 3]


def test_what_cannot_be_compared(environment: Environment) -> None:
    store = Store(environment.root)
    for runs, why in (
        (("base",), "takes two or more"),
        (("base", "base"), "twice"),
        (("base", "base@30"), "twice"),
        (("base", "base@7"), r"steps \[10, 20, 30\]"),
        (("base", "base@x"), "RUN@STEP"),
        (("base", "nothing"), "names one run"),
        (("base", "empty"), "has no evaluation"),
    ):
        with pytest.raises(BadInput, match=why):
            compare_runs(store, runs, SETTINGS, environment)


def test_the_table_of_one_evaluation() -> None:
    tasks = {"piqa": rights(0.5), "mmlu_a": rights(0.4, 50)}
    changes = {"piqa": {"contaminated": 20, "clean_metrics": {"acc": {"value": 0.48, "low": 0.4, "high": 0.55}}}}
    record = contender(tasks, groups={"mmlu": ("mmlu_a",)}, changes=changes).record
    table = task_table(record)
    assert [row[0] for row in table.rows] == ["mmlu", "piqa"]
    piqa = dict(zip(table.head, table.rows[1], strict=True))
    assert piqa["score"].startswith("0.5000 [")
    assert (piqa["chance"], piqa["contaminated"], piqa["clean"]) == ("0.250", "20 (5.0%)", "0.4800 [0.4000, 0.5500]")
    assert [row[0] for row in task_table(record, members=True).rows] == ["mmlu", "piqa", "  mmlu_a"]
    assert "piqa" in evaluation_text(record)
    assert "Benchmarks" not in evaluation_text(contender({}).record)
    assert (number(0.00012), number(12.345), number(12345.6), number(-1.5, "+")) == (
        "0.0001",
        "12.35",
        "12,346",
        "-1.5000",
    )
