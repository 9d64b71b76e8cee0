"""A run's folder, and the small files in it. Nothing here imports torch.

    runs/NAME/VERSION-FINGERPRINT/
        run.json                     what is trained, on what; the folder's name holds its fingerprint
        launch.json                  where the latest launch is tracked; changes from launch to launch
        cost.json                    hours of processors so far, lost steps included
        metrics.jsonl                one line for each step
        checkpoints/step-00000100/   see model.recovery.checkpoint
        training.json                written last: training is complete
        evaluations/step-00000100.json

A run's *fingerprint* is made of the settings that are not operational and of the fingerprints of its datasets; the
layout is recorded but stays out of it, so that a run may go on under another layout.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.cost import CostSettings
from infra.errors import BadInput, DamagedData
from infra.manifest import DatasetManifest, Manifest, fingerprint, load_dataset
from infra.settings import Settings
from infra.store import Store
from infra.tracking import TrackedRun
from model.config import EvaluationSettings, TrainingSettings
from model.data.sources import BlendedDataset, blend_tokens, blended
from model.estimates.fitting import require_fitting
from model.estimates.speed import SpeedSummary
from model.findings.records import GroupLikelihood, TaskResult
from model.interchange.imported import check_start, load_imported

logger = logging.getLogger(__name__)

RUN_VERSION = 2
"""Raised when the same settings would train to other weights."""


class Layout(Settings):
    """Factors of a number of processes."""

    tensor: int
    pipeline: int
    virtual_pipeline: int | None = None
    context: int = 1
    expert: int = 1
    """Of the data and context processes."""
    data: int


class RunRecord(Manifest):
    """What is trained on what."""

    name: str
    dataset: str
    dataset_version: str
    dataset_fingerprint: str
    dataset_manifest: str
    """Path of the dataset's manifest, relative to the root."""
    vocabulary_size: int
    train_tokens: int
    """Tokens of the training split, or in one pass over a blend."""
    blend: tuple[BlendedDataset, ...] = ()
    """The datasets of training.data.blend, in its order."""
    training: TrainingSettings
    start_digest: str | None = None
    """Digest of the imported model that training starts from."""
    fingerprint: str

    @property
    def folder(self) -> str:
        """Folder of the run, relative to the root."""
        return f"runs/{self.name}/{self.dataset_version}-{self.fingerprint}"

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.training.planned_steps(self.train_tokens)


class LaunchRecord(Manifest):
    """Where the latest launch of a run is tracked."""

    tracked: TrackedRun | None = None
    """Its MLflow run; none means that MLflow is not used."""
    flow_run_id: str | None = None
    """The Prefect flow run that launched it."""
    prices: CostSettings = CostSettings()
    """By which MLflow is told what the run has cost so far."""
    system_metrics_seconds: float | None = None
    """Time between samples of each machine's load; none takes none."""


class LossRange(Settings):
    """Loss in nats for each token."""

    first: float
    last: float


class TrainingSummary(Manifest):
    """A finished training."""

    fingerprint: str
    parameters: int
    """Weights, each counted once."""
    layout: Layout
    """Layout of the process that finished it."""
    steps: int
    tokens: int
    loss: LossRange
    seconds: float
    """Wall time of the training loop, summed over launches."""
    tokens_per_second: float
    speed: SpeedSummary


class Sample(Settings):
    """A prompt and what the model added to it."""

    prompt: str
    text: str


class BitsPerByte(Settings):
    """Negative log2-likelihood of the text divided by its UTF-8 bytes, on the same tokens for all three."""

    trained: float
    untrained: float | None = None
    """The model as initialised; none where a run was measured while it trained."""
    unigram: float | None = None
    """Token frequencies of the training split, with one added to each count; none likewise."""


