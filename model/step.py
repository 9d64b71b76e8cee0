"""One step of training: gradients of a global batch, an update of the weights, and what is known of it."""

import logging
import math
import time
from dataclasses import dataclass
from typing import Any

from infra.errors import RunFailed
from model.checkpoint import Checkpoints
from model.data.loader import Loader
from model.forward import run_micro_batches
from model.parallel import Place
from model.rank import StopRequest
from model.run import RunRecord

logger = logging.getLogger(__name__)


@dataclass
class Training:
    """A training run on one rank, at some step."""

    run: RunRecord
    place: Place
    loader: Loader
    chunks: list[Any]
    """The model's pieces on this rank, wrapped for gradients."""
    optimizer: Any
    schedule: Any
    checkpoints: Checkpoints
    step: int = 0
    """Updates made."""
    consumed_samples: int = 0
    earlier_seconds: float = 0.0
    """Wall time of the loop in earlier launches."""
    saved_step: int = 0

    def save(self, started: float) -> None:
        """Write a checkpoint unless this step has one."""
        if self.step == self.saved_step:
            return
        seconds = self.earlier_seconds + time.monotonic() - started
        self.checkpoints.save(
            self.chunks, self.optimizer, step=self.step, consumed_samples=self.consumed_samples, seconds=seconds
        )
        self.saved_step = self.step
        if self.place.is_reporter:
            logger.info("checkpoint at step %d", self.step)


def make_step(training: Training, stop: StopRequest) -> tuple[dict[str, float], bool]:
    """Make one update. Returns its metrics, and whether any rank was asked to stop."""
    settings, place, step = training.run.training, training.place, training.step + 1
    began = time.monotonic()
    training.schedule.step(increment=1)
    loss, stopping = _forward_backward(training, stop)
    _require_number("loss", loss, step)
    _, norm, _ = training.optimizer.step()
    _require_number("gradient norm", float(norm), step)
    training.step, training.consumed_samples = step, training.consumed_samples + settings.global_batch_size
    if place.device.type == "cuda":
        _wait_for_device()
    return {
        "step": step,
        "loss": loss,
        "learning_rate": training.optimizer.param_groups[0]["lr"],
        "gradient_norm": float(norm),
        "tokens_per_second": settings.tokens_per_step / (time.monotonic() - began),
        "tokens": training.consumed_samples * settings.model.sequence_length,
    }, stopping


def _forward_backward(training: Training, stop: StopRequest) -> tuple[float, bool]:
    """Leave the global batch's gradients in the model's buffers; returns the mean loss in nats for each token."""
    settings, place = training.run.training, training.place
    for chunk in training.chunks:
        chunk.zero_grad_buffer()
    training.optimizer.zero_grad()
    batches = training.loader.take(training.consumed_samples, settings.global_batch_size)
    loss, tokens = run_micro_batches(training.chunks, batches, place, backward=True)
    # One collective for both, because the ranks must also agree on the step after which they stop.
    total, count, stopping = place.sum_over_all([loss, tokens, stop.requested])
    return total / count, stopping > 0


def _wait_for_device() -> None:
    import torch

    torch.cuda.synchronize()


def _require_number(name: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise RunFailed(
            f"{name} {value} at step {step}",
            "training goes on only while loss and gradients are finite",
            "Lower optimizer.learning_rate or lengthen optimizer.warmup_steps; checkpoints before this step are kept",
        )
