"""Plans of flows: what is refused, what it costs, what is taken off; rates and where they come from."""

import base64
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flows.cli import main
from flows.config import PipelineSettings
from flows.plans.cached import already_made
from flows.plans.flow_plan import FlowPlan
from flows.plans.sampling import PlanSettings
from flows.plans.training_plan import plan_training
from flows.plans.whole_plan import PlanOptions, affordable, choose_rate, plan_pipeline
from flows.plans.whole_plan_text import render_flow
from infra.cluster import Cluster
from infra.cost import Cost
from infra.errors import BadInput
from infra.launching.launcher_settings import SlurmSettings
from infra.manifest import load_dataset
from infra.store import Store
from model.config import EvaluationSettings, TrainingSettings
from model.estimates.rate import usual_mfu
from tasks.pipeline import measure, pinned_corpus, refine
from tasks.stage import StageRunner
from tests.model.made_runs import made_dataset, made_evaluation, made_run
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


def test_a_budget_that_cannot_be_judged_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with pytest.raises(BadInput, match="there are no prices: gpu_hour, core_hour"):
        affordable("pretrain", pipeline(tmp_path, {"budget": 10_000.0}))
    prices = {"core_hour": 1.0, "budget": 10_000.0}
    unknown, other = PlanOptions(device="CPU"), PlanOptions(device="NVIDIA RTX A6000")
    (said,) = plan_pipeline("pretrain", pipeline(tmp_path, prices), unknown).refused
    assert "the time is unknown that core_hour is paid for" in said
    assert not plan_pipeline("pretrain", pipeline(tmp_path, prices), other).refused, "its GPUs cost nothing"
    with caplog.at_level("INFO"):
        affordable("pretrain", pipeline(tmp_path, prices))
    assert "holds for nothing" in caplog.text


def test_the_command_says_so_by_its_exit_code(tmp_path: Path):
    given = ["--root", str(tmp_path), "--device", "H200", "--set", "training.model=1b", "--preset", "cc-en"]
    prices = ["--set", "environment.cost.gpu_hour=2", "--set", "environment.cost.budget=0.5", "--json"]
    answer = CliRunner().invoke(main, ["plan", "pretrain", *given, *prices])
    assert answer.exit_code == 1
    assert FlowPlan.model_validate_json(answer.stdout).refused
    assert CliRunner().invoke(main, ["plan", "pretrain", *given]).exit_code == 0
    assert CliRunner().invoke(main, ["plan", "--70b", "--json"]).exit_code == 0
    assert CliRunner().invoke(main, ["plan", "pretrain", *given, "--mfu", "0"]).exit_code == 2
    assert CliRunner().invoke(main, ["plan", "pretrain", *given, "--tokens-per-second", "0"]).exit_code == 2


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


def of_dataset(root: Path, cost: dict[str, Any] | None = None, **training: Any) -> PipelineSettings:
    """Settings for a dataset of 10,000 tokens for training and 3,000 held out, and 500 steps."""
    made_dataset(Store(str(root)), "corpus", 10_000, 3_000)
    steps = {"duration": {"steps": 500}, "checkpoint": {"every_steps": 100}}
    return pipeline(root, cost, training={**TRAINING, **steps, **training})


STATED = PlanOptions(device="H200", tokens_per_second=1000)
TOKENS = 500 * 64 * 4096


