"""What evaluations read."""

from pathlib import Path

import pytest

from flows.plans.evaluation_plan import plan_evaluation
from flows.plans.training_plan import plan_training
from infra.store import Store
from model.config import EvaluationSettings
from tests.model.made_runs import made_dataset
from tests.model.small_runs import small_training


@pytest.mark.parametrize(
    ("max_tokens", "heldout", "baselines", "read"),
    [
        (None, [900], True, 2 * 900 + 600),
        (None, [900], False, 900 + 600),
        (500, [900], True, 3 * 500),
        (500, [None], True, 3 * 500),
        (None, [None], True, 600),
        (None, [900, 700], True, 900 + 700 + 800 + 600),
    ],
)
def test_held_out_text_is_read_up_to_its_limit(
    tmp_path: Path, max_tokens: int | None, heldout: list[float | None], baselines: bool, read: float
):
    store = Store(str(tmp_path))
    made_dataset(store, "further", 1, 600)
    settings = EvaluationSettings(max_tokens=max_tokens, held_out=("further/1",))
    trained = plan_training(small_training(), 400)
    plan = plan_evaluation(settings, trained, heldout, times=3, processes=1, store=store, baselines=baselines)
    assert plan.heldout_tokens == read
    assert plan.device_hours is not None
    each = (trained.layouts[0].device_hours or 0) / trained.tokens
    assert plan.all_hours == pytest.approx(3 * plan.heldout_tokens * each / 3)
