"""The pretraining flow: from a dataset to a trained model, in processes of its own, tracked in MLflow."""

import logging
from collections.abc import Callable

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from flows import progress
from flows.config import DatasetSettings, PipelineSettings, TrackingSettings
from flows.live.training_watch import watched_training
from flows.plans.whole_plan import affordable
from flows.reports.reporting import link_mlflow_run
from flows.reports.tracking_tags import experiment, run_tags, run_title
from infra.environment import Environment
from infra.launching.launch import JobSpec
from infra.launching.launcher_settings import LauncherSettings
from infra.launching.launchers import open_launcher
from infra.manifest import load_dataset
from infra.run_description import used_dataset
from infra.settings import Settings
from infra.store import Store
from infra.tracking import TrackedRun, describe_run, ending_with, open_run
from model.config import ParallelSettings, TrainingSettings, validate_layout
from model.delivery import deliver_rest
from model.run import (
    LaunchRecord,
    RunRecord,
    TrainingSummary,
    finished_training,
    load_launch,
    prepare_run,
    training_datasets,
)

logger = logging.getLogger(__name__)
_QUIET = {"TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
"""Libraries of the harness draw bars, which are no lines of a log."""


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
    progress.let_through()
    store = Store(environment.root)
    manifest = load_dataset(store, dataset.name, dataset.version)
    check_training(training, manifest.tokenizer.vocabulary_size, environment)
    record = prepare_run(store, manifest, run, training, elsewhere=environment.ranks_elsewhere)
    summary = finished_training(store, record)
    if summary is not None:
        logger.info("pretrain: already done, %s steps in %s", f"{summary.steps:,}", record.folder)
        return Training(run=record, summary=summary, tracked=load_launch(store, record).tracked)
    affordable("pretrain", PipelineSettings(environment=environment, dataset=dataset, run=run, training=training))
    tracked = track(store, record, environment, tracking)
    link_mlflow_run(store, tracked)
    with ending_with(tracked):
        with watched_training(store, record, {"MLflow": environment.mlflow_tracking_uri}):
            launch("model.train", store, record, training.parallel.processes, environment.launcher)
        summary = finished_training(store, record)
        assert summary is not None, "model.train writes training.json before it ends well"
        deliver_rest(store, record, tracked)
    return Training(run=record, summary=summary, tracked=tracked)


def check_training(training: TrainingSettings, vocabulary_size: int, environment: Environment) -> None:
    """Refuse with BadInput what cannot work, before anything starts; other machines say themselves what they have."""
    validate_layout(training, vocabulary_size, elsewhere=environment.ranks_elsewhere)


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


@task(cache_policy=NO_CACHE, task_run_name="{module}", persist_result=False)
def launch(
    module: str,
    store: Store,
    record: RunRecord,
    processes: int,
    launcher: LauncherSettings,
    *arguments: str,
    on_line: Callable[[str], None] = logger.info,
) -> None:
    """Run a module of `model` as ranks under torchrun, where the launcher says.

    Called directly, never submitted: a cancellation must reach the launcher in the main thread to free the ranks.
    """
    folder = str(store.local_path(record.folder).absolute())
    spec = JobSpec(
        module=module,
        arguments=(folder, *arguments),
        processes=processes,
        environment=_QUIET,
        grace_seconds=record.training.checkpoint.grace_seconds + 5,
        folder=folder,
    )
    open_launcher(launcher).run(spec, on_line=on_line)
