"""A training on paper: weights, operations, memory on each device, idle time of pipelines and device-hours.

Nothing is started and nothing is asked of a device but, where the settings leave it open, its memory. The time is

    tokens * operations of a token * again / (devices * peak * MFU * (1 - idle))

where again counts what is computed twice (4 / 3 for full recomputation), MFU is what the devices reach while none
waits for another stage, and idle what a pipeline adds: with m micro-batches in a step, p stages and v pieces in each,
(p - 1) / v of m + (p - 1) / v (arXiv:2104.04473).
"""

from collections.abc import Iterator, Sequence

from infra.errors import BadInput
from infra.settings import Settings
from model.config import TrainingSettings, validate_layout
from model.estimates.devices import peak_flops
from model.estimates.fitting import nearest
from model.estimates.flops import body_parameters, flops_per_token, parameters
from model.estimates.memory import GIB, Memory, device_memory, estimate_memory, usable
from model.settings.layout import ParallelSettings

DEVICE = "H200"
MFU = 0.5
"""Near what plain Megatron-Core reaches on two H200s with tensor 2 (50.7 %) and pipeline 2 (48.0 %), for 8 B."""


class PlannedLayout(Settings):
    """A layout and what it costs."""

    parallel: ParallelSettings
    micro_batch_size: int
    recompute: str
    sequences: int
    """In each step."""
    micro_batches: int
    """That a pipeline takes in each step."""
    idle: float
    """Part of the time in which a stage waits for others."""
    memory: Memory
    """On the fullest device."""
    fits: bool | None
    """Unknown where the memory of a device is."""
    device_hours: float | None
    """Unknown where the peak of a device or the length of the training is."""
    refused: str | None = None
    """Why it cannot work."""


class TrainingPlan(Settings):
    """A training, its layout and the nearest others."""

    weights: int
    """Each counted once."""
    active: int
    """Weights that one token meets, embeddings included."""
    flops_per_token: float
    steps: int
    tokens: int
    """Of the whole run."""
    device: str
    device_memory_gib: float | None
    peak_tflops: float | None
    mfu: float
    layouts: tuple[PlannedLayout, ...]
    """That of the settings, then the nearest that work and fit."""


def plan_training(
    training: TrainingSettings,
    vocabulary_size: int,
    *,
    train_tokens: int = 0,
    device: str = DEVICE,
    mfu: float = MFU,
    others: Sequence[TrainingSettings] | None = None,
) -> TrainingPlan:
    """Plan a training; `train_tokens`, of the training split, matter where the duration is in epochs.

    `others` are the same training in other layouts; None takes the nearest that work and fit.
    """
    available = device_memory(training.parallel)
    peak = peak_flops(device, training.dtype, training.peak_tflops)
    per_token = flops_per_token(training.model, vocabulary_size)
    steps = training.planned_steps(train_tokens)
    tokens = training.batches.samples(steps) * training.model.sequence_length
    if others is None:
        others = nearest(training, vocabulary_size, None if available is None else usable(available))
    seconds = None if peak is None else tokens * per_token / (peak * mfu)
    rows = [_row(each, vocabulary_size, available, seconds) for each in [training, *others]]
    embeddings = parameters(training.model, vocabulary_size) - body_parameters(training.model)
    return TrainingPlan(
        weights=parameters(training.model, vocabulary_size),
        active=body_parameters(training.model, active=True) + embeddings,
        flops_per_token=per_token,
        steps=steps,
        tokens=tokens,
        device=device,
        device_memory_gib=None if available is None else available / GIB,
        peak_tflops=None if peak is None else peak / 1e12,
        mfu=mfu,
        layouts=tuple(rows),
    )


