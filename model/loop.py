"""The training loop."""

import logging
import time
from contextlib import ExitStack

import torch

from infra.manifest import DatasetManifest
from infra.store import Store
from model.architectures.build import build_model
from model.architectures.engine import use_fp8
from model.architectures.weights import count_parameters
from model.data.loader import training_loader
from model.data.shards import verify_shards
from model.data.sources import open_order
from model.estimates.speed import summary_lines
from model.evaluation.during import Evaluations
from model.evaluation.interruption import Interrupted
from model.interchange.start import load_start
from model.journal import Journal
from model.parallel import Place, parallel
from model.rank import STOPPED, StopRequest
from model.recovery.checkpoint import Checkpoints
from model.recovery.events import read_events
from model.recovery.health import Health, Stragglers, Unhealthy
from model.recovery.response import record_straggler, report, respond
from model.run import LossRange, RunRecord, TrainingSummary, training_datasets
from model.timing import Profiler, device_name, used_memory
from model.tracker import Tracker, post_of
from model.updates.distribution import distribute
from model.updates.optimizer import build_optimizer, build_schedule, has_whole_optimizer
from model.updates.step import Training, make_step

logger = logging.getLogger(__name__)


def train(store: Store, run: RunRecord, dataset: DatasetManifest) -> int:
    """Train to the end or until a stop signal; returns the exit code of the rank.

    Raises DamagedData for shards that differ from the manifest, RunFailed where a step is unhealthy and the settings
    say to stop, and DiskFull where a checkpoint does not fit.
    """
    safety = run.training.checkpoint
    with (
        ExitStack() as afterwards,
        StopRequest(safety.stop_signals, safety.grace_seconds) as stop,
        parallel(run.training.parallel, run.training.seed) as place,
    ):
        training = _prepare(store, run, dataset, place)
        parameters = count_parameters(training.chunks, place)
        journal = Journal(store, run, training.step, device_name(place.device)) if place.is_reporter else None
        post = post_of(place, threads=torch.get_num_threads())
        tracker = afterwards.enter_context(Tracker(store, run, post)) if post else None
        if journal:
            _announce(training, parameters)
        loop = _Loop(store, training, journal, stop, Evaluations(store, run, dataset, place, stop))
        try:
            finished = loop.run()
        finally:
            training.loader.close()
            if loop.journal:
                loop.journal.close()
        if finished:
            memory = max(place.gather_everywhere(used_memory(place.device)))
            if loop.journal:
                _summarise(store, training, loop.journal, parameters, loop.seconds, memory)
            if tracker:
                tracker.finished = True
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
    checkpoints = Checkpoints(store, run, place)
    events = place.share(read_events(store.local_path(run.folder)) if place.rank == 0 else None)
    checkpoints.clean(events)
    record = checkpoints.latest()
    drawn = record is None and settings.start_from is None
    chunks = build_model(settings, settings.parallel, place, run.vocabulary_size, draw=drawn)
    use_fp8(chunks, settings, place.device)
    if record is None and settings.start_from is not None:
        load_start(chunks, store, settings.start_from, place, settings.model, verify=settings.verify_shards)
    chunks = distribute(chunks, settings.parallel, whole_optimizer=has_whole_optimizer(settings.optimizer))
    optimizer = build_optimizer(chunks, settings)
    if record is not None:
        checkpoints.load(record, [chunk.module for chunk in chunks], optimizer)
        events = max(events, list(record.events), key=len)
    done = record.step if record else 0
    return Training(
        run,
        place,
        training_loader(order, settings, place, dataset.tokenizer),
        chunks,
        optimizer,
        build_schedule(optimizer, settings.optimizer, run.steps, done),
        checkpoints,
        Health(settings.health, record.losses if record else ()),
        step=done,
        consumed_samples=record.consumed_samples if record else 0,
        earlier_seconds=record.seconds if record else 0.0,
        saved_step=done,
        events=events,
    )


