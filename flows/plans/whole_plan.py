"""What any flow will take before it runs: corpus, training and evaluation, their cost, and why it would be refused."""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from flows.ablations.settings import AblationSettings, variant_corpora
from flows.config import DatasetSettings, PipelineSettings
from flows.plans.planning import Plan, make_plan
from flows.plans.sampling import PlanSettings
from flows.plans.training_plan import DEVICE, PlannedLayout, TrainingPlan, plan_training, usual_rate
from flows.plans.trial import measured_rate
from flows.refreshes.refreshing import upcoming
from flows.refreshes.settings import RefreshSettings
from infra.cost import Cost, CostSettings
from infra.environment import Environment
from infra.errors import BadInput
from infra.manifest import load_dataset
from infra.settings import Settings
from infra.store import Store
from model.config import EvaluationSettings, TrainingSettings
from model.estimates.devices import this_device
from model.estimates.memory import GIB, usable
from model.estimates.rate import Rate, earlier_rate
from tasks.config import CorpusSettings

Planned = Literal[
    "crawl_to_model", "build_corpus", "refresh_corpus", "train_tokenizer", "pretrain", "evaluate", "ablate"
]
_CHOICES, _ITEM_TOKENS = 4, 150
"""Of a benchmark's item, where nothing else is known: MMLU has 4 choices, HellaSwag about 100 tokens in each."""
_ITEMS = 2000
"""Of a task without a limit."""


class PlanOptions(Settings):
    """On what a plan is based."""

    sample: PlanSettings = PlanSettings()
    """How much of a source is measured."""
    device: str | None = None
    """Name of the devices to train on, such as H200 or CPU; unset takes this machine's GPU, or H200 without one or where
    the launcher starts ranks on other machines."""
    mfu: float | None = Field(default=None, gt=0, le=1)
    """Part of the device's peak that training reaches while it does not wait."""
    tokens_per_second: float | None = Field(default=None, gt=0)
    """Tokens per second of one device, in the layout of the settings."""
    measure_steps: int | None = Field(default=None, ge=4)
    """Steps of the training that are made here, on random tokens, to measure its rate and memory."""


class EvaluationPlan(Settings):
    """What an evaluation will take; only its order of magnitude is certain."""

    heldout_tokens: float
    benchmark_tokens: float
    device_hours: float | None
    """Unknown where the rate is."""


class FlowPlan(Settings):
    """What a flow will take."""

    flow: Planned
    corpora: tuple[Plan, ...] = ()
    training: TrainingPlan | None = None
    trainings: int = 1
    """Trainings of this kind, one after the other."""
    evaluation: EvaluationPlan | None = None
    cost: Cost
    """Of all of it."""
    seconds: float | None
    """Wall time, unknown where the rate of a device is."""
    money: float | None = None
    """None where nothing that is used has a price."""
    prices: CostSettings = CostSettings()
    notes: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    """Why the flow would not be started."""


def plan_pipeline(flow: Planned, settings: PipelineSettings, options: PlanOptions) -> FlowPlan:
    """Plan crawl_to_model or a flow that is a part of it."""
    environment, training = settings.environment, settings.training
    corpora: list[Plan] = []
    if flow in ("crawl_to_model", "build_corpus"):
        corpora.append(make_plan(settings.corpus, environment, options.sample))
    if flow == "build_corpus":
        return _summed(flow, environment, corpora)
    vocabulary_size, tokens, heldout = _dataset(settings.dataset, environment, settings.corpus, corpora)
    elsewhere = environment.ranks_elsewhere
    rate = choose_rate(Store(environment.root), training, vocabulary_size, options, elsewhere=elsewhere)
    trained = plan_training(training, vocabulary_size, train_tokens=tokens, rate=rate, elsewhere=elsewhere)
    evaluation = None if flow == "pretrain" else _evaluation(settings.evaluation, trained, heldout)
    return _summed(flow, environment, corpora, trained, 0 if flow == "evaluate" else 1, evaluation)


def plan_ablation(settings: AblationSettings, options: PlanOptions) -> FlowPlan:
    """Plan an ablation: every variant's corpus, and a training for each variant and seed.

    Variants that read, extract and measure alike share those stages.
    """
    environment, variants = settings.environment, variant_corpora(settings)
    corpora: list[Plan] = []
    measured: list[CorpusSettings] = []
    for corpus in variants.values():
        made = make_plan(corpus, environment, options.sample)
        corpora.append(_without_measuring(made) if any(_measures_alike(corpus, each) for each in measured) else made)
        measured.append(corpus)
    vocabulary_size = settings.base.tokenizer.vocabulary_size
    elsewhere = environment.ranks_elsewhere
    rate = choose_rate(Store(environment.root), settings.training, vocabulary_size, options, elsewhere=elsewhere)
    tokens = min((round(each.tokens_train.expected) for each in corpora if each.tokens_train), default=0)
    trained = plan_training(settings.training, vocabulary_size, train_tokens=tokens, rate=rate, elsewhere=elsewhere)
    evaluation = _evaluation(settings.evaluation, trained, None)
    return _summed("ablate", environment, corpora, trained, len(variants) * len(settings.seeds), evaluation)


