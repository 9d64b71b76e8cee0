"""The pretraining flow: from a dataset to a trained model, in processes of its own, tracked in MLflow."""

import logging

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import deployment, flow_run

from flows import progress
from flows.config import DatasetSettings
from flows.reporting import link_mlflow_run
from infra.environment import Environment
from infra.launch import JobSpec, LocalLauncher
from infra.manifest import DatasetManifest, load_dataset
from infra.settings import Settings
from infra.store import Store
from infra.tracking import TrackedRun, finish_run, open_run
from model.config import TrainingSettings
from model.run import LaunchRecord, RunRecord, TrainingSummary, finished_training, load_launch, prepare_run

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
) -> Training:
    """Train a model on a dataset, or go on where an interrupted training stopped."""
    progress.let_through()
    store = Store(environment.root)
    manifest = load_dataset(store, dataset.name, dataset.version)
    record = prepare_run(store, manifest, run, training)
    summary = finished_training(store, record)
    if summary is not None:
        logger.info("pretrain: already done, %s steps in %s", f"{summary.steps:,}", record.folder)
        return Training(run=record, summary=summary, tracked=load_launch(store, record).tracked)
    tracked = track(store, record, manifest, environment)
    link_mlflow_run(store, tracked)
    try:
        launch("model.train", store, record, training.parallel.processes)
    except BaseException:
        finish_run(tracked, failed=True)
        raise
    finish_run(tracked)
    summary = finished_training(store, record)
    assert summary is not None, "model.train writes training.json before it ends well"
    return Training(run=record, summary=summary, tracked=tracked)


def track(store: Store, record: RunRecord, dataset: DatasetManifest, environment: Environment) -> TrackedRun:
    """Open the MLflow run of a training run, the same one at every launch, and write down where it is."""
    tags = {
        "dataset": f"{dataset.name}/{dataset.version}",
        "dataset.fingerprint": dataset.fingerprint,
        "run.fingerprint": record.fingerprint,
        "prefect.flow_run_id": str(flow_run.id or ""),
        "prefect.flow_run_url": flow_run_url(),
        "prefect.deployment": str(deployment.name or ""),
    }
    tracked = open_run(
        store,
        environment.mlflow_tracking_uri,
        environment.mlflow_experiment,
        f"{record.name}/{record.dataset_version}-{record.fingerprint}",
        dataset=dataset,
        tags={name: value for name, value in tags.items() if value},
        parameters=record.training.model_dump(mode="json"),
        previous=load_launch(store, record).tracked,
    )
    launched = LaunchRecord(tracked=tracked, flow_run_id=tags["prefect.flow_run_id"] or None)
    launched.save(store, f"{record.folder}/launch.json")
    return tracked


def flow_run_url() -> str:
    """The page of this flow run in the Prefect UI; empty for a server that lives only as long as the flow."""
    url = str(flow_run.ui_url or "")
    return url if url.startswith("http") else ""


@task(cache_policy=NO_CACHE, task_run_name="{module}", persist_result=False)
def launch(module: str, store: Store, record: RunRecord, processes: int, *arguments: str) -> None:
    """Run a module of `model` as ranks under torchrun.

    Called directly, never submitted: a cancellation must reach the launcher in the main thread to free the ranks.
    """
    folder = store.local_path(record.folder).absolute()
    spec = JobSpec(module=module, arguments=(str(folder), *arguments), processes=processes, environment=_QUIET)
    LocalLauncher().run(spec, on_line=logger.info)
