"""The pretraining flow: from a dataset to a trained model, in processes of its own, tracked in MLflow."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from flows.beginning import begin
from flows.config import DatasetSettings, PipelineSettings, TrackingSettings
from flows.jobs import job_of, require_disk
from flows.live.training_watch import watched_training
from flows.plans.whole_plan import affordable
from flows.reports.reporting import link_mlflow_run
from flows.reports.tracking_tags import experiment, run_tags, run_title
from flows.runs import tracked_run
from infra.environment import Environment
from infra.launching.launch import JobSpec, Launcher
from infra.launching.launchers import open_launcher
from infra.manifest import load_dataset
from infra.run_description import used_dataset
from infra.settings import Settings
from infra.store import Store
from infra.tracking import Tolerant, TrackedRun, describe_run, ending_with, finish_run, is_open, open_run
from model.config import ParallelSettings, TrainingSettings
from model.delivery import deliver_rest
from model.run import (
    LaunchRecord,
    RunRecord,
    TrainingSummary,
    check_run,
    finished_training,
    load_launch,
    named_run,
    prepare_run,
    training_datasets,
)

logger = logging.getLogger(__name__)


class Training(Settings):
    """What the flow returns: the run, what came of it, and where it is tracked."""

    run: RunRecord
    summary: TrainingSummary
    tracked: TrackedRun | None


@flow(name="pretrain", persist_result=False)
def pretrain(
    dataset: DatasetSettings = DatasetSettings(),
    run: str = "model",
    training: TrainingSettings = TrainingSettings(),
    environment: Environment = Environment(),
    tracking: TrackingSettings = TrackingSettings(),
) -> Training:
    """Train a model on a dataset, or go on where an interrupted training stopped."""
    store = begin(environment)
    manifest = load_dataset(store, dataset.name, dataset.version)
    check_run(store, manifest, run, training, elsewhere=environment.ranks_elsewhere)
    record = named_run(store, manifest, run, training)
    if (done := _done(store, record, environment)) is not None:
        return done
    require_disk(store, record)
    affordable("pretrain", PipelineSettings(environment=environment, dataset=dataset, run=run, training=training))
    launcher = open_launcher(environment.launcher)
    job = job_of("model.train", store, record, training.parallel.processes)
    with launcher.room(job):  # a job that works there reads what is written below
        if (done := _done(store, record, environment)) is not None:
            return done
        prepare_run(store, manifest, run, training, elsewhere=environment.ranks_elsewhere)
        tracked = track(store, record, environment, tracking)
        with ending_with(tracked):
            link_mlflow_run(store, tracked)
            with watched_training(store, record, {"MLflow": environment.mlflow_tracking_uri}):
                launch(job, launcher)
            summary = finished_training(store, record)
            assert summary is not None, "model.train writes training.json before it ends well"
            deliver_rest(store, record, tracked)
    return Training(run=record, summary=summary, tracked=tracked)


def _done(store: Store, record: RunRecord, environment: Environment) -> Training | None:
    """A training that is finished; its MLflow run too, which whoever waited for its job may not have lived to end."""
    if (summary := finished_training(store, record)) is None:
        return None
    logger.info("pretrain: already done, %s steps in %s", f"{summary.steps:,}", record.folder)
    tracked = tracked_run(store, record, environment)
    if tracked is not None:
        with Tolerant("the end of the run"):
            if is_open(tracked):
                link_mlflow_run(store, tracked)
                deliver_rest(store, record, tracked)
                finish_run(tracked)
    return Training(run=record, summary=summary, tracked=tracked)


class Wanted(NamedTuple):
    """A training that is to be made, as `pretrain` takes it."""

    dataset: DatasetSettings
    run: str
    training: TrainingSettings
    tracking: TrackingSettings


@contextmanager
def handed_in(wanted: Sequence[Wanted], environment: Environment) -> Iterator[None]:
    """Around `pretrain` of each: Slurm gets all of them as one job array, which is stopped if the block ends badly."""
    if environment.launcher.kind != "slurm":
        yield
        return
    store, launcher, jobs, opened = Store(environment.root), open_launcher(environment.launcher), [], []
    for each in wanted:
        manifest = load_dataset(store, each.dataset.name, each.dataset.version)
        check_run(store, manifest, each.run, each.training, elsewhere=True)
        record = named_run(store, manifest, each.run, each.training)
        job = job_of("model.train", store, record, each.training.parallel.processes)
        if finished_training(store, record) is None:
            with launcher.room(job):
                prepare_run(store, manifest, each.run, each.training, elsewhere=True)
                opened.append(track(store, record, environment, each.tracking))
            jobs.append(job)
    try:
        with launcher.handed_in(jobs):
            yield
    except BaseException:
        for tracked in opened:
            with Tolerant("the end of the run"):
                if is_open(tracked):
                    finish_run(tracked, "KILLED")
        raise


def track(store: Store, record: RunRecord, environment: Environment, tracking: TrackingSettings) -> TrackedRun:
    """Open the MLflow run of a training run, the same one at every launch, and write down where it is."""
    dataset = f"{record.dataset}/{record.dataset_version}"
    purpose = "ablation" if "ablation" in tracking.tags else "pretraining"
    tags = {
        "run": record.folder.removeprefix("runs/"),
        "run.fingerprint": record.fingerprint,
        "dataset": dataset,
        "dataset.fingerprint": record.dataset_fingerprint,
        "launcher": environment.launcher.kind,
        "layout": _layout(record.training.parallel),
        **tracking.tags,
    }
    tracked = open_run(
        store,
        environment.mlflow_tracking_uri,
        experiment(environment, purpose),
        run_title(tracking.title, record.name, dataset, record.fingerprint),
        datasets=[used_dataset(store, each, "training") for each in training_datasets(store, record)],
        tags=run_tags(purpose, tags, tracking.notes),
        parameters=record.training.model_dump(mode="json"),
        previous=load_launch(store, record).tracked,
    )
    describe_run(tracked, "")
    launched = LaunchRecord(
        tracked=tracked,
        flow_run_id=str(flow_run.id) if flow_run.id else None,
        prices=environment.cost,
        system_metrics_seconds=tracking.system_metrics_seconds,
    )
    launched.save(store, f"{record.folder}/launch.json")
    return tracked


def _layout(parallel: ParallelSettings) -> str:
    """Processes, and how they share the work."""
    shared = {"tensor": parallel.tensor, "pipeline": parallel.pipeline, "context": parallel.context}
    parts = [f"{name} {factor}" for name, factor in shared.items() if factor > 1]
    return ", ".join([f"{parallel.processes} processes", *parts, f"data {parallel.data}"])


@task(cache_policy=NO_CACHE, task_run_name="{job.module}", persist_result=False)
def launch(job: JobSpec, launcher: Launcher, on_line: Callable[[str], None] = logger.info) -> None:
    """Run a job's ranks under torchrun, where the launcher says.

    Called directly, never submitted: a cancellation must reach the launcher in the main thread to free the ranks.
    """
    launcher.run(job, on_line=on_line)
