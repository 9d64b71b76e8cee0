"""Plans of flows: what is refused, what it costs, what is taken off; rates and where they come from."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flows.ablations.settings import AblationSettings
from flows.cli import main
from flows.config import PipelineSettings
from flows.plans.cached import already_made
from flows.plans.sampling import PlanSettings
from flows.plans.whole_plan import FlowPlan, PlanOptions, affordable, choose_rate, plan_ablation, plan_pipeline
from flows.plans.whole_plan_text import render_flow
from infra.cluster import Cluster
from infra.configuration import load_settings
from infra.errors import BadInput
from infra.launching.launcher_settings import SlurmSettings
from infra.store import Store
from model.config import TrainingSettings
from model.estimates.rate import usual_mfu
from tasks.pipeline import measure, pinned_corpus, refine
from tasks.stage import StageRunner
from tests.tasks.records import CRAWL

TRAINING = {
    "model": {"size": "1b"},
    "duration": {"tokens": 2_000_000_000},
    "global_batch_size": 64,
    "micro_batch_size": 4,
    "parallel": {"device_memory_gib": 139},
}


SAMPLE = PlanSettings(sample_shards=1, sample_records=9)


def pipeline(root: Path, cost: dict[str, Any] | None = None, **changes: Any) -> PipelineSettings:
    environment = {"root": str(root), "workers": 2, "cost": cost or {}}
    return PipelineSettings.model_validate({"environment": environment, "training": TRAINING, **changes})


def test_a_training_costs_its_gpu_hours(tmp_path: Path):
    stated = PlanOptions(device="H200", mfu=0.5)
    plan = plan_pipeline("pretrain", pipeline(tmp_path, {"gpu_hour": 3.0}), stated)
    assert plan.training is not None
    hours = plan.training.tokens * plan.training.flops_per_token / (0.5 * 989e12) / 3600
    assert plan.cost.gpu_hours == pytest.approx(hours)
    assert plan.money == pytest.approx(3 * hours)
    assert plan.seconds == pytest.approx(3600 * hours)
    assert plan.cost.stored_bytes == pytest.approx(3 * 14 * plan.training.weights)
    assert not plan.refused
    assert "gigabyte_month" in render_flow(plan)


def test_what_cannot_fit_or_pay_is_refused_before_it_starts(tmp_path: Path):
    settings = pipeline(tmp_path, {"gpu_hour": 3.0, "budget": 1.0}, training={**TRAINING, "micro_batch_size": 64})
    plan = plan_pipeline("pretrain", settings, PlanOptions(device="H200"))
    fit, pay = plan.refused
    assert "has room for 131.0; what fits: " in fit
    assert pay.endswith("USD, the budget is 1.00")
    with pytest.raises(BadInput, match="the budget is"):
        affordable("pretrain", settings)


def test_processes_that_fill_no_nodes_are_refused_before_they_start(tmp_path: Path):
    training = {**TRAINING, "parallel": {"device_memory_gib": 139, "processes": 12}, "global_batch_size": 48}
    settings = pipeline(tmp_path, training=training)
    assert affordable("pretrain", settings) == settings.environment
    launcher = SlurmSettings(processes_per_node=8, max_nodes=2)
    settings = settings.model_copy(
        update={"environment": settings.environment.model_copy(update={"launcher": launcher})}
    )
    with pytest.raises(BadInput, match=r"Set parallel\.processes to 8 or 16"):
        affordable("pretrain", settings)
    assert "full nodes" in plan_pipeline("pretrain", settings, PlanOptions(device="H200")).refused[0]


def test_ranks_on_other_machines_are_planned_without_this_one(tmp_path: Path):
    wanted = {**TRAINING, "parallel": {}, "fp8": "hybrid"}
    assert "fp8" in plan_pipeline("pretrain", pipeline(tmp_path, training=wanted), PlanOptions()).refused[0]
    environment = {"root": str(tmp_path), "launcher": {"kind": "slurm"}}
    plan = plan_pipeline("pretrain", pipeline(tmp_path, training=wanted, environment=environment), PlanOptions())
    assert not plan.refused
    assert plan.training is not None
    assert plan.training.device_memory_gib is None
    assert plan.training.device == "H200"


def test_a_budget_that_is_enough_is_not_asked_for_again(tmp_path: Path):
    environment = affordable("pretrain", pipeline(tmp_path, {"gpu_hour": 3.0, "budget": 10_000.0}))
    assert environment.cost.budget is None
    assert environment.cost.gpu_hour == 3.0


def test_the_command_says_so_by_its_exit_code(tmp_path: Path):
    given = ["--root", str(tmp_path), "--device", "H200", "--set", "training.model=1b", "--preset", "cc-en"]
    prices = ["--set", "environment.cost.gpu_hour=2", "--set", "environment.cost.budget=0.5", "--json"]
    answer = CliRunner().invoke(main, ["plan", "pretrain", *given, *prices])
    assert answer.exit_code == 1
    assert FlowPlan.model_validate_json(answer.stdout).refused
    assert CliRunner().invoke(main, ["plan", "pretrain", *given]).exit_code == 0
    assert CliRunner().invoke(main, ["plan", "--70b", "--json"]).exit_code == 0


def test_an_unknown_rate_is_said_to_be_unknown(tmp_path: Path):
    plan = plan_pipeline("pretrain", pipeline(tmp_path), PlanOptions(device="CPU"))
    assert plan.seconds is None
    assert "--measure" in render_flow(plan)
    stated = plan_pipeline("pretrain", pipeline(tmp_path), PlanOptions(device="CPU", tokens_per_second=1000))
    assert stated.cost.core_hours == pytest.approx(2e9 / 1000 / 3600, rel=1e-3)


def test_usual_rates_grow_with_the_model():
    sizes = [TrainingSettings.model_validate({"model": {"size": name}}) for name in ("4m", "150m", "1b", "8b", "70b")]
    reached = [usual_mfu(each) for each in sizes]
    assert reached == sorted(reached)
    assert reached[2] == pytest.approx(0.56, rel=1e-3)
    assert choose_rate(Store("x"), sizes[2], 1000, PlanOptions(device="A100")).device == "A100"


def corpus(base: Path) -> dict[str, Any]:
    return {
        "source": {"base_url": str(base), "crawl": CRAWL},
        "tokenizer": {"vocabulary_size": 600},
        "heldout": {"fraction": 0.1},
        "filter": {"language": {"min_score": 0.2}},
    }


def test_what_is_there_is_taken_off(small_crawl: Path, tmp_path: Path, cluster: Cluster):
    settings = pipeline(tmp_path, {"core_hour": 100.0}, corpus=corpus(small_crawl))
    run_chain_of(settings, cluster)
    plan = plan_pipeline("build_corpus", settings, PlanOptions())
    assert all(each.done for each in plan.corpora[0].there)
    assert plan.cost.core_hours == 0
    assert "nothing is left to do" in render_flow(plan)

    signals = next((tmp_path / "stages/signals").iterdir())
    (signals / "manifest.json").unlink()
    next((signals / "shards").iterdir()).unlink()
    rest = plan_pipeline("build_corpus", settings, PlanOptions(sample=SAMPLE)).corpora[0]
    state = {each.stage: (each.shards_done, each.shards) for each in rest.there}
    assert state == {"fetch": (3, 3), "select": (3, 3), "extract": (3, 3), "signals": (2, 3)}
    seconds = {each.stage: each.cpu_seconds for each in rest.stages}
    assert seconds["fetch"] == seconds["extract"] == 0
    assert seconds["signals"] > 0
    assert not list(tmp_path.glob(".plan-*"))


def run_chain_of(settings: PipelineSettings, cluster: Cluster) -> None:
    store = Store(settings.environment.root)
    runner = StageRunner(store, cluster)
    pinned = pinned_corpus(settings.corpus, store)
    assert not already_made(settings.corpus, store).complete
    refine(runner, measure(runner, pinned), pinned)


def test_an_ablation_is_all_its_trainings(small_crawl: Path, tmp_path: Path):
    given = {
        "environment": {"root": str(tmp_path), "workers": 2},
        "base": corpus(small_crawl),
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