def plan_refresh(refresh: RefreshSettings, environment: Environment, options: PlanOptions) -> FlowPlan:
    """Plan a refresh: the versions that it would make of what is new. Training after it is planned by `pretrain`."""
    corpora = [make_plan(each, environment, options.sample) for each in upcoming(Store(environment.root), refresh)]
    return _summed("refresh_corpus", environment, corpora)


def choose_rate(
    store: Store, training: TrainingSettings, vocabulary_size: int, options: PlanOptions, *, elsewhere: bool = False
) -> Rate:
    """The rate that is stated, measured now, measured in an earlier run, or usual.

    Where the ranks run `elsewhere` this machine's device is not theirs.
    """
    known = options.device or (None if elsewhere else this_device())
    device = known or DEVICE
    if options.tokens_per_second is not None:
        return Rate(device=device, source="as stated", tokens_per_second_per_device=options.tokens_per_second)
    if options.mfu is not None:
        return usual_rate(training, device, options.mfu)
    if options.measure_steps is not None:
        return measured_rate(training, vocabulary_size, options.measure_steps)
    earlier = earlier_rate(store, training, vocabulary_size, known)
    return earlier or usual_rate(training, device)


def refuse(plan: FlowPlan) -> None:
    """BadInput for a plan that cannot fit or pay."""
    if plan.refused:
        raise BadInput(
            "; ".join(plan.refused),
            f"{plan.flow} is not started where its plan says that it cannot fit, or costs more than its budget",
            "Change what is named, or environment.cost.budget; `gristmill plan` shows the whole plan",
        )


def affordable(flow: Planned, settings: PipelineSettings) -> Environment:
    """Plan a flow if a budget is stated; BadInput where its plan refuses it, or the launcher its numbers of processes.

    Returns the environment for the flow's parts, which the plan has covered: without a budget of their own.
    """
    environment = settings.environment
    if flow in ("crawl_to_model", "pretrain"):
        environment.launcher.shape(settings.training.parallel.processes)
    if flow in ("crawl_to_model", "evaluate"):
        environment.launcher.shape(settings.evaluation.parallel.processes)
    if environment.cost.budget is None:
        return environment
    refuse(plan_pipeline(flow, settings, PlanOptions()))
    return without_budget(environment)


def without_budget(environment: Environment) -> Environment:
    """The same environment, where nothing is planned before it starts."""
    return environment.model_copy(update={"cost": environment.cost.model_copy(update={"budget": None})})


def _dataset(
    dataset: DatasetSettings, environment: Environment, corpus: CorpusSettings, corpora: Sequence[Plan]
) -> tuple[int, int, float | None]:
    """Vocabulary, training tokens (0 if unknown) and held-out tokens: of the plan, or of a dataset that is there."""
    if corpora and corpora[0].tokens_train is not None:
        heldout = corpora[0].tokens_heldout
        tokens = round(corpora[0].tokens_train.expected)
        return corpus.tokenizer.vocabulary_size, tokens, None if heldout is None else heldout.expected
    try:
        found = load_dataset(Store(environment.root), dataset.name, dataset.version)
    except BadInput:
        return corpus.tokenizer.vocabulary_size, 0, None
    return found.tokenizer.vocabulary_size, found.tokens("train"), found.tokens("heldout")


def _measures_alike(one: CorpusSettings, other: CorpusSettings) -> bool:
    names = ("source", "collections", "select", "extract", "signals", "train")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _without_measuring(plan: Plan) -> Plan:
    """A plan that finds everything up to the signals made by another variant."""
    names = [each.stage for each in plan.stages]
    stages = plan.stages[names.index("signals") + 1 :] if "signals" in names else plan.stages
    network = plan.network.model_copy(update={"bytes": 0.0, "requests": 0.0})
    sums = {name: sum(getattr(each, name) for each in stages) for name in ("disk_bytes", "cpu_seconds", "seconds")}
    return plan.model_copy(update={"stages": stages, "network": network, "totals": plan.totals.model_copy(update=sums)})


def _evaluation(settings: EvaluationSettings, trained: TrainingPlan, heldout: float | None) -> EvaluationPlan:
    """Forward passes: a third of a training's operations. The held-out text is read untrained too."""
    limit = settings.max_tokens if settings.max_tokens is not None else heldout
    read = 2 * min(limit or 0, heldout if heldout is not None else limit or 0)
    items = settings.benchmarks.limit or _ITEMS
    asked = len(settings.benchmarks.tasks) * items * _CHOICES * _ITEM_TOKENS
    chosen = trained.layouts[0]
    hours = None if chosen.device_hours is None else chosen.device_hours / trained.tokens * (read + asked) / 3
    return EvaluationPlan(heldout_tokens=read, benchmark_tokens=asked, device_hours=hours)


