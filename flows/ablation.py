"""Data ablations: the same small model on each of several corpora, and which corpus is better.

This is how FineWeb chose its filters (arXiv:2406.17557): one model, one number of tokens, at least two seeds, the same
measurements. Each variant of the corpus is a base configuration with some settings changed. The first variant is the
*baseline* that others are compared with. All share one tokenizer: that of `base.tokenizer.path`, or one learned from
the baseline's text, which favours the baseline a little; with it tokens mean the same everywhere, so that the same
number of tokens is the same amount of training.

Every model is measured on the held-out text of every variant, as far as no variant trains on it, and on benchmarks if
there are any. Any model does well on text like its own, so held-out text alone cannot say which data is good:
benchmarks decide where there are some, or the measures that `judges` names.

Runs are ordinary runs, `runs/NAME-VARIANT-SEED`. An ablation that was stopped goes on where it was.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from pydantic import Field, ValidationError

from flows import progress
from flows.ablation_findings import Findings, MeasuredRun, conclude, heldout_by_all
from flows.ablation_report import AblationRecord, VariantRecord, publish
from flows.config import DatasetSettings, PipelineSettings
from flows.corpus import build_corpus
from flows.evaluation import evaluate
from flows.pretraining import pretrain
from infra.configuration import explain, load_settings, merged
from infra.errors import BadInput
from infra.manifest import DatasetManifest, fingerprint
from infra.settings import Environment, Settings, operational
from infra.store import Store
from infra.tracking import TrackedRun, finish_run, open_run
from model.config import EvaluationSettings, TrainingSettings, validate_evaluation, validate_layout
from tasks.config import CorpusSettings

logger = logging.getLogger(__name__)
_NAME = r"^[a-z0-9][a-z0-9._-]*$"
_FEWEST_DOCUMENTS = 2


class AblationSettings(Settings):
    """Which corpora are compared, and by what training."""

    name: str = Field(default="ablation", pattern=_NAME)
    """Name of the ablation: its datasets are called NAME-VARIANT, its runs NAME-VARIANT-SEED."""
    environment: Environment = operational(Environment())
    """Where the work is done; changes no result."""
    base: CorpusSettings = CorpusSettings()
    """The corpus that all variants change."""
    variants: Mapping[str, Mapping[str, Any]] = Field(default={})
    """Two or more, by name: the settings that differ from the base, nested as in a configuration file; {} is the base
    itself. The first is what the others are compared with."""
    training: TrainingSettings = TrainingSettings()
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


def load_ablation(
    preset: PipelineSettings, file: Path | None, assignments: Sequence[tuple[str, Any]]
) -> AblationSettings:
    """Settings from a preset's corpus, training and evaluation, a file over them, and assignments over both."""
    start = AblationSettings(
        environment=preset.environment, base=preset.corpus, training=preset.training, evaluation=preset.evaluation
    )
    return load_settings(AblationSettings, start, file, assignments)


@flow(name="ablate", persist_result=False)
def ablate(settings: AblationSettings) -> AblationRecord:
    """Build every variant of a corpus, train the same model on each with each seed, and say which data is better."""
    progress.let_through()
    corpora = variant_corpora(settings)
    check_training(settings)
    store = Store(settings.environment.root)
    datasets = _build(settings, corpora, store)
    epochs = check_datasets(settings, datasets)
    held_out = _held_out(settings, datasets, store)
    runs = [_train_and_measure(settings, name, seed, datasets) for seed in settings.seeds for name in datasets]
    confidence = settings.evaluation.benchmarks.confidence
    measures = Findings(store, runs, datasets, held_out, settings.judges, confidence).measures()
    record = AblationRecord(
        name=settings.name,
        fingerprint=_fingerprint(settings, datasets),
        tokens=tokens(settings.training),
        seeds=settings.seeds,
        confidence=confidence,
        variants=tuple(
            VariantRecord(
                name=name,
                dataset=f"{each.name}/{each.version}",
                fingerprint=each.fingerprint,
                train_tokens=each.tokens("train"),
                epochs=epochs[name],
                changes=dict(settings.variants[name]),
                runs=tuple(run.run.folder for run in runs if run.variant == name),
            )
            for name, each in datasets.items()
        ),
        measures=measures,
        conclusions=conclude(measures, list(datasets)),
    )
    publish(store, record, settings.environment)
    return record


