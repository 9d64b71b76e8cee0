"""How many checkpoints there will be."""

from typing import Any

import pytest

from flows.plans.training_left import training_left
from model.settings.safety import CheckpointSettings
from tests.model.small_runs import small_training


@pytest.mark.parametrize(
    ("settings", "steps", "done", "expected"),
    [
        ({"every_steps": None}, 95, 0, 1),
        ({"every_steps": 10}, 95, 0, 3),  # two that are kept, and one that is being written
        ({"every_steps": 10}, 15, 0, 2),
        ({"every_steps": 10}, 95, 40, 1),
        ({"every_steps": 10}, 95, 95, 0),
        ({"every_steps": 10, "keep": None}, 95, 0, 10),  # the last step's too
        ({"every_steps": 10, "keep": None}, 95, 40, 6),
        ({"every_steps": 10, "keep": 1, "keep_every": 30}, 95, 0, 5),
        ({"every_steps": 10, "keep": 1, "keep_every": 15}, 95, 0, 5),  # 30, 60, 90: no others are made
    ],
)
def test_checkpoints_are_counted_as_they_are_kept(settings: dict[str, Any], steps: int, done: int, expected: int):
    training = small_training().model_copy(update={"checkpoint": CheckpointSettings(**settings)})
    assert training_left(training, 100, steps, [done]).checkpoint_bytes == expected * 1200
