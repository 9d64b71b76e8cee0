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
from flows.promotion import promote
from flows.refreshes.champion import Champion, open_champion
from flows.refreshes.history import record_path
from flows.refreshes.settings import ContinuationSettings, RefreshSettings
from infra.environment import Environment
from infra.manifest import DatasetManifest, Manifest, dataset_folder, dataset_versions, load_dataset, version_key
from infra.settings import Settings
from infra.store import Store
from model.config import EvaluationSettings, TrainingSettings
from model.data.settings import Source
from model.interchange.export import ExportSettings
from model.run import RunRecord, training_datasets

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


def begun(store: Store, name: str) -> tuple[DatasetManifest, ContinuationRecord] | None:
    """What training after a dataset's refreshes was begun last, if it was stopped."""
    for version in reversed(dataset_versions(store, name)):
        path = _path(name, version)
        if store.exists(path):
            record = ContinuationRecord.load(store, path)
            return (load_dataset(store, name, version), record) if record.promoted is None else None
    return None


def awaited(store: Store, name: str, champion: Champion) -> DatasetManifest | None:
    """The newest version of a dataset, if a refresh made it and training on it is to be begun.

    It is not where nothing is newer than what the champion was trained on.
    """
    newest = next(reversed(dataset_versions(store, name)), None)
    if newest is None or not store.exists(record_path(name, newest)) or store.exists(_path(name, newest)):
        return None
    dataset = load_dataset(store, name, newest)
    if not unseen(versions_until(store, dataset), training_datasets(store, champion.run)):
        logger.info("refresh: %s was trained on %s/%s, or newer text", champion.run.folder, name, newest)
        return None
    return dataset


def finish_continuation(store: Store, refresh: RefreshSettings, environment: Environment) -> Continuation | None:
    """Bring what was begun to its end."""
    found = begun(store, refresh.dataset)
    return None if found is None else _train_on(store, *found, refresh, environment)


def continue_from_champion(
    store: Store, refresh: RefreshSettings, champion: Champion, environment: Environment
) -> Continuation | None:
    """Train on what is new in a dataset, if that is awaited."""
    dataset = awaited(store, refresh.dataset, champion)
    if dataset is None:
        return None
    record = ContinuationRecord(champion=champion.run.folder, step=champion.step)
    record.save(store, _path(dataset.name, dataset.version))
    return _train_on(store, dataset, record, refresh, environment)


def _train_on(
    store: Store,
    dataset: DatasetManifest,
    record: ContinuationRecord,
    refresh: RefreshSettings,
    environment: Environment,
) -> Continuation:
    """Train, evaluate and promote, as far as that is not done, and write down what came of it."""
    settings, champion = refresh.continuation, open_champion(store, record.champion, record.step)
    assert settings is not None, "nothing goes on without it"
    training = continued_training(store, dataset, champion, settings)
    named = DatasetSettings(name=dataset.name, version=dataset.version)
    run = pretrain(named, settings.run, training, environment).run
    evaluation = continued_evaluation(store, champion, run, settings)
    evaluate(run.folder, evaluation, settings.contamination, environment=environment)
    verdict = promote(run.folder, settings.promotion, environment).verdict
    done = {"run": run.folder, "promoted": verdict.promoted, "reason": verdict.reason}
    record.model_copy(update=done).save(store, _path(dataset.name, dataset.version))
    name = f"{champion.run.folder.removeprefix('runs/')} at step {record.step:,}"
    return Continuation(champion=name, run=run.folder, promoted=verdict.promoted, reason=verdict.reason)


def _path(name: str, version: str) -> str:
    return f"{dataset_folder(name, version)}/continuation.json"


def continued_training(
    store: Store, dataset: DatasetManifest, champion: Champion, settings: ContinuationSettings
) -> TrainingSettings:
    """The champion's own settings, but for its weights, the mixture, the duration and perhaps the optimizer."""
    seen = training_datasets(store, champion.run)
    blend = mixture(unseen(versions_until(store, dataset), seen), seen, settings.new_share)
    training = champion.training(settings)
    data = training.data.model_copy(update={"blend": blend})
    return training.model_copy(update={"start_from": weights_of(store, champion), "data": data})


def versions_until(store: Store, dataset: DatasetManifest) -> list[DatasetManifest]:
    """Those of a dataset up to this one that have its tokenizer, oldest first."""
    versions = dataset_versions(store, dataset.name)
    until = [load_dataset(store, dataset.name, each) for each in versions[: versions.index(dataset.version) + 1]]
    return [each for each in until if each.tokenizer.sha256 == dataset.tokenizer.sha256]


def unseen(versions: Sequence[DatasetManifest], seen: Sequence[DatasetManifest]) -> list[DatasetManifest]:
    """Of a dataset's versions those newer than all that a champion was trained on; one filled in later is not."""
    known = [version_key(each.version) for each in seen if each.name == versions[0].name]
    return [each for each in versions if not known or version_key(each.version) > max(known)]


def mixture(new: Sequence[DatasetManifest], seen: Sequence[DatasetManifest], new_share: float) -> tuple[Source, ...]:
    """What to train on: what is new by `new_share`, what the champion was trained on by the rest."""
    old = seen if new_share < 1 else []
    weights = {**_weighted(new, new_share if old else 1.0), **_weighted(old, 1 - new_share)}
    if len(weights) == 1:
        return ()
    return tuple(Source(dataset=name, version=version, weight=each) for (name, version), each in weights.items())


def _weighted(datasets: Sequence[DatasetManifest], share: float) -> dict[tuple[str, str], float]:
    """A share of the samples, spread by tokens."""
    whole = sum(each.tokens("train") for each in datasets)
    return {(each.name, each.version): share * (each.tokens("train") / whole) for each in datasets}


def weights_of(store: Store, champion: Champion) -> str:
    """The champion's weights as a model to start from."""
    run, name = champion.run, champion.weights
    if not store.exists(f"models/{name}/manifest.json"):
        folder = store.local_path(f"exports/{name}")
        store.remove(f"exports/{name}")  # left by a refresh that was stopped before they were taken in
        export_run(store, run.folder, folder, ExportSettings(step=champion.step, dtype="float32"))
        import_folder(store, folder, name, run.training.model.sequence_length)
        store.remove(f"exports/{name}")
    return f"models/{name}"


def continued_evaluation(
    store: Store, champion: Champion, run: RunRecord, settings: ContinuationSettings
) -> EvaluationSettings:
    """What is measured: what was asked for or measured of the champion, and always its held-out text."""
    chosen = champion.measured(store, settings)
    own, theirs = f"{run.dataset}/{run.dataset_version}", f"{champion.run.dataset}/{champion.run.dataset_version}"
    further = [each for each in dict.fromkeys([*chosen.held_out, theirs]) if each != own]
    return chosen.model_copy(update={"step": None, "held_out": tuple(further)})
