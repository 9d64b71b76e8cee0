"""What the evaluation flow refuses before any process starts."""

from pathlib import Path

import pytest

from flows.config import DatasetSettings
from flows.evaluation import evaluate
from infra.environment import Environment
from infra.errors import BadInput
from infra.store import Store
from model.config import EvaluationSettings
from tests.model.made_runs import made_dataset, made_run
from tests.model.small_runs import layout, small_training


def test_a_budget_holds_for_an_evaluation_and_the_layout_of_the_training_does_not(tmp_path: Path):
    store, training = Store(str(tmp_path)), small_training(parallel=layout(data=4, device_memory_gib=0.1))
    dataset = DatasetSettings(name="small", version="1")
    manifest = made_dataset(store, "small", 10_000, 1_000)
    prices = {"gpu_hour": 1e12, "core_hour": 1e12, "budget": 1.0}
    environment = Environment.model_validate({"root": str(tmp_path), "cost": prices})

    def refused() -> str:
        with pytest.raises(BadInput) as error:
            evaluate.fn("model", EvaluationSettings(), None, training, dataset, environment)
        return str(error.value)

    assert "it must be trained before it is evaluated" in refused()
    assert not store.exists("runs")
    made_run(store, manifest, "model", training, (8,))
    assert "the budget is 1.00" in refused()
