"""The champion that training goes on from: who it is, and whether training could go on from it at all."""

from dataclasses import dataclass

from flows.jobs import require_launchable, require_measurable
from flows.promotion import champion_of, evaluated
from flows.refreshes.settings import ContinuationSettings, RefreshSettings
from flows.runs import find_run
from infra.environment import Environment
from infra.errors import BadInput
from infra.manifest import DatasetManifest, TokenizerRecord, dataset_versions, load_dataset
from infra.store import Store
from model.config import EvaluationSettings, TrainingSettings
from model.interchange.transformers_config import to_config
from model.run import RunRecord, check_run, open_run_folder, step_name
from model.tracked_checkpoints import meta_path
from tasks.inputs import find
from tasks.tokens.tokenizer import TokenizerSettings
from tasks.tokens.tokenizer_import import import_tokenizer


@dataclass(frozen=True)
class Champion:
    """A run at a step, and the dataset that the run is on."""

    run: RunRecord
    dataset: DatasetManifest
    step: int

    @property
    def weights(self) -> str:
        """What its weights are called as a model to start from."""
        return f"{self.run.name}-{self.run.fingerprint}-{step_name(self.step)}"

    def measured(self, store: Store, settings: ContinuationSettings) -> EvaluationSettings:
        """What was asked for, or else measured of it; BadInput where neither is."""
        return settings.evaluation or evaluated(store, self.run, self.step).record.settings

    def training(self, settings: ContinuationSettings) -> TrainingSettings:
        """Its own settings, but for the duration and perhaps the optimizer."""
        optimizer = settings.optimizer or self.run.training.optimizer
        return self.run.training.model_copy(update={"duration": settings.duration, "optimizer": optimizer})


def require_champion(store: Store, environment: Environment, settings: ContinuationSettings) -> Champion:
    """The champion to go on from; BadInput if there is none, or its run is not below this root."""
    model = settings.promotion.model
    champion = champion_of(environment, model).versions.get("champion")
    if champion is None:
        raise BadInput(
            f"refresh.continuation: model {model} has no champion",
            "training goes on from a champion",
            "Train, evaluate and promote a run first, or leave refresh.continuation unset",
        )
    return open_champion(store, champion.tags.get("run", ""), int(champion.tags.get("step", 0)))


def open_champion(store: Store, run: str, step: int) -> Champion:
    """A champion by its run's name or folder; BadInput if that is not below this root."""
    if not store.is_local:
        raise BadInput(
            f"refresh.continuation with root {store.root}",
            "training goes on from checkpoints in a folder of this machine",
            "Give a local root, or leave refresh.continuation unset",
        )
    _, record, dataset = open_run_folder(find_run(store, run))
    return Champion(record, dataset, step)


def check_champion(store: Store, champion: Champion, refresh: RefreshSettings, environment: Environment) -> None:
    """Refuse with BadInput, before anything is built, what training could not go on from or could not be done."""
    settings, run, tokenizer = refresh.continuation, champion.run, champion.dataset.tokenizer
    assert settings is not None, "nothing goes on without it"
    to_config(run.training.model, run.vocabulary_size, tokenizer.end_of_document, tokenizer.pad, "float32")
    if not store.exists(meta_path(run, champion.step)) and not store.exists(f"models/{champion.weights}/manifest.json"):
        raise BadInput(
            f"the champion {run.folder} has no checkpoint of step {champion.step:,} any more",
            "training goes on from its weights",
            "Restore it, promote a run that has one, or leave refresh.continuation unset",
        )
    _require_same_tokenizer(store, refresh, tokenizer)
    training = champion.training(settings)
    check_run(store, champion.dataset, settings.run, training, elsewhere=environment.ranks_elsewhere)
    measured = champion.measured(store, settings)
    require_measurable(measured, training, run.vocabulary_size, environment)
    require_launchable(environment, training, training.parallel.processes, measured.parallel.processes)


def _require_same_tokenizer(store: Store, refresh: RefreshSettings, tokenizer: TokenizerRecord) -> None:
    """A dataset keeps its tokenizer; one without a version has the one that is given, or learns another."""
    versions = dataset_versions(store, refresh.dataset)
    if versions:
        found = load_dataset(store, refresh.dataset, versions[-1]).tokenizer.sha256
    else:
        found = _given(store, refresh.corpus.tokenizer)
    if found != tokenizer.sha256:
        raise BadInput(
            f"the champion's tokenizer ({tokenizer.sha256[:12]}) is not that of dataset {refresh.dataset} "
            f"({found[:12] if found else 'one to be learned'})",
            "weights go with the tokenizer that they were trained with",
            f"Begin a dataset with refresh.corpus.tokenizer.path={tokenizer.path}, or leave refresh.continuation unset",
        )


def _given(store: Store, settings: TokenizerSettings) -> str | None:
    """Digest of the tokenizer that is given, if one is."""
    return settings.path and import_tokenizer(find(settings.path, store), settings.existing).record.sha256
