"""The plan of a refresh: versions to come, and the training after them."""

import json
from pathlib import Path

import pytest

from flows.plans.refresh_plan import affordable_refresh, plan_continued, plan_refresh
from flows.plans.whole_plan import PlanOptions
from flows.refreshes.champion import Champion
from flows.refreshes.history import RefreshRecord, record_path
from flows.refreshes.settings import ContinuationSettings, RefreshSettings
from infra.environment import Environment
from infra.errors import BadInput
from infra.manifest import fingerprint
from infra.store import Store
from model.config import Duration, EvaluationSettings
from tests.flows.small_crawls import settings
from tests.model.made_runs import made_dataset, made_evaluation, made_run
from tests.model.small_runs import small_training

CRAWL = "CC-MAIN-2026-05"
STATED = PlanOptions(device="H200", tokens_per_second=100)


def test_training_after_a_refresh_is_planned_with_it(tmp_path: Path):
    store, environment = Store(str(tmp_path)), Environment(root=str(tmp_path))
    seen = made_dataset(store, "news", 5000, 100)
    run = made_run(store, seen, "base", small_training(), (8,))
    made_evaluation(store, run, EvaluationSettings())
    going_on = ContinuationSettings(duration=Duration(tokens=64_000))
    refresh, champion = RefreshSettings(dataset="news", continuation=going_on), Champion(run, seen, 8)

    def hours() -> float:
        plan = plan_continued(refresh, going_on, champion, [], environment, STATED)
        assert not plan.refused
        return 3600 * plan.cost.gpu_hours

    assert hours() == 0, "nothing is new"
    new = seen.model_copy(update={"version": "2", "fingerprint": fingerprint(new=True)})
    new.save(store, f"{new.folder}/manifest.json")
    RefreshRecord(crawl=CRAWL, first_shard=0, shards=1, end=1).save(store, record_path("news", "2"))
    assert 640 < hours() < 700, "steps at the stated rate, then an evaluation"


def test_a_champion_that_is_not_there_is_refused_before_anything_is_built(tmp_path: Path):
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    mirror.mkdir()
    (mirror / "collinfo.json").write_text(json.dumps([{"id": CRAWL}]))
    RefreshRecord(crawl=CRAWL, first_shard=0, shards=1, end=1, empty=True).save(
        Store(str(root)), record_path("news", "1")
    )
    environment = Environment.model_validate({"root": str(root), "cost": {"core_hour": 1.0, "budget": 5.0}})
    assert affordable_refresh(settings(mirror), environment).cost.budget is None, "nothing is new: nothing to pay"
    refresh = settings(mirror, continuation={})
    assert "has no champion" in plan_refresh(refresh, environment, STATED).refused[0]
    with pytest.raises(BadInput, match="has no champion"):
        affordable_refresh(refresh, environment)
