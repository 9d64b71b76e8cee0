"""The plan of a whole flow: its parts added up, what they cost, what is to be noted, and why it would be refused."""

import shutil
from collections.abc import Iterator, Sequence

from flows.plans import Planned
from flows.plans.evaluation_plan import CHOICES, ITEM_TOKENS, EvaluationPlan
from flows.plans.planning import Plan
from flows.plans.training_left import TrainingLeft
from flows.plans.training_plan import PlannedLayout, TrainingPlan
from infra.cost import Cost, CostSettings
from infra.environment import Environment
from infra.errors import BadInput
from infra.settings import Settings
from infra.store import Store
from model.estimates.memory import GIB, usable

PRICES = ("gpu_hour", "core_hour", "gigabyte_month", "gigabyte_download")
"""Settings of what is paid for."""


class FlowPlan(Settings):
    """What a flow will take."""

    flow: Planned
    corpora: tuple[Plan, ...] = ()
    training: TrainingPlan | None = None
    trainings: int = 1
    """Trainings of this kind, one after the other."""
    left: TrainingLeft | None = None
    """What of them is to be done."""
    during: EvaluationPlan | None = None
    """Evaluations on the way of the trainings."""
    evaluation: EvaluationPlan | None = None
    """Evaluations of what is trained."""
    cost: Cost
    """Of all that is to be done."""
    seconds: float | None
    """Wall time, unknown where the rate of a device is."""
    money: float | None = None
    """None where nothing that is used has a price."""
    free_bytes: int | None = None
    """Free space under the root; none if it is remote."""
    prices: CostSettings = CostSettings()
    notes: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    """Why the flow would not be started."""


def summed(
    flow: Planned,
    environment: Environment,
    corpora: Sequence[Plan],
    *,
    training: TrainingPlan | None = None,
    trainings: int = 0,
    left: TrainingLeft | None = None,
    during: EvaluationPlan | None = None,
    evaluation: EvaluationPlan | None = None,
) -> FlowPlan:
    """The plan of a flow from those of its parts."""
    cost, seconds = Cost(), 0.0
    for corpus in corpora:
        cost += _corpus_cost(corpus)
        seconds += corpus.totals.seconds
    known = True
    if training is not None and left is not None:
        layout, work = training.layouts[0], [each for each in (during, evaluation) if each is not None and each.times]
        hours = left.tokens * (layout.device_hours or 0.0) / training.tokens + (during.all_hours if during else 0.0)
        known = layout.device_hours is not None or not (left.tokens or work)
        cost += _device_cost(training, hours + (evaluation.all_hours if evaluation else 0.0))
        cost += Cost(stored_bytes=left.checkpoint_bytes)
        seconds += 3600 * hours / layout.parallel.processes + left.unfinished * training.rate.startup_seconds
        seconds += 3600 * evaluation.all_hours / evaluation.processes if evaluation else 0.0
    plan = FlowPlan(
        flow=flow,
        corpora=tuple(corpora),
        training=training,
        trainings=trainings,
        left=left,
        during=during,
        evaluation=evaluation,
        cost=cost,
        seconds=seconds if known else None,
    )
    return concluded(plan, environment)


def concluded(plan: FlowPlan, environment: Environment) -> FlowPlan:
    """A plan with what its cost is in money, what is to be noted, and why it would be refused."""
    money, free = plan.cost.money(environment.cost), free_bytes(Store(environment.root))
    plan = plan.model_copy(update={"money": money, "prices": environment.cost, "free_bytes": free})
    notes = (*plan.notes, *_notes(plan))
    refused = (*_refusals(plan, environment.root), *_unlaunchable(plan, environment))
    return plan.model_copy(update={"notes": notes, "refused": refused})


def free_bytes(store: Store) -> int | None:
    """Free space under a root that need not be there yet; None if it is remote."""
    if not store.is_local:
        return None
    root = store.local_path("").absolute()
    return shutil.disk_usage(next(each for each in (root, *root.parents) if each.exists())).free


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
    amounts = (cost.gpu_hours, cost.core_hours, cost.stored_bytes, cost.downloaded_bytes)
    used = dict(zip(PRICES, amounts, strict=True))
    unpriced = [name for name, amount in used.items() if amount and getattr(prices, name) is None]
    if unpriced and len(unpriced) < len([amount for amount in used.values() if amount]):
        yield f"without a price, and in no sum: {', '.join(unpriced)} (environment.cost)"
    priced = any(getattr(prices, name) is not None for name in PRICES)
    if prices.budget is not None and plan.money is None and priced and any(amounts):
        yield "environment.cost.budget holds for nothing: nothing that is used has a price"
    if any(each.benchmark_tokens for each in (plan.during, plan.evaluation) if each is not None):
        yield f"benchmark items are taken to have {CHOICES} choices of {ITEM_TOKENS} tokens; to generate takes longer"
    if plan.training is not None and plan.seconds is None:
        yield "the time of the training is unknown: measure some steps here (--measure), or state --tokens-per-second"


def _refusals(plan: FlowPlan, root: str) -> Iterator[str]:
    needed = round(plan.cost.stored_bytes)
    if plan.free_bytes is not None and plan.free_bytes < needed:
        yield f"{needed:,} bytes are needed under {root}, {plan.free_bytes:,} are free"
    if plan.training is not None and plan.trainings:
        yield from _unfit(plan.training)
    yield from _unpaid(plan)


def _unpaid(plan: FlowPlan) -> Iterator[str]:
    """Why a budget is too small, or says nothing."""
    prices, budget = plan.prices, plan.prices.budget
    if budget is None:
        return
    if plan.money is not None and plan.money > budget:
        yield f"it costs {plan.money:,.2f} {prices.currency}, the budget is {budget:,.2f}"
    elif all(getattr(prices, name) is None for name in PRICES):
        yield f"environment.cost.budget is {budget:,.2f}, and there are no prices: {', '.join(PRICES)}"
    elif plan.seconds is None and getattr(prices, _priced_by(plan)) is not None:
        yield (
            f"environment.cost.budget is {budget:,.2f}, and the time is unknown that {_priced_by(plan)} is paid for; "
            "a training's is known with training.peak_tflops or from an earlier run like it"
        )


def _priced_by(plan: FlowPlan) -> str:
    """The price of the time that may be unknown."""
    return "core_hour" if plan.training is None or is_processor(plan.training.device) else "gpu_hour"


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


def _unlaunchable(plan: FlowPlan, environment: Environment) -> Iterator[str]:
    """Why the launcher has no nodes for the processes of a training or an evaluation."""
    trained = plan.training.layouts[0].parallel.processes if plan.training is not None and plan.trainings else None
    evaluated = plan.evaluation.processes if plan.evaluation is not None and plan.evaluation.times else None
    for processes in dict.fromkeys(each for each in (trained, evaluated) if each is not None):
        try:
            environment.launcher.shape(processes)
        except BadInput as error:
            yield f"{error.value}: {error.rule}. {error.remedy}"


def _named(layout: PlannedLayout) -> str:
    parallel = layout.parallel
    factors = f"tensor {parallel.tensor}, pipeline {parallel.pipeline}, context {parallel.context}"
    return f"{factors}, micro-batch {layout.micro_batch_size}, recompute {layout.recompute}"
