"""Runs as people name them, and where MLflow has them."""

import logging
from pathlib import Path

from flows.config import DatasetSettings
from infra.environment import Environment
from infra.errors import BadInput
from infra.manifest import DatasetManifest, load_dataset
from infra.store import Store
from infra.tracking import TrackedRun, default_tracking_uri, run_at
from model.config import EvaluationSettings, TrainingSettings
from model.run import LaunchRecord, RunRecord, finished_training, load_launch, named_run, open_run_folder

logger = logging.getLogger(__name__)


def find_run(store: Store, run: str) -> Path:
    """The folder of a run, given its name, NAME/VERSION-FINGERPRINT or a path; BadInput names what there is instead."""
    if (Path(run) / "run.json").exists():
        return Path(run)
    name = run.removeprefix("runs/").strip("/")
    within = [name] if "/" in name else [f"{name}/{each}" for each in store.names(f"runs/{name}")]
    found = [each for each in within if store.exists(f"runs/{each}/run.json")]
    if len(found) == 1:
        return store.local_path(f"runs/{found[0]}")
    known = found or [f"{each}/{one}" for each in store.names("runs") for one in store.names(f"runs/{each}")]
    raise BadInput(
        f"run {run}",
        f"it names one run under {store.full_path('runs')}; there are {', '.join(known) or 'none'}",
        "Name one of these",
    )


def chosen_run(
    store: Store, run: str, training: TrainingSettings | None, dataset: DatasetSettings | None
) -> tuple[RunRecord, DatasetManifest]:
    """A run by its name alone, or by what it was made with, which need not fit the machines that use it.

    Settings that are all defaults say nothing of it where there is one run of the name.
    """
    chosen = dataset or DatasetSettings()
    if training is None or (training, chosen) == (TrainingSettings(), DatasetSettings()):
        try:
            _, record, manifest = open_run_folder(find_run(store, run))
            return record, manifest
        except BadInput:
            if training is None:
                raise
    manifest = load_dataset(store, chosen.name, chosen.version)
    return named_run(store, manifest, run, training), manifest


def measured_step(store: Store, record: RunRecord, evaluation: EvaluationSettings) -> int:
    """The step that an evaluation of a run is of; BadInput where none is to be had."""
    summary = finished_training(store, record)
    step = evaluation.step or (summary.steps if summary else None)
    if step is None or not store.exists(f"{record.folder}/run.json"):
        raise BadInput(
            f"run {record.folder}",
            "it must be trained before it is evaluated, or the step of a checkpoint be named (evaluation.step)",
            "Run `gristmill pretrain`",
        )
    return step


def tracking_uri(store: Store, environment: Environment) -> str:
    """The address where MLflow is wanted now; a run may have been recorded by another one."""
    return environment.mlflow_tracking_uri or default_tracking_uri(store)


def tracked_run(store: Store, run: RunRecord, environment: Environment) -> TrackedRun | None:
    """The MLflow run of a training, by the address that is wanted now if that has it, else as it was recorded.

    What is found is written down, so that the processes of a job find it too. A warning where a server is silent.
    """
    launch = load_launch(store, run)
    if launch.tracked is None:
        return None
    try:
        found = run_at(launch.tracked, tracking_uri(store, environment))
    except BadInput as error:
        logger.warning("%s", error)
        return launch.tracked
    return launch.tracked if found is None else remember_tracked(store, run, launch, found)


def remember_tracked(store: Store, run: RunRecord, launch: LaunchRecord, tracked: TrackedRun) -> TrackedRun:
    """Write down where a run is tracked, beside all else that is known of its latest launch."""
    if tracked != launch.tracked:
        launch.model_copy(update={"tracked": tracked}).save(store, f"{run.folder}/launch.json")
    return tracked
