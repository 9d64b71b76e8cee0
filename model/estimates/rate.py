"""At what rate a device trains a model: as stated, as a trial or an earlier run had it, or as such devices usually do.

What is usual is what `python -m tests.benchmarks.gpu_speed` measured on H200s (bf16, sequence 2048 or 4096): the MFU by
the weights of the layers. Other devices are taken to reach the same part of their peak.
"""

import logging
import math
from collections.abc import Iterator
from itertools import pairwise

from infra.errors import DamagedData
from infra.settings import Settings
from infra.store import Store
from model.config import TrainingSettings
from model.estimates.flops import body_parameters
from model.estimates.speed import SpeedSummary
from model.run import RunRecord, TrainingSummary

logger = logging.getLogger(__name__)

_USUAL_MFU = ((54e6, 0.39), (142e6, 0.45), (340e6, 0.45), (0.97e9, 0.56), (2.8e9, 0.565), (7.0e9, 0.57))
"""(weights of the layers that a token meets, MFU)."""


class Rate(Settings):
    """A rate and where it is from."""

    device: str
    source: str
    """In words."""
    mfu: float | None = None
    """Model FLOP utilisation while no device waits for another stage."""
    tokens_per_second_per_device: float | None = None
    """Of the settings' own layout, waiting included; None where the MFU says it."""
    memory_gib: float | None = None
    """Most memory of a process, where it was measured."""
    startup_seconds: float = 0.0
    """From the command to the first step, where it was measured."""


def usual_mfu(training: TrainingSettings) -> float:
    """What GPUs usually reach for a model of this size, between the measured sizes by the logarithm of the weights."""
    weights = body_parameters(training.model, active=True)
    sizes, reached = zip(*_USUAL_MFU, strict=True)
    if weights <= sizes[0]:
        return reached[0] * max(weights / sizes[0], 0.05) ** 0.5  # small models wait for launches
    for (small, low), (large, high) in pairwise(_USUAL_MFU):
        if weights <= large:
            return low + (high - low) * math.log(weights / small) / math.log(large / small)
    return reached[-1]


def earlier_rate(store: Store, training: TrainingSettings, vocabulary_size: int, device: str | None) -> Rate | None:
    """That of the newest finished run under the root of the same model, layout and batches; None without one.

    A device limits the runs to those on it.
    """
    found = [each for each in _runs(store) if _alike(each[0], training, vocabulary_size)]
    found = [each for each in found if device is None or device.lower() in each[1].speed.device.lower()]
    if not found:
        return None
    record, summary = max(found, key=lambda each: each[2])[:2]
    return Rate(
        device=summary.speed.device,
        source=f"{record.folder}, {summary.steps:,} steps",
        tokens_per_second_per_device=_while_training(summary.speed),
        memory_gib=summary.speed.memory_gib,
    )


def _while_training(speed: SpeedSummary) -> float:
    """Tokens per second of a device without the time of evaluations, which plans count by themselves."""
    every = sum(speed.seconds.values())
    rest = every - speed.seconds.get("evaluation", 0.0)
    return speed.tokens_per_second_per_device * (every / rest if rest > 0 else 1.0)


def _runs(store: Store) -> Iterator[tuple[RunRecord, TrainingSummary, float]]:
    if not store.is_local:
        return
    for name in store.names("runs"):
        for each in store.names(f"runs/{name}"):
            path = f"runs/{name}/{each}/training.json"
            if not store.exists(path):
                continue
            try:
                record = RunRecord.load(store, f"runs/{name}/{each}/run.json")
                yield record, TrainingSummary.load(store, path), store.local_path(path).stat().st_mtime
            except (DamagedData, FileNotFoundError) as error:  # also of a version that wrote other fields
                logger.warning("the speed of runs/%s/%s is passed over: %s", name, each, error)


def _alike(record: RunRecord, training: TrainingSettings, vocabulary_size: int) -> bool:
    """Whether a run's steps take the time of those of a training: learning rates and the like do not matter."""
    names = ("model", "parallel", "dtype", "fp8", "compiled", "transformer_engine", "recompute")
    batches = ("micro_batch_size", "global_batch_size")
    return (
        record.vocabulary_size == vocabulary_size
        and record.training.optimizer.kind == training.optimizer.kind
        and all(getattr(record.training, name) == getattr(training, name) for name in names + batches)
    )