def _summed(
    flow: Planned,
    environment: Environment,
    corpora: Sequence[Plan],
    training: TrainingPlan | None = None,
    trainings: int = 0,
    evaluation: EvaluationPlan | None = None,
) -> FlowPlan:
    cost, seconds = Cost(), 0.0
    for corpus in corpora:
        cost += _corpus_cost(corpus)
        seconds += corpus.totals.seconds
    known = True
    if training is not None:
        times = max(trainings, 1 if evaluation else 0)
        measured = evaluation.device_hours if evaluation else 0.0
        hours = training.layouts[0].device_hours
        known = hours is not None
        total = (trainings * (hours or 0.0)) + times * (measured or 0.0)
        cost += _device_cost(training, total) + Cost(stored_bytes=trainings * training.checkpoint_bytes)
        starts = trainings * training.rate.startup_seconds
        seconds += 3600 * total / training.layouts[0].parallel.processes + starts
    plan = FlowPlan(
        flow=flow,
        corpora=tuple(corpora),
        training=training,
        trainings=trainings,
        evaluation=evaluation,
        cost=cost,
        seconds=seconds if known else None,
    )
    return concluded(plan, environment)


def concluded(plan: FlowPlan, environment: Environment) -> FlowPlan:
    """A plan with what its cost is in money, what is to be noted, and why it would be refused."""
    plan = plan.model_copy(update={"money": plan.cost.money(environment.cost), "prices": environment.cost})
    notes = (*plan.notes, *_notes(plan))
    refused = (*_refusals(plan), *_unlaunchable(environment, plan.training))
    return plan.model_copy(update={"notes": notes, "refused": refused})


def _corpus_cost(plan: Plan) -> Cost:
    return Cost(
        core_hours=plan.totals.cpu_seconds / 3600,
        stored_bytes=plan.totals.disk_bytes,
        downloaded_bytes=plan.network.bytes,
    )


def _device_cost(plan: TrainingPlan, hours: float) -> Cost:
    """On a CPU a process is a core."""
    return Cost(core_hours=hours) if is_processor(plan.device) else Cost(gpu_hours=hours)


def is_processor(device: str) -> bool:
    """Whether a device's name means the processor."""
    return device.lower().startswith("cpu")


def _notes(plan: FlowPlan) -> Iterator[str]:
    prices, cost = plan.prices, plan.cost
    used = {
        "gpu_hour": cost.gpu_hours,
        "core_hour": cost.core_hours,
        "gigabyte_month": cost.stored_bytes,
        "gigabyte_download": cost.downloaded_bytes,
    }
    unpriced = [name for name, amount in used.items() if amount and getattr(prices, name) is None]
    if unpriced and len(unpriced) < len([amount for amount in used.values() if amount]):
        yield f"without a price, and in no sum: {', '.join(unpriced)} (environment.cost)"
    if prices.budget is not None and plan.money is None:
        yield "environment.cost.budget holds for nothing: nothing that is used has a price"
    if plan.evaluation is not None and plan.evaluation.benchmark_tokens:
        yield f"benchmark items are taken to have {_CHOICES} choices of {_ITEM_TOKENS} tokens; to generate takes longer"
    if plan.training is not None and plan.seconds is None:
        yield "the time of the training is unknown: measure some steps here (--measure), or state --tokens-per-second"


def _refusals(plan: FlowPlan) -> Iterator[str]:
    for corpus in plan.corpora:
        if corpus.free_bytes is not None and corpus.free_bytes < corpus.totals.disk_bytes:
            yield f"{corpus.totals.disk_bytes:,} bytes are needed under {corpus.root}, {corpus.free_bytes:,} are free"
    if plan.training is not None:
        yield from _unfit(plan.training)
    budget = plan.prices.budget
    if budget is not None and plan.money is not None and plan.money > budget:
        yield f"it costs {plan.money:,.2f} {plan.prices.currency}, the budget is {budget:,.2f}"


def _unfit(plan: TrainingPlan) -> Iterator[str]:
    chosen = plan.layouts[0]
    if chosen.refused is not None:
        yield chosen.refused
    elif chosen.fits is False and plan.device_memory_gib is not None:
        room = usable(plan.device_memory_gib * GIB) / GIB
        others = "; ".join(_named(each) for each in plan.layouts[1:] if each.fits)
        yield (
            f"{chosen.memory.total / GIB:.1f} GiB are needed on each device, which has room for {room:.1f}"
            + (f"; what fits: {others}" if others else "")
        )


def _unlaunchable(environment: Environment, training: TrainingPlan | None) -> Iterator[str]:
    """Why the launcher has no nodes for the training's processes."""
    try:
        if training is not None:
            environment.launcher.shape(training.layouts[0].parallel.processes)
    except BadInput as error:
        yield f"{error.value}: {error.rule}. {error.remedy}"


def _named(layout: PlannedLayout) -> str:
    parallel = layout.parallel
    factors = f"tensor {parallel.tensor}, pipeline {parallel.pipeline}, context {parallel.context}"
    return f"{factors}, micro-batch {layout.micro_batch_size}, recompute {layout.recompute}"
