"""Which corpora an ablation compares, by what training; and what is refused before any work is done.

Nothing here imports Prefect.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError

from flows.jobs import require_launchable, require_measurable, require_trainable
from infra.configuration import explain, merged
from infra.environment import Environment
from infra.errors import BadInput
from infra.manifest import DatasetManifest
from infra.settings import Settings, opened, operational
from infra.store import Store
from model.config import (
    EvaluationDuringTraining,
    EvaluationSettings,
    TrainingSettings,
)
from tasks.config import CorpusSettings
from tasks.tokens.tokenizer import vocabulary_of

_NAME = r"^[a-z0-9][a-z0-9._-]*$"


class AblationSettings(Settings):
    """Which corpora are compared, and by what training."""

    name: str = Field(default="ablation", pattern=_NAME)
    """Name of the ablation: its datasets are called NAME-VARIANT, its runs NAME-VARIANT-SEED."""
    environment: Environment = operational(Environment())
    """Where the work is done; changes no result."""
    base: CorpusSettings = opened(CorpusSettings())
    """The corpus that all variants change."""
    variants: Mapping[str, Mapping[str, Any]] = Field(default={})
    """Two or more, by name: the settings that differ from the base, nested as in a configuration file; {} is the base
    itself. The first is what the others are compared with."""
    training: TrainingSettings = opened(TrainingSettings())
    """The training of every model; its duration in steps or tokens, its seed replaced by each of `seeds`."""
    seeds: tuple[int, ...] = Field(default=(1, 2), min_length=1)
    """Seeds of initial weights and order of data; FineWeb takes two. With one, intervals say nothing of the noise of
    training, and a small difference nothing of the data."""
    max_epochs: float = Field(default=1.0, gt=0)
    """How often a model may see its training text at most; 1 as FineWeb: repetition would favour the larger corpus."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """What every model is measured on, besides the held-out text of every variant; its `confidence` is that of all
    intervals. Text files are measured as tasks (`gristmill benchmarks` makes them)."""
    judges: tuple[str, ...] = ()
    """Measures that decide: heldout/VARIANT, a task, or benchmarks for the mean over tasks. Unset: all benchmarks, or
    without any all held-out text."""


def variant_corpora(settings: AblationSettings) -> dict[str, CorpusSettings]:
    """The corpus of every variant; BadInput for fewer than two, two that are equal, and what cannot differ."""
    if len(settings.variants) < 2:
        raise BadInput(
            f"variants: {', '.join(settings.variants) or 'none'}",
            "an ablation compares two or more corpora",
            "Name each under `variants` with the settings in which it differs from `base`",
        )
    corpora = {name: _variant(settings.base, name, changes) for name, changes in settings.variants.items()}
    names = list(corpora)
    for place, name in enumerate(names):  # paths count here: they are no part of what names a stage
        if twin := next((each for each in names[:place] if corpora[each] == corpora[name]), None):
            raise _same(twin, name, "their settings are the same")
    return corpora


def _variant(base: CorpusSettings, name: str, changes: Mapping[str, Any]) -> CorpusSettings:
    if not re.match(_NAME, name):
        raise BadInput(
            f"variants: {name!r}", "names are of small letters, digits, '-', '_' and '.'", "Choose another name"
        )
    for section, why in (("tokenizer", "tokens mean the same in all variants"), ("heldout", "all hold out alike")):
        if section in changes:
            raise BadInput(f"variants.{name}.{section}", why, f"Set base.{section} instead")
    try:
        corpus = CorpusSettings.model_validate(merged(base.model_dump(mode="json", exclude_unset=True), changes))
    except ValidationError as error:
        wrong = explain(CorpusSettings, error)
        raise BadInput(f"variants.{name}: {wrong.value}", wrong.rule, wrong.remedy) from error
    if corpus.dedup.index is not None:
        raise BadInput(
            f"dedup.index={corpus.dedup.index} in variant {name}",
            "the first variant would enter the index and take the documents of the others for seen",
            "Leave the index out of an ablation",
        )
    return corpus


def _same(one: str, other: str, why: str) -> BadInput:
    return BadInput(
        f"variants {one} and {other}: {why}", "variants must differ in what is trained on", f"Change or remove {other}"
    )


def check_training(settings: AblationSettings) -> None:
    """Refuse with BadInput, before anything is built, a training that cannot compare corpora or cannot work."""
    training, evaluation = settings.training, settings.evaluation
    if len(set(settings.seeds)) < len(settings.seeds):
        raise BadInput(f"seeds {settings.seeds}", "a seed that comes twice trains the same model", "Name others")
    if training.duration.epochs is not None:
        raise BadInput(
            f"training.duration.epochs = {training.duration.epochs}",
            "all variants train for the same number of tokens, whatever their size",
            "Give training.duration.tokens",
        )
    if training.data.blend:
        raise BadInput(
            "training.data.blend", "each model trains on the dataset of its variant alone", "Mix in base.mix instead"
        )
    if evaluation.step is not None:
        raise BadInput(f"evaluation.step = {evaluation.step}", "models are compared at their end", "Leave it out")
    environment, name = settings.environment, f"{settings.name}-{next(iter(settings.variants), '')}"
    vocabulary_size = vocabulary_of(settings.base.tokenizer, Store(environment.root))
    made = training_of(settings)
    require_trainable(made, vocabulary_size, name, environment)
    require_measurable(evaluation, training, vocabulary_size, environment)
    require_launchable(environment, made, training.parallel.processes, evaluation.parallel.processes)


def training_of(settings: AblationSettings, seed: int = 1, held_out: Sequence[str] = ()) -> TrainingSettings:
    """The training of one run, which measures its model at its last step unless evaluations on its way are set."""
    training = settings.training.model_copy(update={"seed": seed})
    if training.evaluation is not None:
        return training
    at_end = EvaluationDuringTraining(every_steps=training.planned_steps(0), of=evaluation_of(settings, held_out))
    return training.model_copy(update={"evaluation": at_end})


def evaluation_of(settings: AblationSettings, held_out: Sequence[str]) -> EvaluationSettings:
    """What a run is measured on, with the held-out text of some datasets besides its own."""
    every = tuple(dict.fromkeys([*held_out, *settings.evaluation.held_out]))
    return settings.evaluation.model_copy(update={"held_out": every})


def tokens(training: TrainingSettings) -> int:
    """Tokens that go through every model."""
    return training.batches.samples(training.planned_steps(0)) * training.model.sequence_length


def check_datasets(settings: AblationSettings, datasets: Mapping[str, DatasetManifest]) -> dict[str, float]:
    """How often a training goes through each dataset; BadInput for too often, and for two that are equal."""
    seen: dict[str, str] = {}
    for name, dataset in datasets.items():
        twin = seen.setdefault(dataset.fingerprint, name)
        if twin != name:
            raise _same(twin, name, "they came out the same to the byte")
    wanted = tokens(settings.training)
    epochs = {name: wanted / dataset.tokens("train") for name, dataset in datasets.items()}
    if any(each > settings.max_epochs for each in epochs.values()):
        each = ", ".join(f"{name} {count:.2f}" for name, count in epochs.items())
        least = min(dataset.tokens("train") for dataset in datasets.values())
        raise BadInput(
            f"{wanted:,} tokens of training are these epochs: {each}",
            f"max_epochs = {settings.max_epochs:g}: a corpus that is repeated more often than another is judged by "
            "its size",
            f"Train for at most {int(least * settings.max_epochs):,} tokens, take more of the source, or raise "
            "max_epochs",
        )
    return epochs
