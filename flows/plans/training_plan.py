"""A training on paper: weights, operations, memory on each device, idle time of pipelines and device-hours.

Nothing is started and nothing is asked of a device but, where the settings leave it open, its memory. The time is

    tokens * operations of a token * again / (devices * peak * MFU * (1 - idle))

where again counts what is computed twice (4 / 3 for full recomputation), MFU is what the devices reach while none
waits for another stage, and idle what a pipeline adds: with m micro-batches in a step, p stages and v pieces in each,
(p - 1) / v of m + (p - 1) / v (arXiv:2104.04473). Where the tokens per second of the settings' own layout were stated
or measured, they take the place of peak and MFU; other layouts are taken to differ from it by again and idle alone.
"""

from collections.abc import Sequence

from flows.plans.training_left import checkpoint_bytes
from infra.errors import BadInput
from infra.settings import Settings
from model.config import TrainingSettings, validate_layout
from model.estimates.devices import peak_flops
from model.estimates.fitting import nearest
from model.estimates.flops import body_parameters, flops_per_token, parameters
from model.estimates.memory import GIB, Memory, device_memory, estimate_memory, usable
from model.estimates.rate import Rate, usual_mfu
from model.estimates.scaling import Scaling, scaling
from model.settings.layout import ParallelSettings

DEVICE = "H200"


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
    """Unknown where the rate of a device is; without start and checkpoints."""
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
    rate: Rate
    """What the times come from."""
    scaling: Scaling
    checkpoint_bytes: float
    """Of all that are kept at a time, one that is being written included."""
    layouts: tuple[PlannedLayout, ...]
    """That of the settings, then the nearest that work and fit."""


def plan_training(
    training: TrainingSettings,
    vocabulary_size: int,
    *,
    train_tokens: int = 0,
    rate: Rate | None = None,
    others: Sequence[TrainingSettings] | None = None,
    elsewhere: bool = False,
) -> TrainingPlan:
    """Plan a training; `train_tokens`, of the training split, are 0 where they are unknown.

    Without a rate it is what H200s usually reach. `others` are the same training in other layouts; None takes the
    nearest that work and fit. Where the ranks run `elsewhere` this machine is asked neither for memory nor libraries.
    """
    rate = rate or usual_rate(training, DEVICE)
    available = device_memory(training.parallel, elsewhere=elsewhere)
    peak = peak_flops(rate.device, training.dtype, training.peak_tflops)
    per_token = flops_per_token(training.model, vocabulary_size)
    steps = training.planned_steps(train_tokens)
    tokens = training.batches.samples(steps) * training.model.sequence_length
    if others is None:
        room = None if available is None else usable(available)
        others = nearest(training, vocabulary_size, room, elsewhere=elsewhere)
    seconds = _device_seconds(training, tokens, rate, None if peak is None else per_token / peak)
    rows = [_row(each, vocabulary_size, available, seconds, elsewhere=elsewhere) for each in [training, *others]]
    embeddings = parameters(training.model, vocabulary_size) - body_parameters(training.model)
    active = body_parameters(training.model, active=True) + embeddings
    return TrainingPlan(
        weights=parameters(training.model, vocabulary_size),
        active=active,
        flops_per_token=per_token,
        steps=steps,
        tokens=tokens,
        device=rate.device,
        device_memory_gib=None if available is None else available / GIB,
        peak_tflops=None if peak is None else peak / 1e12,
        rate=rate,
        checkpoint_bytes=checkpoint_bytes(training, parameters(training.model, vocabulary_size), steps),
        scaling=scaling(active, tokens, train_tokens or None),
        layouts=tuple(rows),
    )


def usual_rate(training: TrainingSettings, device: str, mfu: float | None = None) -> Rate:
    """An MFU as it is stated, or as it is usual for models of this size."""
    if mfu is not None:
        return Rate(device=device, source="as stated", mfu=mfu)
    return Rate(device=device, source="as measured on H200s for models of about this size", mfu=usual_mfu(training))


def _device_seconds(
    training: TrainingSettings, tokens: int, rate: Rate, seconds_of_token: float | None
) -> float | None:
    """Seconds of one device that never waits and computes nothing twice, or None where no rate is known."""
    if rate.tokens_per_second_per_device is not None:
        return tokens / rate.tokens_per_second_per_device * (1 - _waiting(training)[1]) / _again(training)
    return None if seconds_of_token is None or rate.mfu is None else tokens * seconds_of_token / rate.mfu


def _waiting(training: TrainingSettings) -> tuple[int, float]:
    """Micro-batches of a step that a pipeline takes, and the part of the time in which a stage waits."""
    parallel = training.parallel
    micro_batches = max(1, training.global_batch_size // (training.micro_batch_size * max(1, parallel.data)))
    waiting = (parallel.pipeline - 1) / (parallel.virtual_pipeline or 1)
    return micro_batches, waiting / (micro_batches + waiting)


def _row(
    training: TrainingSettings,
    vocabulary_size: int,
    available: float | None,
    seconds: float | None,
    *,
    elsewhere: bool,
) -> PlannedLayout:
    """One layout; `seconds` are those of one device that never waits."""
    parallel, refused = training.parallel, None
    try:
        validate_layout(training, vocabulary_size, elsewhere=elsewhere)
    except BadInput as error:
        refused = f"{error.value}: {error.rule}"
    micro_batches, idle = _waiting(training)
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
