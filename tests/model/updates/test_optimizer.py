"""Learning rates."""

import pytest

from model.config import OptimizerSettings
from model.updates.optimizer import build_schedule


class Groups:
    """What the scheduler sees of an optimizer: parameter groups."""

    def __init__(self) -> None:
        self.param_groups = [{"wd_mult": 1.0}, {"wd_mult": 0.0}]


def rates(settings: OptimizerSettings, steps: int, wanted: list[int]) -> list[float]:
    """The learning rate of some updates, each as a run that resumes just before it would have it."""
    found = []
    for step in wanted:
        groups = Groups()
        build_schedule(groups, settings, steps, done=step - 1).step(1)
        found.append(groups.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", [0.5, 1.0, 1.0, 0.55, 0.1]),
        ("linear", [0.5, 1.0, 1.0, 0.55, 0.1]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("inverse-square-root", [0.5, 1.0, 0.953, 0.408, 0.302]),
        ("warmup-stable-decay", [0.5, 1.0, 1.0, 1.0, 0.1]),
    ],
)
def test_schedules(schedule, expected) -> None:
    settings = OptimizerSettings(learning_rate=1.0, min_learning_rate=0.1, warmup_steps=10, schedule=schedule)
    assert rates(settings, 110, [5, 10, 11, 60, 110]) == pytest.approx(expected, abs=0.01)


def test_warmup_stable_decay_falls_over_the_last_fraction() -> None:
    settings = OptimizerSettings(
        learning_rate=1.0, min_learning_rate=0, warmup_steps=0, schedule="warmup-stable-decay", decay_fraction=0.2
    )
    assert rates(settings, 100, [80, 90, 100]) == pytest.approx([1.0, 0.5, 0.0])


def test_a_warmup_longer_than_the_run_only_rises() -> None:
    settings = OptimizerSettings(learning_rate=1.0, warmup_steps=20)
    assert rates(settings, 10, [1, 10]) == pytest.approx([0.05, 0.5])


def test_one_dimensional_weights_do_not_decay() -> None:
    groups = Groups()
    build_schedule(groups, OptimizerSettings(weight_decay=0.1), 10, done=0).step(1)
    assert [group["weight_decay"] for group in groups.param_groups] == [0.1, 0.0]
