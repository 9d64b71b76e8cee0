"""What a run has cost, over several launches."""

import time

import pytest

from infra.cost import CostSettings
from infra.store import Store
from model.delivery import CostMeter, read_cost
from model.run import LaunchRecord, prepare_run
from tests.model.small_runs import small_training


def test_cost_adds_up_over_launches_and_has_a_price_where_one_is_stated(store: Store, dataset) -> None:
    run = prepare_run(store, dataset, "priced", small_training())
    launch = LaunchRecord(prices=CostSettings(currency="EUR", gpu_hour=2.0))

    def an_hour() -> CostMeter:
        meter = CostMeter(store, run, launch, started=time.time() - 3600, gpus=4, cores=8)
        meter.save()
        return meter

    an_hour()
    meter = an_hour()
    cost = read_cost(store, run)
    assert (cost.gpu_hours, cost.core_hours) == (pytest.approx(8, rel=0.02), pytest.approx(16, rel=0.02))
    assert meter.metrics()["cost/EUR"] == pytest.approx(16, rel=0.02)
    free = CostMeter(store, run, LaunchRecord(), started=time.time(), gpus=1, cores=1).metrics()
    assert set(free) == {"cost/gpu_hours", "cost/core_hours"}