def test_evaluations_on_the_way_are_counted(tmp_path: Path):
    during = {"every_steps": 200, "of": {"max_tokens": 1_000, "benchmarks": {"tasks": ["piqa"], "limit": 10}}}
    settings = of_dataset(tmp_path, evaluation=during, parallel={"processes": 2, "device_memory_gib": 139})
    plan = plan_pipeline("pretrain", settings, STATED)
    assert plan.during is not None
    assert (plan.during.times, plan.during.heldout_tokens) == (2, 1_000)
    seconds = (TOKENS + 2 * (1_000 + 10 * 4 * 150) / 3) / 1000
    assert plan.cost.gpu_hours == pytest.approx(seconds / 3600)
    assert plan.seconds == pytest.approx(seconds / 2)
    assert "2 evaluations during training, each of 1,000 tokens" in render_flow(plan)
    by_tokens = {"every_tokens": 64 * 4096 // 2}
    often = plan_pipeline("pretrain", of_dataset(tmp_path, evaluation=by_tokens), STATED).during
    assert often is not None
    assert often.times == 500


def test_an_evaluation_has_a_layout_of_its_own(tmp_path: Path):
    settings = of_dataset(tmp_path, parallel={"processes": 64, "device_memory_gib": 1})
    evaluation = EvaluationSettings.model_validate({"parallel": {"processes": 4, "tensor": 2}})
    settings = settings.model_copy(update={"evaluation": evaluation})
    with pytest.raises(BadInput, match="it must be trained before"):
        plan_pipeline("evaluate", settings, STATED)
    store = Store(str(tmp_path))
    made_run(store, load_dataset(store, "corpus", None), settings.run, settings.training, (500,))
    plan = plan_pipeline("evaluate", settings, STATED)
    assert not plan.refused, "a run that is finished fits"
    assert plan.seconds == pytest.approx(2 * 3_000 / 3 / 1000 / 4)
    assert plan.cost.stored_bytes == 0
    assert "An evaluation of what is trained: 6,000 tokens" in render_flow(plan)
    odd = evaluation.model_copy(update={"parallel": evaluation.parallel.model_copy(update={"tensor": 3})})
    (refused,) = plan_pipeline("evaluate", settings.model_copy(update={"evaluation": odd}), STATED).refused
    assert refused.startswith("evaluation: parallel.processes = 4 with tensor")


def test_an_evaluation_is_planned_of_the_run_that_is_named(tmp_path: Path):
    store, settings = Store(str(tmp_path)), of_dataset(tmp_path)
    made_run(store, load_dataset(store, "corpus", None), "first", settings.training, (500,))
    named = PipelineSettings.model_validate({"environment": {"root": str(tmp_path)}, "run": "first"})
    plan = plan_pipeline("evaluate", named, STATED)
    assert plan.training is not None
    assert plan.training.weights == plan_training(settings.training, 400).weights
    assert plan.cost.gpu_hours > 0
    with pytest.raises(BadInput, match="runs/other/1-"):
        plan_pipeline("evaluate", named.model_copy(update={"run": "other"}), STATED)


def test_a_blend_is_planned_as_it_is_trained(tmp_path: Path):
    made_dataset(Store(str(tmp_path)), "more", 64 * 4096, 1)
    blend = [{"dataset": "corpus", "epochs": 2}, {"dataset": "more", "epochs": 3}]
    settings = of_dataset(tmp_path, data={"blend": blend}, duration={"epochs": 4})
    plan = plan_pipeline("pretrain", settings, STATED)
    assert plan.training is not None
    assert plan.training.steps == -(-4 * (2 * 10_000 + 3 * 64 * 4096) // (64 * 4096))
    assert plan.training.scaling.unique_tokens == 2 * 10_000 + 3 * 64 * 4096


def test_an_imported_tokenizer_says_its_vocabulary(tmp_path: Path):
    ranks = [f"{base64.b64encode(bytes([byte])).decode()} {byte}" for byte in range(256)]
    (tmp_path / "given").write_text("\n".join(ranks))
    existing = {"pattern": "gpt2", "special_tokens": {"<|endoftext|>": 256}}
    settings = pipeline(tmp_path, corpus={"tokenizer": {"path": "given", "existing": existing}}, training=TRAINING)
    plan = plan_pipeline("pretrain", settings, STATED)
    assert plan.training is not None
    assert plan.training.weights == plan_training(settings.training, 257).weights


def test_steps_that_are_made_are_taken_off(tmp_path: Path):
    store, settings = Store(str(tmp_path)), of_dataset(tmp_path, {"gpu_hour": 1.0}, evaluation={"every_steps": 50})
    dataset = load_dataset(store, "corpus", None)
    whole = plan_pipeline("pretrain", settings, STATED)
    made_run(store, dataset, settings.run, settings.training, (300, 400))
    plan = plan_pipeline("pretrain", settings, STATED)
    assert whole.left is not None
    assert plan.left is not None
    assert plan.left.tokens == pytest.approx(whole.left.tokens / 5)
    assert (whole.left.evaluations, plan.left.evaluations) == (10, 2)
    assert plan.money == pytest.approx((whole.money or 0) / 5)
    assert plan.cost.stored_bytes == pytest.approx(whole.cost.stored_bytes / 3)
    assert "Left of it: 1 of 1 trainings, 26.2 M tokens" in render_flow(plan)

    run = made_run(store, dataset, settings.run, settings.training, (500,))
    plan = plan_pipeline("pretrain", settings, PlanOptions(device="unknown"))
    assert plan.cost == Cost()
    assert plan.seconds == 0
    made_evaluation(store, run, settings.evaluation)
    measured = plan_pipeline("evaluate", settings, STATED)
    assert measured.evaluation is not None
    assert (measured.evaluation.times, measured.cost) == (0, Cost())