def _row(
    training: TrainingSettings, vocabulary_size: int, available: float | None, seconds: float | None
) -> PlannedLayout:
    """One layout; `seconds` are those of one device that never waits."""
    parallel, refused = training.parallel, None
    try:
        validate_layout(training, vocabulary_size)
    except BadInput as error:
        refused = f"{error.value}: {error.rule}"
    micro_batches = max(1, training.global_batch_size // (training.micro_batch_size * max(1, parallel.data)))
    waiting = (parallel.pipeline - 1) / (parallel.virtual_pipeline or 1)
    idle = waiting / (micro_batches + waiting)
    memory = estimate_memory(training, vocabulary_size)
    return PlannedLayout(
        parallel=parallel,
        micro_batch_size=training.micro_batch_size,
        recompute=training.recompute,
        sequences=training.global_batch_size,
        micro_batches=micro_batches,
        idle=idle,
        memory=memory,
        fits=None if available is None else memory.total <= usable(available),
        device_hours=None if seconds is None else seconds * _again(training) / (1 - idle) / 3600,
        refused=refused,
    )


def _again(training: TrainingSettings) -> float:
    """Operations with those of recomputation, a third of a part's own: the forward pass is one of three."""
    if training.recompute == "none":
        return 1.0
    model = training.model
    if training.recompute == "full" or model.mixture is not None or model.architecture == "lstm":
        return 4 / 3
    matrices = 3 if model.activation == "swiglu" else 2
    feed_forward = matrices * model.num_layers * model.hidden_size * model.ffn_hidden_size
    return 1 + min(1.0, feed_forward / body_parameters(model)) / 3


def render_training(plan: TrainingPlan) -> str:
    """The plan as text for a terminal of 120 columns."""
    return "\n".join([*_facts(plan), "", *_table(plan), "", *_notes(plan)])


def _facts(plan: TrainingPlan) -> Iterator[str]:
    active = "" if plan.active == plan.weights else f" ({_short(plan.active)} for each token)"
    yield f"Weights: {_short(plan.weights)}{active}"
    yield f"Operations: {plan.flops_per_token / 1e9:,.2f} GFLOP for each token"
    yield f"Training: {_short(plan.tokens)} tokens in {plan.steps:,} steps"
    total = plan.tokens * plan.flops_per_token
    peak = "an unknown peak" if plan.peak_tflops is None else f"{plan.peak_tflops:,.0f} TFLOP/s"
    yield f"Compute: {total:.3g} FLOP; {plan.device} with {peak}, of which {plan.mfu:.0%} are reached between waits"


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


def _short(number: float) -> str:
    for limit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= limit:
            return f"{number / limit:.3g} {name}"
    return f"{number:,.0f}"


def seventy_billion(
    sequence_length: int = 8192, global_batch_size: int = 1024, device_memory_gib: float = 139.0
) -> list[TrainingSettings]:
    """Layouts of the 70 B for 64 to 1,024 GPUs on Chinchilla's number of tokens: the rows of a table on paper."""
    rows: list[dict[str, int]] = [
        {"processes": 64, "tensor": 8, "pipeline": 1},
        {"processes": 64, "tensor": 8, "pipeline": 2},
        {"processes": 64, "tensor": 8, "pipeline": 4},
        {"processes": 64, "tensor": 8, "pipeline": 8},
        {"processes": 64, "tensor": 8, "pipeline": 8, "virtual_pipeline": 2},
        {"processes": 64, "tensor": 4, "pipeline": 4},
        {"processes": 64, "tensor": 2, "pipeline": 8},
        {"processes": 256, "tensor": 8, "pipeline": 2},
        {"processes": 256, "tensor": 4, "pipeline": 4},
        {"processes": 256, "tensor": 4, "pipeline": 8, "virtual_pipeline": 2},
        {"processes": 256, "tensor": 4, "pipeline": 2, "context": 2},
        {"processes": 1024, "tensor": 8, "pipeline": 2},
        {"processes": 1024, "tensor": 8, "pipeline": 8, "virtual_pipeline": 5},
    ]
    return [
        TrainingSettings.model_validate(
            {
                "model": {"size": "70b", "sequence_length": sequence_length},
                "duration": {"chinchilla": 1.0},
                "global_batch_size": global_batch_size,
                "micro_batch_size": 1,
                "parallel": {**row, "sequence_parallel": True, "device_memory_gib": device_memory_gib},
            }
        )
        for row in rows
    ]


def plan_seventy_billion() -> TrainingPlan:
    """The table of `seventy_billion`."""
    first, *others = seventy_billion()
    return plan_training(first, 128_256, others=others)
