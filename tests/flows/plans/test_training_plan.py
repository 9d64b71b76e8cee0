"""Trainings on paper: arithmetic that can be done by hand."""

import pytest

from flows.plans.training_plan import plan_seventy_billion, plan_training, usual_rate
from flows.plans.training_plan_text import render_training
from model.config import TrainingSettings
from model.estimates.memory import GIB


def eight_billion(**parallel: float) -> TrainingSettings:
    return TrainingSettings.model_validate(
        {
            "model": {"size": "8b", "sequence_length": 4096},
            "duration": {"tokens": 10**11},
            "global_batch_size": 256,
            "micro_batch_size": 1,
            "parallel": {"processes": 8, "device_memory_gib": 80, **parallel},
        }
    )


def test_the_time_is_operations_over_what_devices_reach() -> None:
    training = eight_billion(tensor=2, sequence_parallel=True)
    plan = plan_training(training, 128_256, rate=usual_rate(training, "H200", mfu=0.4))
    assert plan.weights == 8_030_261_248  # as Llama 3 8B
    assert plan.tokens == pytest.approx(1e11, rel=1e-4)
    assert plan.peak_tflops == 989
    row = plan.layouts[0]
    assert row.idle == 0
    assert row.device_hours == pytest.approx(plan.tokens * plan.flops_per_token / (0.4 * 989e12) / 3600)


def test_a_pipeline_waits() -> None:
    row = plan_training(eight_billion(pipeline=4, virtual_pipeline=2), 128_256).layouts[0]
    assert row.micro_batches == 128
    assert row.idle == pytest.approx(1.5 / 129.5)
    assert row.fits


def test_what_does_not_fit_stands_beside_what_does() -> None:
    first, *others = plan_training(eight_billion(device_memory_gib=64), 128_256).layouts
    assert first.fits is False
    assert len(others) == 3
    assert all(each.fits and each.refused is None for each in others)


def test_a_layout_that_cannot_work_says_why() -> None:
    text = render_training(plan_training(eight_billion(tensor=3), 128_256))
    assert "cannot work: parallel.processes = 8 with tensor x pipeline x context = 3 x 1 x 1" in text


def test_seventy_billion_on_paper() -> None:
    plan = plan_seventy_billion()
    assert plan.weights == 70_553_706_496  # as Llama 3 70B
    assert all(each.refused is None and each.fits for each in plan.layouts)
    for each in plan.layouts:
        parallel = each.parallel
        state = plan.weights / (parallel.tensor * parallel.pipeline)
        assert each.memory.weights + each.memory.gradients == pytest.approx(6 * state, rel=0.15)
        assert each.memory.total < 131 * GIB
    text = render_training(plan)
    assert max(map(len, text.splitlines())) <= 120
    assert "8x5" in text