def variant_corpora(settings: AblationSettings) -> dict[str, CorpusSettings]:
    """The corpus of every variant; BadInput for fewer than two, two that are equal, and what cannot differ."""
    if len(settings.variants) < 2:
        raise BadInput(
            f"variants: {', '.join(settings.variants) or 'none'}",
            "an ablation compares two or more corpora",
            "Name each under `variants` with the settings in which it differs from `base`",
        )
    corpora = {name: _variant(settings.base, name, changes) for name, changes in settings.variants.items()}
    seen: dict[str, str] = {}
    for name, corpus in corpora.items():
        twin = seen.setdefault(fingerprint(settings=corpus.identity()), name)
        if twin != name:
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
    if settings.base.tokenizer.path is None:
        vocabulary_size = settings.base.tokenizer.vocabulary_size
        validate_layout(training, vocabulary_size)
        validate_evaluation(evaluation, training.model, vocabulary_size)


def tokens(training: TrainingSettings) -> int:
    """Tokens that go through every model."""
    return training.batches.samples(training.planned_steps(0)) * training.model.sequence_length


def _build(
    settings: AblationSettings, corpora: Mapping[str, CorpusSettings], store: Store
) -> dict[str, DatasetManifest]:
    """The dataset of every variant; the first one's tokenizer is that of all."""
    datasets: dict[str, DatasetManifest] = {}
    for name, corpus in corpora.items():
        if datasets:
            path = store.full_path(next(iter(datasets.values())).tokenizer.path)
            existing = corpus.tokenizer.model_copy(update={"path": path})
            corpus = corpus.model_copy(update={"tokenizer": existing})
        named = build_corpus.with_options(flow_run_name=f"corpus {settings.name}-{name}")
        dataset = DatasetSettings(name=f"{settings.name}-{name}")
        datasets[name] = named(corpus, dataset, settings.environment).dataset
    return datasets


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


def _held_out(settings: AblationSettings, datasets: Mapping[str, DatasetManifest], store: Store) -> dict[str, Any]:
    """For each variant, which of its held-out documents no variant trains on; BadInput if nothing is left anywhere."""
    common = {name: heldout_by_all(store, each, list(datasets.values())) for name, each in datasets.items()}
    for name, mask in common.items():
        if not mask.all():
            logger.warning(
                "held out of %s: %d of %d documents are trained on by another variant, which makes other text of them; "
                "they are left out",
                name,
                len(mask) - mask.sum(),
                len(mask),
            )
    if all(mask.sum() < _FEWEST_DOCUMENTS for mask in common.values()) and not settings.evaluation.benchmarks.tasks:
        raise BadInput(
            f"held-out documents that no variant trains on: {sum(int(mask.sum()) for mask in common.values())}",
            "models are compared on text that none of them has seen",
            "Raise base.heldout.fraction, take more of the source, or name benchmarks",
        )
    return common


def _train_and_measure(
    settings: AblationSettings, name: str, seed: int, datasets: Mapping[str, DatasetManifest]
) -> MeasuredRun:
    run = f"{settings.name}-{name}-{seed}"
    own = datasets[name]
    dataset = DatasetSettings(name=own.name, version=own.version)
    training = settings.training.model_copy(update={"seed": seed})
    others = [f"{each.name}/{each.version}" for each in datasets.values() if each is not own]
    measured = tuple(dict.fromkeys([*others, *settings.evaluation.held_out]))
    evaluation = settings.evaluation.model_copy(update={"held_out": measured})
    trained = pretrain.with_options(flow_run_name=f"pretrain {run}")(dataset, run, training, settings.environment)
    _tag(Store(settings.environment.root), trained.tracked, settings, name, seed)
    flow_of_run = evaluate.with_options(flow_run_name=f"evaluate {run}")
    found = flow_of_run(dataset, run, training, evaluation, settings.environment)
    return MeasuredRun(name, seed, trained.run, found.record)


def _tag(store: Store, tracked: TrackedRun | None, settings: AblationSettings, name: str, seed: int) -> None:
    """Mark the MLflow run of a training, so that all of an ablation are found together."""
    if tracked is None:
        return
    tags = {"ablation": settings.name, "ablation.variant": name, "ablation.seed": str(seed)}
    finish_run(open_run(store, tracked.tracking_uri, tracked.experiment, "", tags=tags, previous=tracked))


def _fingerprint(settings: AblationSettings, datasets: Mapping[str, DatasetManifest]) -> str:
    return fingerprint(
        settings=settings.identity(), datasets={name: each.fingerprint for name, each in datasets.items()}
    )
