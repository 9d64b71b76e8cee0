"""The plan of a flow for people: its parts, what it costs, why it would be refused."""

from collections.abc import Iterator

from flows.plans.flow_plan import FlowPlan
from flows.plans.plan_text import render, size, time
from flows.plans.training_plan_text import render_training, short


def render_flow(plan: FlowPlan) -> str:
    """The plan as text for a terminal of 120 columns."""
    blocks = [render(corpus) for corpus in plan.corpora]
    if plan.flow == "refresh_corpus" and not blocks:
        blocks.append("Nothing is new: the refresh ends in seconds")
    if plan.training is not None and plan.trainings:
        several = f"{plan.trainings} trainings, each:\n" if plan.trainings > 1 else ""
        blocks.append(several + render_training(plan.training))
    blocks += ["\n".join(lines) for lines in (list(_left(plan)), list(_evaluations(plan)), list(_costs(plan))) if lines]
    return "\n\n".join(blocks)


def _left(plan: FlowPlan) -> Iterator[str]:
    training, left = plan.training, plan.left
    if training is not None and left is not None and left.tokens < plan.trainings * training.tokens:
        yield f"Left of it: {left.unfinished} of {plan.trainings} trainings, {short(left.tokens)} tokens"


def _evaluations(plan: FlowPlan) -> Iterator[str]:
    for name, found in (("during training", plan.during), ("of what is trained", plan.evaluation)):
        if found is None or not found.times:
            continue
        hours = "an unknown time" if found.device_hours is None else time(3600 * found.device_hours)
        tokens = f"{short(found.heldout_tokens)} tokens of held-out text, {short(found.benchmark_tokens)} of benchmarks"
        times = f"{found.times} evaluations {name}, each of" if found.times > 1 else f"An evaluation {name}:"
        yield f"{times} {tokens}: {hours} of one device"


def _costs(plan: FlowPlan) -> Iterator[str]:
    cost = plan.cost
    amounts = [
        f"{cost.gpu_hours:,.2f} GPU-hours" if cost.gpu_hours else "",
        f"{cost.core_hours:,.2f} core-hours" if cost.core_hours else "",
        f"{size(cost.stored_bytes)} kept" if cost.stored_bytes else "",
        f"{size(cost.downloaded_bytes)} downloaded" if cost.downloaded_bytes else "",
    ]
    known = ", ".join(each for each in amounts if each) or "nothing"
    yield f"{plan.flow}: {'an unknown time' if plan.seconds is None else time(plan.seconds)}, {known}"
    if plan.money is not None:
        yield f"Cost: {plan.money:,.2f} {plan.prices.currency}"
    yield from (f"Note: {note}" for note in plan.notes)
    yield from (f"REFUSED: {reason}" for reason in plan.refused)
