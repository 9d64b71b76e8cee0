"""Runs as people name them."""

from pathlib import Path

from flows.config import DatasetSettings
from infra.errors import BadInput
from infra.manifest import DatasetManifest, load_dataset
from infra.store import Store
from model.config import EvaluationSettings, TrainingSettings
from model.run import RunRecord, finished_training, named_run, open_run_folder


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