class EvaluationRecord(Manifest):
    """What was measured at one step."""

    fingerprint: str
    """Of the run."""
    step: int
    layout: Layout
    settings: EvaluationSettings
    items_digest: str | None = None
    """Digest of all that benchmarks asked."""
    documents: int
    tokens: int
    """Predicted held-out tokens, ends of documents included."""
    text_bytes: int
    """UTF-8 bytes of the same documents."""
    loss: float
    """Nats for each predicted token, of the trained model."""
    untrained_loss: float | None = None
    """The same of the model as initialised; none where a run was measured while it trained."""
    perplexity: float
    bits_per_byte: BitsPerByte | None = None
    """Only of a model that predicts the next token: others give a text no likelihood."""
    groups: tuple[GroupLikelihood, ...] = ()
    """The held-out split as a whole and in parts, with intervals."""
    tasks: tuple[TaskResult, ...] = ()
    """Benchmarks, in the order of their names; groups before their members."""
    samples: tuple[Sample, ...]
    seconds: float


def prepare_run(
    store: Store, dataset: DatasetManifest, name: str, training: TrainingSettings, *, elsewhere: bool = False
) -> RunRecord:
    """Check the settings, create the run's folder and write its run.json; running it again changes nothing.

    Raises what check_run does, and DamagedData where the folder holds another run.
    """
    check_run(store, dataset, name, training, elsewhere=elsewhere)
    record = named_run(store, dataset, name, training)
    path = f"{record.folder}/run.json"
    if store.exists(path):
        _require_same_run(store, path, RunRecord.load(store, path), record)
    record.save(store, path)
    return record


def check_run(
    store: Store, dataset: DatasetManifest, name: str, training: TrainingSettings, *, elsewhere: bool = False
) -> None:
    """Refuse with BadInput a name, root or layout that cannot work.

    This machine's devices and libraries do not count where the ranks run `elsewhere`.
    """
    require_folder(store, dataset.name)
    _check_name(name)
    require_fitting(training, dataset.tokenizer.vocabulary_size, elsewhere=elsewhere)


def require_folder(store: Store, dataset: str) -> None:
    """BadInput for a root that no training can use."""
    if not store.is_local:
        raise BadInput(
            f"root {store.root}",
            "training maps its data into memory and writes checkpoints, which needs a folder of this machine",
            f"Give a local --root and bring the dataset there: gristmill copy {dataset} --from {store.root}",
        )


def named_run(store: Store, dataset: DatasetManifest, name: str, training: TrainingSettings) -> RunRecord:
    """The run of a name on a dataset, whether its folder is there or not; nothing is written.

    BadInput for a blend, or a model to start from, that cannot be.
    """
    datasets = blended(store, dataset, training.data)
    start_digest = _start_digest(store, training, datasets)
    blend = [BlendedDataset(name=each.name, version=each.version, fingerprint=each.fingerprint) for each in datasets]
    return RunRecord(
        name=name,
        dataset=dataset.name,
        dataset_version=dataset.version,
        dataset_fingerprint=dataset.fingerprint,
        dataset_manifest=f"{dataset.folder}/manifest.json",
        vocabulary_size=dataset.tokenizer.vocabulary_size,
        train_tokens=blend_tokens(datasets, training.data),
        blend=tuple(blend if training.data.blend else ()),
        training=training,
        start_digest=start_digest,
        fingerprint=run_fingerprint(training, *(each.fingerprint for each in datasets), start=start_digest),
    )


def run_fingerprint(training: TrainingSettings, *datasets: str, start: str | None = None) -> str:
    """Name of the weights that a run will end with, given the fingerprints of all datasets that it trains on.

    `start` is the digest of the imported model that it goes on from, if any.
    """
    return fingerprint(version=RUN_VERSION, training=training.identity(), datasets=datasets, start=start)


def _start_digest(store: Store, training: TrainingSettings, datasets: Sequence[DatasetManifest]) -> str | None:
    """Digest of the imported model that training starts from; BadInput where it is not this model."""
    if training.start_from is None:
        return None
    imported = load_imported(store, training.start_from)
    for each in datasets:
        check_start(imported, training.model, each.tokenizer)
    return imported.digest


def training_datasets(store: Store, run: RunRecord) -> tuple[DatasetManifest, ...]:
    """The datasets that a run trains on, in the order of its blend."""
    names = [(each.name, each.version) for each in run.blend] or [(run.dataset, run.dataset_version)]
    return tuple(load_dataset(store, *each) for each in names)


def _check_name(name: str) -> None:
    if not name or name.startswith(".") or not all(part.isalnum() or part in "-_." for part in name):
        raise BadInput(
            f"run name {name!r}",
            "a run's name is a folder's name: letters, digits, '-', '_' and '.'",
            "Choose another name",
        )


