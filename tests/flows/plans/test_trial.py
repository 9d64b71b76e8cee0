"""A trial training: its rate is that of the training itself, and nothing of it stays."""

import tempfile
from pathlib import Path

import pytest

from flows.plans.trial import measured_rate
from infra.errors import BadInput
from tests.model.small_runs import layout, small_training


def test_some_steps_tell_the_rate_and_nothing_stays():
    before = set(Path(tempfile.gettempdir()).glob("gristmill-trial-*"))
    rate = measured_rate(small_training(100_000), 1000, 8)
    assert set(Path(tempfile.gettempdir()).glob("gristmill-trial-*")) == before
    assert rate.device.startswith("CPU")
    assert rate.source == "8 steps of a trial here"
    assert rate.memory_gib is not None
    assert 0.05 < rate.memory_gib < 4
    assert rate.startup_seconds > 0.5
    assert rate.tokens_per_second_per_device is not None
    assert rate.tokens_per_second_per_device > 100


def test_what_cannot_work_is_refused_as_a_run_would_be():
    with pytest.raises(BadInput, match="tensor"):
        measured_rate(small_training(8, parallel=layout(tensor=3)), 1000, 8)
