"""Training that goes on from the champion after a refresh: mixture, training, evaluation, and the gate of promotion.

    datasets/NAME/VERSION/continuation.json    ContinuationRecord: written before training, and again with the verdict

The champion's weights are exported and imported as `models/RUN-FINGERPRINT-step-N`, so that a new run starts from them
with a schedule of its own; the optimizer's state stays behind.
"""

import logging
from collections.abc import Sequence

from flows.config import DatasetSettings
from flows.evaluation import evaluate
from flows.interchange import export_run, import_folder
from flows.pretraining import pretrain
from flows.promotion import champion_of, evaluated, promote
from flows.refreshes.history import record_path
from flows.refreshes.settings import ContinuationSettings, RefreshSettings
from flows.runs import find_run
from infra.environment import Environment
from infra.errors import BadInput
from infra.manifest import DatasetManifest, Manifest, dataset_folder, dataset_versions, load_dataset, version_key
from infra.registry import ModelVersion
from infra.settings import Settings
from infra.store import Store
from model.config import EvaluationSettings, TrainingSettings
from model.data.settings import Source
from model.interchange.export import ExportSettings
from model.run import RunRecord, open_run_folder, step_name, training_datasets

logger = logging.getLogger(__name__)


class ContinuationRecord(Manifest):
    """What a training goes on from, so that it is the same after a kill; and what came of it."""

    champion: str
    """Folder of the champion's run, relative to the root."""
    step: int
    run: str | None = None
    """Folder of the run that went on from it; null until it is judged."""
    promoted: bool | None = None
    reason: str | None = None
    """The verdict in a line."""


class Continuation(Settings):
    """What a refresh's continuation came to."""

    champion: str
    """Folder and step of the champion that it went on from."""
    run: str
    promoted: bool
    reason: str

    def text(self) -> str:
        """The same for people."""
        return f"{self.run} goes on from {self.champion}: {self.reason}"


def require_champion(store: Store, environment: Environment, settings: ContinuationSettings) -> ModelVersion:
    """The champion to go on from; BadInput if there is none, or its run is not below this root."""
    model = settings.promotion.model
    champion = champion_of(environment, model).versions.get("champion")
    if champion is None:
        raise BadInput(
            f"refresh.continuation: model {model} has no champion",
            "training goes on from a champion",
            "Train, evaluate and promote a run first, or leave refresh.continuation unset",
        )
    find_run(store, champion.tags.get("run", ""))
    return champion


def continue_from_champion(store: Store, refresh: RefreshSettings, environment: Environment) -> Continuation | None:
    """Train on what is new in a dataset's newest version, unless that is done or no refresh made it."""
    settings, versions = refresh.continuation, dataset_versions(store, refresh.dataset)
    if settings is None or not versions or not store.exists(record_path(refresh.dataset, versions[-1])):
        return None
    dataset = load_dataset(store, refresh.dataset, versions[-1])
    path = f"{dataset_folder(dataset.name, dataset.version)}/continuation.json"
    record = ContinuationRecord.load(store, path) if store.exists(path) else None
    if record is not None and record.promoted is not None:
        return None
    if record is None:
        tags = require_champion(store, environment, settings).tags
        record = ContinuationRecord(champion=f"runs/{tags['run']}", step=int(tags["step"]))
        record.save(store, path)
    _, champion, _ = open_run_folder(find_run(store, record.champion))
    training = continued_training(store, dataset, champion, record.step, settings)
    named = DatasetSettings(name=dataset.name, version=dataset.version)
    run = pretrain(named, settings.run, training, environment).run
    evaluation = continued_evaluation(store, champion, record.step, run, settings)
    evaluate(run.folder, evaluation, settings.contamination, environment=environment)
    verdict = promote(run.folder, settings.promotion, environment).verdict
    done = {"run": run.folder, "promoted": verdict.promoted, "reason": verdict.reason}
    record.model_copy(update=done).save(store, path)
    name = f"{champion.folder.removeprefix('runs/')} at step {record.step:,}"
    return Continuation(champion=name, run=run.folder, promoted=verdict.promoted, reason=verdict.reason)


def continued_training(
    store: Store, dataset: DatasetManifest, champion: RunRecord, step: int, settings: ContinuationSettings
) -> TrainingSettings:
    """The champion's own settings, but for its weights, the mixture, the duration and perhaps the optimizer."""
    blend = mixture(dataset, _versions(store, dataset), training_datasets(store, champion), settings.new_share)
    return champion.training.model_copy(
        update={
            "start_from": _weights(store, champion, step),
            "data": champion.training.data.model_copy(update={"blend": blend}),
            "duration": settings.duration,
            "optimizer": settings.optimizer or champion.training.optimizer,
        }
    )


def _versions(store: Store, dataset: DatasetManifest) -> list[DatasetManifest]:
    """Those of a dataset that have its tokenizer, oldest first."""
    found = [load_dataset(store, dataset.name, version) for version in dataset_versions(store, dataset.name)]
    return [each for each in found if each.tokenizer.sha256 == dataset.tokenizer.sha256]


def mixture(
    dataset: DatasetManifest, versions: Sequence[DatasetManifest], seen: Sequence[DatasetManifest], new_share: float
) -> tuple[Source, ...]:
    """What to train on: what the champion has not seen by `new_share`, what it was trained on by the rest.

    `versions` are those of the dataset, oldest first. What counts as new is newer than all that it has seen of them.
    """
    known = [version_key(each.version) for each in seen if each.name == dataset.name]
    new = [each for each in versions if not known or version_key(each.version) > max(known)] or [dataset]
    taken = {(each.name, each.version) for each in new}
    old = [each for each in seen if (each.name, each.version) not in taken] if new_share < 1 else []
    weights = {**_weighted(new, new_share if old else 1.0), **_weighted(old, 1 - new_share)}
    if len(weights) == 1:
        return ()
    return tuple(Source(dataset=name, version=version, weight=each) for (name, version), each in weights.items())


def _weighted(datasets: Sequence[DatasetManifest], share: float) -> dict[tuple[str, str], float]:
    """A share of the samples, spread by tokens."""
    whole = sum(each.tokens("train") for each in datasets)
    return {(each.name, each.version): share * (each.tokens("train") / whole) for each in datasets}


def _weights(store: Store, champion: RunRecord, step: int) -> str:
    """The champion's weights as a model to start from."""
    name = f"{champion.name}-{champion.fingerprint}-{step_name(step)}"
    if not store.exists(f"models/{name}/manifest.json"):
        folder = store.local_path(f"exports/{name}")
        export_run(store, champion.folder, folder, ExportSettings(step=step, dtype="float32"))
        import_folder(store, folder, name, champion.training.model.sequence_length)
        store.remove(f"exports/{name}")
    return f"models/{name}"


def continued_evaluation(
    store: Store, champion: RunRecord, step: int, run: RunRecord, settings: ContinuationSettings
) -> EvaluationSettings:
    """What is measured: what was asked for or measured of the champion, and always its held-out text."""
    chosen = settings.evaluation or evaluated(store, champion, step).record.settings
    own, theirs = f"{run.dataset}/{run.dataset_version}", f"{champion.dataset}/{champion.dataset_version}"
    further = [each for each in dict.fromkeys([*chosen.held_out, theirs]) if each != own]
    return chosen.model_copy(update={"step": None, "held_out": tuple(further)})
