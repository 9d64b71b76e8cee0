"""The training loop."""

import logging
import signal
import time

from infra.manifest import DatasetManifest
from infra.store import Store
from model.build import build_model
from model.checkpoint import Checkpoints
from model.data.loader import training_loader
from model.data.shards import verify_shards
from model.data.sources import open_order
from model.distribution import distribute
from model.journal import Journal
from model.optimizer import build_optimizer, build_schedule
from model.parallel import Place, parallel
from model.rank import StopRequest
from model.run import LossRange, RunRecord, TrainingSummary, training_datasets
from model.step import Training, make_step
from model.weights import count_parameters

logger = logging.getLogger(__name__)

STOPPED = 128 + signal.SIGTERM
"""Exit code after SIGTERM, as a shell would report it."""


def train(store: Store, run: RunRecord, dataset: DatasetManifest) -> int:
    """Train to the end or until SIGTERM; returns the exit code of the rank.

    Raises DamagedData for shards that differ from the manifest, RunFailed where the loss is no longer a number, and
    DiskFull where a checkpoint does not fit.
    """
    stop = StopRequest()
    with parallel(run.training.parallel, run.training.seed) as place:
        training = _prepare(store, run, dataset, place)
        parameters = count_parameters(training.chunks, place)
        journal = Journal(store, run, training.step) if place.is_reporter else None
        if journal:
            _announce(training, parameters)
        started = time.monotonic()
        try:
            finished = _loop(training, journal, stop, started)
        finally:
            training.loader.close()
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
    datasets = training_datasets(store, run)
    for each in datasets:
        own = each.split("train")[place.rank :: place.processes]
        verify_shards(store, each, own, content=settings.verify_shards)
    place.wait_for_all()
    order = open_order(store, datasets, settings.data, settings.model.sequence_length, settings.seed)
    chunks = distribute(build_model(settings, settings.parallel, place, run.vocabulary_size), settings.parallel)
    optimizer = build_optimizer(chunks, settings)
    checkpoints = Checkpoints(store, run, place)
    checkpoints.clean()
    if (record := checkpoints.latest()) is not None:
        checkpoints.load(record, [chunk.module for chunk in chunks], optimizer)
    done = record.step if record else 0
    return Training(
        run,
        place,
        training_loader(order, settings, place, dataset.tokenizer),
        chunks,
        optimizer,
        build_schedule(optimizer, settings.optimizer, run.steps, done),
        checkpoints,
        step=done,
        consumed_samples=record.consumed_samples if record else 0,
        earlier_seconds=record.seconds if record else 0.0,
        saved_step=done,
    )


def _announce(training: Training, parameters: int) -> None:
    settings, layout = training.run.training, training.place.layout
    steps = training.run.steps
    samples = settings.batches.samples(steps)
    logger.info(
        "%s: %s parameters, %s tokens in %d steps (%.1f epochs), tensor %d x pipeline %d x data %d, from step %d",
        training.run.folder,
        f"{parameters:,}",
        f"{samples * settings.model.sequence_length:,}",
        steps,
        max(training.loader.order.epochs(samples)),
        layout.tensor,
        layout.pipeline,
        layout.data,
        training.step,
    )


def _loop(training: Training, journal: Journal | None, stop: StopRequest, started: float) -> bool:
    """Make steps until the run is complete (True) or a rank was asked to stop (False); a checkpoint ends both."""
    settings = training.run.training
    every = settings.checkpoint.every_steps
    while training.step < training.run.steps:
        row, stopping = make_step(training, stop)
        if journal:
            journal.add(row)
        if stopping and training.step < training.run.steps:
            training.save(started)
            return False
        if every is not None and training.step % every == 0:
            training.save(started)
    training.save(started)
    return True


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
