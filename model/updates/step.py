"""One step of training: gradients of a global batch, an update of the weights, and what is known of it."""

import time
from dataclasses import dataclass, field
from typing import Any

from model.config import TrainingSettings
from model.data.loader import Loader
from model.data.skips import Skips
from model.parallel import Place, seed_dropout
from model.rank import StopRequest
from model.recovery.checkpoint import Checkpoints
from model.recovery.events import Event, current_skips
from model.recovery.health import Health
from model.run import RunRecord
from model.timing import Clock, used_memory
from model.updates.gradients import Gradients, compute_gradients
from model.updates.optimizer import clip_gradients


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
    health: Health
    step: int = 0
    """Updates made."""
    consumed_samples: int = 0
    earlier_seconds: float = 0.0
    """Wall time of the loop in earlier launches."""
    saved_step: int = 0
    events: list[Event] = field(default_factory=list)
    """What was unhealthy so far."""
    clock: Clock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = Clock(self.place.device)
        self.clock.attach(self.chunks, self.optimizer)

    @property
    def skips(self) -> Skips:
        """Samples that are left out."""
        return current_skips(self.events)

    def save(self, seconds: float, *, wait: bool = False) -> None:
        """Write a checkpoint unless this step has one, or begin to; `seconds` is the loop's time over all launches."""
        with self.clock.waiting("checkpoint"):
            if self.step != self.saved_step:
                self._save(seconds)
            if wait:
                self.checkpoints.finish()

    def _save(self, seconds: float) -> None:
        self.checkpoints.save(
            self.chunks,
            self.optimizer,
            step=self.step,
            consumed_samples=self.consumed_samples,
            seconds=seconds,
            losses=self.health.losses,
            events=self.events,
        )
        self.saved_step = self.step


def make_step(training: Training, stop: StopRequest) -> tuple[dict[str, float], bool]:
    """Make one update. Returns its metrics, and whether any rank was asked to stop.

    Raises Unhealthy, with weights, optimizer and schedule as they were, where the update should not be made.
    """
    settings, place, step = training.run.training, training.place, training.step + 1
    clock, size, began = training.clock, settings.batches.at(training.step + 1), time.monotonic()
    with clock.waiting("data"):
        batches = training.loader.take(training.consumed_samples, size, training.skips)
    if settings.model.hidden_dropout or settings.model.attention_dropout:
        seed_dropout(place, settings.seed, step)
    found = compute_gradients(training.chunks, training.optimizer, batches, place, clock, stop=stop.requested)
    training.health.check_loss(step, found.loss)
    training.health.check_norm(found.norm)
    training.schedule.step(increment=1)
    with clock.measure("optimizer"):
        clip_gradients(training.optimizer, found.norm)
    training.optimizer.step_with_ready_grads()
    training.health.accept(found.loss)
    training.step, training.consumed_samples = step, training.consumed_samples + size
    return {
        "step": step,
        "loss": found.loss,
        **_added(settings, found),
        "learning_rate": training.optimizer.param_groups[0]["lr"],
        "gradient_norm": found.norm,
        "batch_size": size,
        "tokens": training.consumed_samples * settings.model.sequence_length,
        "tokens_per_second": size * settings.model.sequence_length / (time.monotonic() - began),
        "devices": place.processes,
        "memory_gib": used_memory(place.device),
        **{f"{kind}_seconds": seconds for kind, seconds in clock.take().items()},
    }, found.stopping


def _added(settings: TrainingSettings, found: Gradients) -> dict[str, float]:
    """What the loss was beside the cross entropy, where it was anything else."""
    if settings.loss.z_loss == 0 and settings.loss.label_smoothing == 0:
        return {}
    return {"objective": found.objective, "z_loss": found.z_loss}
