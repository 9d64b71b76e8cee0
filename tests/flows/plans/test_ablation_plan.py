"""Plans of ablations: all corpora, all trainings, what measures them, and what is there already."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.ablations.settings import AblationSettings, evaluation_of, training_of
from flows.plans.ablation_plan import plan_ablation, runs_done
from flows.plans.training_plan import plan_training
from flows.plans.whole_plan import PlanOptions
from infra.configuration import load_settings
from infra.store import Store
from tests.flows.plans.test_whole_plan import SAMPLE, TRAINING
from tests.model.made_runs import made_dataset, made_evaluation, made_run
from tests.model.small_runs import small_training
from tests.tasks.records import CRAWL


def test_an_ablation_is_all_its_trainings(small_crawl: Path, tmp_path: Path):
    base = {
        "source": {"base_url": str(small_crawl), "crawl": CRAWL},
        "tokenizer": {"vocabulary_size": 600},
        "heldout": {"fraction": 0.5},
        "filter": {"language": {"min_score": 0.2}},
    }
    given = {
        "environment": {"root": str(tmp_path), "workers": 2},
        "base": base,
        "variants": {"as-is": {}, "strict": {"filter": {"language": {"min_score": 0.9}}}},
        "training": TRAINING,
        "seeds": [1, 2, 3],
    }
    path = tmp_path / "ablation.json"
    path.write_text(json.dumps(given))
    settings = load_settings(AblationSettings, AblationSettings(), path, [])
    plan = plan_ablation(settings, PlanOptions(device="H200", sample=SAMPLE))
    assert plan.trainings == 6
    first, second = plan.corpora
    assert "fetch" in {each.stage for each in first.stages}
    assert "fetch" not in {each.stage for each in second.stages}
    assert plan.training is not None
    assert plan.cost.gpu_hours == pytest.approx(6 * (plan.training.layouts[0].device_hours or 0), rel=0.01)
    held_out = sum(each.tokens_heldout.expected for each in plan.corpora if each.tokens_heldout)
    assert plan.during is not None
    assert plan.during.times == 6, "one evaluation of each model, at its last step"
    assert plan.during.heldout_tokens == pytest.approx(held_out), "of the text of all variants"
    assert held_out > 0
    assert plan.evaluation is not None
    assert plan.evaluation.times == 0


def ablation(**changes: Any) -> AblationSettings:
    variants = {"all": {}, "clean": {"filter": {"language": {"min_score": 0.9}}}}
    given = {"name": "abl", "variants": variants, "training": small_training().model_dump(mode="json")}
    return AblationSettings.model_validate({**given, **changes})


def test_finished_runs_of_an_ablation_are_known(tmp_path: Path):
    store, settings = Store(str(tmp_path)), ablation()
    datasets = {name: made_dataset(store, f"abl-{name}", 10_000, 100) for name in ("all", "clean")}
    trained = plan_training(settings.training, 400)
    assert runs_done(settings, trained, list(datasets), {}, store) == ([0] * 4, 0)

    first, second = (
        made_run(store, datasets["all"], f"abl-all-{seed}", training_of(settings, seed), (8,)) for seed in (1, 2)
    )
    made_run(store, datasets["clean"], "abl-clean-1", training_of(settings, 1), (2, 5))
    made_evaluation(store, first, evaluation_of(settings, ["abl-clean/1"]), untrained=None)
    made_evaluation(store, second, settings.evaluation)
    assert runs_done(settings, trained, list(datasets), datasets, store) == ([8, 8, 5, 0], 1)


def test_other_measures_on_the_way_leave_those_at_the_end(tmp_path: Path):
    settings = ablation(training={**small_training().model_dump(mode="json"), "evaluation": {"every_steps": 4}})
    trained = plan_training(settings.training, 400)
    assert runs_done(settings, trained, ["all", "clean"], {}, Store(str(tmp_path))) == ([0] * 4, 4)
