"""The training loop."""

import logging
import math
import signal
import time
from dataclasses import dataclass
from typing import Any

from infra.errors import RunFailed
from infra.manifest import DatasetManifest
from infra.store import Store
from model.checkpoint import Checkpoints
from model.data import Documents, TrainingOrder, micro_batches, verify_shards
from model.forward import run_micro_batches
from model.gpt import build_model, count_parameters, distribute
from model.journal import Journal
from model.optimizer import build_optimizer, build_schedule
from model.parallel import Place, parallel
from model.rank import StopRequest
from model.run import LossRange, RunRecord, TrainingSummary

logger = logging.getLogger(__name__)

STOPPED = 128 + signal.SIGTERM
"""Exit code after SIGTERM, as a shell would report it."""


@dataclass
class Training:
    """A training run on one rank, at some step."""

    run: RunRecord
    place: Place
    order: TrainingOrder
    model: Any
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
            self.model, self.optimizer, step=self.step, consumed_samples=self.consumed_samples, seconds=seconds
        )
        self.saved_step = self.step
        if self.place.is_reporter:
            logger.info("checkpoint at step %d", self.step)


def train(store: Store, run: RunRecord, dataset: DatasetManifest) -> int:
    """Train to the end or until SIGTERM; returns the exit code of the rank.

    Raises DamagedData for shards that differ from the manifest, RunFailed where the loss is no longer a number, and
    DiskFull where a checkpoint does not fit.
    """
    stop = StopRequest()
    with parallel(run.training.parallel, run.training.seed) as place:
        training = _prepare(store, run, dataset, place)
        parameters = count_parameters(training.model, place)
        journal = Journal(store, run, training.step) if place.is_reporter else None
        if journal:
            _announce(training, parameters)
        started = time.monotonic()
        try:
            finished = _loop(training, journal, stop, started)
        finally:
            if journal:
                journal.close()
        if journal and finished:
            seconds = training.earlier_seconds + time.monotonic() - started
            _summarise(store, training, journal, parameters, seconds)
        place.wait_for_all()
    return 0 if finished else STOPPED


def _prepare(store: Store, run: RunRecord, dataset: DatasetManifest, place: Place) -> Training:
    """Open the data, build the model, and go back to the latest checkpoint."""
    settings = run.training
    shards = dataset.split("train")
    verify_shards(store, dataset, shards[place.rank :: place.processes], content=settings.verify_shards)
    place.wait_for_all()
    order = TrainingOrder(Documents(store, shards), settings.model.sequence_length, settings.seed)
    model = distribute(build_model(settings, settings.parallel, place, run.vocabulary_size), settings.parallel)
    optimizer = build_optimizer(model, settings)
    checkpoints = Checkpoints(store, run, place)
    checkpoints.clean()
    if (record := checkpoints.latest()) is not None:
        checkpoints.load(record, model.module, optimizer)
    done = record.step if record else 0
    return Training(
        run,
        place,
        order,
        model,
        optimizer,
        build_schedule(optimizer, settings.optimizer, settings.steps, done),
        checkpoints,
        step=done,
        consumed_samples=record.consumed_samples if record else 0,
        earlier_seconds=record.seconds if record else 0.0,
        saved_step=done,
    )


def _announce(training: Training, parameters: int) -> None:
    settings, layout = training.run.training, training.place.layout
    samples = settings.steps * settings.global_batch_size
    logger.info(
        "%s: %s parameters, %s tokens in %d steps (%.1f epochs), tensor %d x pipeline %d x data %d, from step %d",
        training.run.folder,
        f"{parameters:,}",
        f"{settings.steps * settings.tokens_per_step:,}",
        settings.steps,
        samples / training.order.samples_per_epoch,
        layout.tensor,
        layout.pipeline,
        layout.data,
        training.step,
    )


def _loop(training: Training, journal: Journal | None, stop: StopRequest, started: float) -> bool:
    """Make steps until the run is complete (True) or a rank was asked to stop (False); a checkpoint ends both."""
    settings = training.run.training
    every = settings.checkpoint.every_steps
    while training.step < settings.steps:
        row, stopping = _step(training, stop)
        if journal:
            journal.add(row)
        if stopping and training.step < settings.steps:
            training.save(started)
            return False
        if every is not None and training.step % every == 0:
            training.save(started)
    training.save(started)
    return True


def _step(training: Training, stop: StopRequest) -> tuple[dict[str, float], bool]:
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
    training.model.zero_grad_buffer()
    training.optimizer.zero_grad()
    rows = micro_batches(
        training.order,
        training.consumed_samples,
        batch=settings.global_batch_size,
        micro=settings.micro_batch_size,
        rank=place.data_rank,
        ranks=place.layout.data,
    )
    loss, tokens = run_micro_batches(training.model, list(rows), settings.model.sequence_length, place, backward=True)
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


def _summarise(store: Store, training: Training, journal: Journal, parameters: int, seconds: float) -> None:
    """Write training.json, whose existence means that the run is complete."""
    run, first_last = training.run, journal.losses()
    tokens = training.consumed_samples * run.training.model.sequence_length
    summary = TrainingSummary(
        fingerprint=run.fingerprint,
        parameters=parameters,
        layout=training.place.layout,
        steps=training.step,
        tokens=tokens,
        loss=LossRange(first=first_last[0], last=first_last[1]),
        seconds=seconds,
        tokens_per_second=tokens / seconds,
    )
    summary.save(store, f"{run.folder}/training.json")
    logger.info("training is complete: loss %.4f -> %.4f in %.0f s", *first_last, seconds)
