"""Figures over the items that a model has not seen."""

import math

import pytest

from model.benchmarks.items import scores_table
from model.benchmarks.task_samples import Score
from model.findings.clean_scores import with_contamination
from model.findings.intervals import estimate
from model.findings.records import Estimate, TaskResult
from model.settings.benchmarks import BenchmarkSettings

SETTINGS = BenchmarkSettings(bootstrap_draws=200)
ACC = {"a": [1.0, 1, 0, 0], "b": [1.0, 1, 1, 1, 1, 0, 0, 0]}
SCORES = scores_table(
    {
        task: {
            "acc": [Score(item, value, 1) for item, value in enumerate(values)],
            "perplexity": [Score(item, value + item, 2) for item, value in enumerate(values)],
        }
        for task, values in ACC.items()
    }
)


def result(task: str, acc: float, members: tuple[str, ...] = (), **more: float) -> TaskResult:
    return TaskResult(
        task=task,
        version="1",
        items=sum(len(ACC[each]) for each in members or (task,)),
        few_shot=0,
        metrics={name: Estimate(value=value) for name, value in {"acc": acc, **more}.items()},
        main_metric="acc",
        members=members,
    )


def test_metrics_are_taken_over_the_other_items() -> None:
    whole = result("a", 0.5, perplexity=math.exp(8 / 8), f1=0.4)
    (found,) = with_contamination([whole], SCORES, {"a": [0, 1]}, SETTINGS)
    assert found.contaminated == 2
    assert found.metrics == whole.metrics
    assert found.clean_metrics is not None
    assert set(found.clean_metrics) == {"acc", "perplexity"}, "f1 is no ratio of sums"
    assert found.clean_metrics["acc"] == estimate([0, 0], draws=200)
    assert found.clean_metrics["perplexity"].value == pytest.approx(math.exp((2 + 3) / 4))


def test_what_was_not_looked_for_stays_as_it_is() -> None:
    a, b = result("a", 0.5), result("b", 0.625)
    found = with_contamination([a, b], SCORES, {"b": []}, SETTINGS)
    assert found[0] == a
    assert (found[1].contaminated, found[1].clean_metrics) == (0, b.metrics)
    (nothing_left,) = with_contamination([a], SCORES, {"a": range(4)}, SETTINGS)
    assert (nothing_left.contaminated, nothing_left.clean_metrics) == (4, {})


@pytest.mark.parametrize(("acc", "clean"), [(7 / 12, 5 / 10), ((4 / 8 + 5 / 8) / 2, (0 / 2 + 5 / 8) / 2)])
def test_a_group_counts_its_items_or_its_members_alike(acc, clean) -> None:
    group = result("both", acc, members=("a", "b")).model_copy(update={"members_alike": acc != 7 / 12})
    (found,) = with_contamination([group], SCORES, {"a": [0, 1]}, SETTINGS)
    assert found.contaminated == 2
    assert found.clean_metrics is not None
    assert found.clean_metrics["acc"].value == pytest.approx(clean)
    (empty,) = with_contamination([group], SCORES, {"a": range(4), "b": [0]}, SETTINGS)
    assert empty.contaminated == 5
    assert empty.clean_metrics is not None
    assert empty.clean_metrics["acc"].value == pytest.approx(4 / 7), "of the only member that is left"
