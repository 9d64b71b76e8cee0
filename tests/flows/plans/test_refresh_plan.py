"""Plans of refreshes: the training after one is a part of it."""

import json
from pathlib import Path

import pytest

from flows.plans.cached import AlreadyMade
from flows.plans.planning import Plan, nothing_to_do
from flows.plans.refresh_plan import affordable_refresh, plan_continuation, plan_refresh
from flows.plans.whole_plan import PlanOptions
from flows.refreshes.history import RefreshRecord, record_path
from flows.refreshes.settings import ContinuationSettings, RefreshSettings
from infra.environment import Environment
from infra.errors import BadInput
from infra.store import Store
from model.config import Duration, EvaluationSettings
from tests.model.made_runs import made_dataset, made_run
from tests.model.small_runs import small_training
from tests.tasks.records import write_crawl

CRAWL = "CC-MAIN-2026-05"
PRICES = {"gpu_hour": 3600.0, "budget": 100.0}
OPTIONS = PlanOptions(device="H200", tokens_per_second=100)


def test_training_after_a_refresh_is_paid_from_the_same_budget(tmp_path: Path):
    store = Store(str(tmp_path))
    champion = made_run(store, made_dataset(store, "news", 10_000, 600), "champion", small_training(), (8,))
    environment = Environment.model_validate({"root": str(tmp_path), "cost": PRICES})
    corpora: list[Plan] = [nothing_to_do(environment, 1, AlreadyMade(stages=(), complete=True))]
    settings = ContinuationSettings(duration=Duration(tokens=20_000))
    plan = plan_continuation(corpora, champion, EvaluationSettings(), settings, environment, OPTIONS)
    assert plan.training is not None
    assert plan.training.tokens >= 20_000
    assert plan.seconds == pytest.approx((plan.training.tokens + 600 / 3) / 100)
    assert plan.refused[0].endswith("USD, the budget is 100.00")


def test_a_refresh_with_nothing_to_do_costs_nothing_and_one_without_a_champion_is_refused(tmp_path: Path):
    write_crawl(tmp_path / "mirror", [b""], crawl=CRAWL)
    (tmp_path / "mirror" / "collinfo.json").write_text(json.dumps([{"id": CRAWL}]))
    done = RefreshRecord(crawl=CRAWL, first_shard=0, shards=1, end=1, empty=True)
    done.save(Store(str(tmp_path / "root")), record_path("news", "2026.05"))
    environment = Environment.model_validate({"root": str(tmp_path / "root"), "cost": PRICES})
    refresh = RefreshSettings.model_validate(
        {"dataset": "news", "corpus": {"source": {"base_url": str(tmp_path / "mirror")}}}
    )
    assert affordable_refresh(refresh, environment) == environment
    continued = refresh.model_copy(update={"continuation": ContinuationSettings()})
    assert "is in no sum" in plan_refresh(continued, environment, OPTIONS).notes[0]
    with pytest.raises(BadInput, match="has no champion"):
        affordable_refresh(continued, environment)