def _require_same_run(store: Store, path: str, found: RunRecord, wanted: RunRecord) -> None:
    different = differing_fields(
        {**found.model_dump(mode="json"), "training": found.training.identity()},
        {**wanted.model_dump(mode="json"), "training": wanted.training.identity()},
    )
    if different:
        raise DamagedData(
            f"{store.full_path(path)} differs in {different}",
            "the folder's name holds the fingerprint of its settings and dataset, so these must agree",
            "Restore the file, or remove the run's folder to train anew",
        )


def differing_fields(found: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> str:
    """Name each leaf that differs, with both values, for an error message; empty where none does."""
    differences: list[str] = []
    for key in sorted(found.keys() | wanted.keys()):
        one, other = found.get(key), wanted.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            nested = differing_fields(one, other, f"{prefix}{key}.")
            differences += [nested] if nested else []
        elif one != other:
            differences.append(f"{prefix}{key} ({one} instead of {other})")
    return ", ".join(differences)


def open_run_folder(run_dir: Path) -> tuple[Store, RunRecord, DatasetManifest]:
    """The root, the run and its dataset from a run's folder alone; BadInput or DamagedData if it is not a run's."""
    store = Store(str(run_dir.absolute().parents[2]))
    folder = run_dir.absolute().relative_to(store.local_path("")).as_posix()
    try:
        record = RunRecord.load(store, f"{folder}/run.json")
    except FileNotFoundError:
        raise BadInput(
            f"{run_dir} holds no run.json", "a run is prepared before it is trained", "Start it with `gristmill train`"
        ) from None
    dataset = load_dataset(store, record.dataset, record.dataset_version)
    datasets = [each.fingerprint for each in training_datasets(store, record)]
    expected = run_fingerprint(record.training, *datasets, start=record.start_digest)
    if (record.folder, record.fingerprint) != (folder, expected):
        raise DamagedData(
            f"{run_dir}/run.json describes {record.folder}, and its settings and dataset make fingerprint {expected}",
            "a run's settings and its dataset stay as they were when it was prepared",
            "Restore run.json and the dataset, or start a new run",
        )
    return store, record, dataset


def load_launch(store: Store, record: RunRecord) -> LaunchRecord:
    """Where the latest launch is tracked; an empty record where none was saved."""
    path = f"{record.folder}/launch.json"
    return LaunchRecord.load(store, path) if store.exists(path) else LaunchRecord()


def finished_training(store: Store, record: RunRecord) -> TrainingSummary | None:
    """The summary of a run that is complete."""
    path = f"{record.folder}/training.json"
    return TrainingSummary.load(store, path) if store.exists(path) else None


def step_name(step: int) -> str:
    """Name of a step in files and folders, in step order when sorted."""
    return f"step-{step:08d}"


def evaluation_folder(record: RunRecord, step: int) -> str:
    """Folder of the files beside an EvaluationRecord, relative to the root."""
    return f"{record.folder}/evaluations/{step_name(step)}"


def evaluation_path(record: RunRecord, step: int) -> str:
    """Path of an EvaluationRecord, relative to the root."""
    return f"{evaluation_folder(record, step)}.json"


def read_metrics(run_dir: Path) -> list[dict[str, float]]:
    """Rows of metrics.jsonl in step order; a last line that a killed process left unfinished is ignored."""
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return []
    rows: list[dict[str, float]] = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def trained_tokens(store: Store, run: RunRecord, step: int) -> int:
    """Tokens that a run was trained on up to a step, by its metrics, or as if all steps were of full size."""
    rows = read_metrics(store.local_path(run.folder))
    known = {int(row["step"]): int(row["tokens"]) for row in rows if "tokens" in row}
    return known.get(step, step * run.training.tokens_per_step)


def truncate_metrics(run_dir: Path, step: int) -> list[dict[str, float]]:
    """Drop the rows after a step, because they will be made again; returns what stays."""
    kept = [row for row in read_metrics(run_dir) if row["step"] <= step]
    temporary = run_dir / "metrics.jsonl.tmp"
    temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
    temporary.replace(run_dir / "metrics.jsonl")
    return kept
