"""A training plan for people: what is computed, what laws expect of it, layouts side by side."""

from collections.abc import Iterator

from flows.plans.training_plan import PlannedLayout, TrainingPlan
from model.estimates.memory import GIB, usable
from model.estimates.scaling import Scaling


def render_training(plan: TrainingPlan) -> str:
    """The plan as text for a terminal of 120 columns."""
    return "\n".join([*_facts(plan), "", *_table(plan), "", *_notes(plan)])


def _facts(plan: TrainingPlan) -> Iterator[str]:
    active = "" if plan.active == plan.weights else f" ({short(plan.active)} for each token)"
    yield f"Weights: {short(plan.weights)}{active}"
    yield f"Operations: {plan.flops_per_token / 1e9:,.2f} GFLOP for each token"
    yield f"Training: {short(plan.tokens)} tokens in {plan.steps:,} steps"
    total = plan.tokens * plan.flops_per_token
    yield f"Compute: {total:.3g} FLOP; {_rate(plan)}"
    yield from _expected(plan.scaling)


def _rate(plan: TrainingPlan) -> str:
    rate = plan.rate
    if rate.tokens_per_second_per_device is not None:
        return f"{rate.device} at {rate.tokens_per_second_per_device:,.0f} tokens/s ({rate.source})"
    if plan.peak_tflops is None or rate.mfu is None:
        return f"{rate.device}, whose rate is unknown: --measure makes some steps here"
    return f"{rate.device} of {plan.peak_tflops:,.0f} TFLOP/s at {rate.mfu:.0%} ({rate.source})"


def _expected(found: Scaling) -> Iterator[str]:
    repeated = "" if found.effective_tokens == found.tokens else f", worth {short(found.effective_tokens)} new ones"
    yield f"Expected loss, {found.tokens_per_parameter:,.1f} tokens for each weight{repeated}, in nats for each token:"
    for each in found.expected:
        best = f"{short(each.best_parameters)} weights on {short(each.best_tokens)} tokens"
        yield f"  {each.loss:.2f} by {each.law}; with as many operations {each.best_loss:.2f} at best, by {best}"
    if found.same_loss:
        yield "  the same loss would also take:"
    for each in found.same_loss:
        times = each.flops / found.flops
        yield f"    {short(each.parameters)} weights on {short(each.tokens)} tokens, {times:.2g} times the operations"


def _table(plan: TrainingPlan) -> Iterator[str]:
    yield (
        f"{'GPUs':>5} {'TP':>3} {'PP':>5} {'CP':>3} {'EP':>3} {'DP':>4} {'micro':>6} {'recompute':>9} {'idle':>6}"
        f"{'weights':>9}{'grad.':>7}{'optim.':>7}{'activ.':>7}{'work':>6}{'GiB':>7} {'fits':>5} {'GPU-hours':>10} "
        f"{'days':>7}"
    )
    for each in plan.layouts:
        yield _line(each)
        if each.refused:
            yield f"      cannot work: {each.refused}"


def _line(row: PlannedLayout) -> str:
    parallel, memory = row.parallel, row.memory
    tensor = f"{parallel.tensor}{'s' if parallel.shares_positions else ''}"
    pipeline = f"{parallel.pipeline}{f'x{parallel.virtual_pipeline}' if parallel.virtual_pipeline else ''}"
    gib = [each / GIB for each in (memory.weights, memory.gradients, memory.optimizer, memory.activations)]
    hours = "" if row.device_hours is None else f"{row.device_hours:,.0f}"
    days = "" if row.device_hours is None else f"{row.device_hours / parallel.processes / 24:,.1f}"
    fits = "?" if row.fits is None else ("yes" if row.fits else "no")
    return (
        f"{parallel.processes:>5} {tensor:>3} {pipeline:>5} {parallel.context:>3} {parallel.expert:>3} "
        f"{parallel.data:>4} {row.micro_batch_size:>6} {row.recompute:>9} {row.idle:>6.1%}"
        f"{gib[0]:>9.1f}{gib[1]:>7.1f}{gib[2]:>7.1f}{gib[3]:>7.1f}{memory.working / GIB:>6.1f}"
        f"{memory.total / GIB:>7.1f} {fits:>5} {hours:>10} {days:>7}"
    )


def _notes(plan: TrainingPlan) -> Iterator[str]:
    yield "TP with s: sequence parallel. PP 8x2: 8 stages of 2 interleaved pieces each. Memory: of the fullest device."
    if plan.device_memory_gib is None:
        yield "Whether it fits is unknown: set parallel.device_memory_gib to the memory of a device."
    else:
        room = usable(plan.device_memory_gib * GIB) / GIB
        yield f"A device of {plan.device_memory_gib:.0f} GiB has room for {room:.0f} GiB of tensors."


def short(number: float) -> str:
    """Three digits and a letter."""
    for limit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= limit:
            return f"{number / limit:.3g} {name}"
    return f"{number:,.0f}"