def _announce(training: Training, parameters: int) -> None:
    settings, layout = training.run.training, training.place.layout
    steps = training.run.steps
    samples = settings.batches.samples(steps)
    logger.info(
        "%s: %s parameters, %s tokens in %d steps (%s), tensor %d x pipeline %d x data %d, from step %d",
        training.run.folder,
        f"{parameters:,}",
        f"{samples * settings.model.sequence_length:,}",
        steps,
        training.loader.order.describe(samples, [f"{each.name}/{each.version}" for each in training.run.blend]),
        layout.tensor,
        layout.pipeline,
        layout.data,
        training.step,
    )


class _Loop:
    """Steps, and what happens between them."""

    def __init__(
        self,
        store: Store,
        training: Training,
        journal: Journal | None,
        stop: StopRequest,
        evaluations: Evaluations,
    ) -> None:
        self._store, self._training, self.journal, self._stop = store, training, journal, stop
        self._evaluations = evaluations
        self._run_dir = store.local_path(training.run.folder)
        self._stragglers = Stragglers(training.run.training.health, training.place)
        profile, place = training.run.training.profile, training.place
        traced = profile is not None and (profile.all_ranks or place.is_reporter)
        folder, steps = self._run_dir / "profile", training.run.steps
        self._profiler = Profiler(profile if traced else None, folder, rank=place.rank, steps=steps)
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time of the loop in this launch and those before."""
        return self._training.earlier_seconds + time.monotonic() - self._started

    def run(self) -> bool:
        """Make steps until the run is complete (True) or a rank was asked to stop (False); a checkpoint ends both."""
        try:
            return self._run()
        except Interrupted:  # between two steps, when the weights are whole
            logger.info("the evaluation of step %d is left, to be gone on with", self._training.step)
            self._training.save(self.seconds, wait=True)
            return False

    def _run(self) -> bool:
        training, every = self._training, self._training.run.training.checkpoint.every_steps
        self._evaluate()
        while training.step < training.run.steps:
            try:
                with self._profiler.around(training.step + 1):
                    row, stopping = make_step(training, self._stop)
            except Unhealthy as finding:
                self._respond(finding)
                continue
            if self.journal:
                self.journal.add(row)
            self._look_after_step()
            if stopping and training.step < training.run.steps:
                training.save(self.seconds, wait=True)
                return False
            if every is not None and training.step % every == 0:
                training.save(self.seconds)
            self._evaluate()
        training.save(self.seconds, wait=True)
        return True

    def _evaluate(self) -> None:
        training = self._training
        step, samples = training.step, training.consumed_samples
        before = samples - training.run.training.batches.at(step) if step else 0
        if step and self._evaluations.due(step, before, samples):
            with training.clock.waiting("evaluation"):
                self._evaluations.make(training.chunks, step, samples)

    def _respond(self, finding: Unhealthy) -> None:
        training = self._training
        went_back = respond(training, finding, self._run_dir)
        if went_back:
            self._evaluations.forget_after(training.step)
        if went_back and self.journal:
            self.journal.close()
            self.journal = Journal(self._store, training.run, training.step, device_name(training.place.device))

    def _look_after_step(self) -> None:
        training = self._training
        training.checkpoints.poll()
        if training.health.reported:
            report(training, training.health.reported, self._run_dir)
        if self._stragglers.due(training.step):
            for slow in self._stragglers.measure():
                record_straggler(training, slow, self._run_dir, self.seconds)


def _summarise(
    store: Store, training: Training, journal: Journal, parameters: int, seconds: float, memory: float
) -> None:
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
        speed=journal.speed(memory),
    )
    summary.save(store, f"{run.folder}/training.json")
    logger.info("training is complete: loss %.4f -> %.4f in %.0f s", *first_last, seconds)
    for line in summary_lines(summary.speed, training.place.processes):
        logger.info("  %s", line)
