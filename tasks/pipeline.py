"""Pipeline: every corpus stage in its order, from a source to token shards and a decision ledger.

`build` runs each step by the function that it is given, which a flow may wrap into tasks of its own. Steps that the
settings leave empty are left out. Files that the settings name are pinned by their content first, so that everything
wrong with them is said before any document is read.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from infra.errors import BadInput, RunFailed
from infra.manifest import DatasetManifest, StageManifest, TokenizerRecord, stage_folder
from infra.retained import find_retained
from infra.store import Store
from tasks.config import CorpusSettings
from tasks.duplicates.dedup import DedupReport, dedup
from tasks.duplicates.repeats import repeats
from tasks.examples import ExampleInputs, Examples, examples
from tasks.extraction.extract import EXTRACT, ExtractSelected
from tasks.filters import FilterInputs, filter_documents
from tasks.ledger import ledger
from tasks.models.ngram_training import train_ngram_model
from tasks.models.quality_training import train_quality_model
from tasks.phrases.decontaminate import decontaminate, pinned_benchmarks
from tasks.privacy.redact import REDACT, pinned_names, redact
from tasks.profile import profile
from tasks.signals import SIGNALS, SignalSettings, pinned_signals, signals
from tasks.sources.fetch import FETCH, fetch
from tasks.sources.select import SELECT, resolve_lists, select_shard
from tasks.stage import StageRunner, finished_stage
from tasks.tokens.mix import MIX, measure_groups, mix, resolve_mix
from tasks.tokens.tokenization import tokenization
from tasks.tokens.tokenizer import train_tokenizer

logger = logging.getLogger(__name__)
MEASURED = (FETCH.name, SELECT.name, EXTRACT.name, SIGNALS.name)
"""The stages that need the source."""
Step = Callable[..., Any]
"""(name, function, *arguments) -> what the function returns."""


def directly(_: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """The plain step: call the function."""
    return function(*arguments)


@dataclass
class Build:
    """The stages of a corpus as they are finished."""

    passed: list[StageManifest] = field(default_factory=list)
    """The stages through which documents pass, in order, fetch first."""
    helpers: dict[str, list[StageManifest]] = field(default_factory=dict)
    """Stages that see no document leave, by the name of the stage that they work for."""
    signals: SignalSettings = field(default_factory=SignalSettings)
    """What was measured, with the models that were trained."""
    dedup: DedupReport | None = None

    def add(self, manifest: StageManifest, *helpers: StageManifest) -> StageManifest:
        """Note a finished stage and those that worked for it."""
        self.passed.append(manifest)
        self.helpers[manifest.stage] = list(helpers)
        return manifest

    @property
    def every(self) -> list[StageManifest]:
        """All stages, those that work for another before it."""
        return [each for passed in self.passed for each in (*self.helpers[passed.stage], passed)]

    def stage(self, name: str) -> StageManifest:
        """A finished stage by name."""
        return next(each for each in self.every if each.stage == name)


@dataclass(frozen=True)
class Corpus:
    """A finished corpus, not yet published."""

    build: Build
    tokenizer: TokenizerRecord
    ledger: StageManifest
    profile: Any
    """pyarrow table of tasks.profile.PROFILE_SCHEMA."""
    examples: Examples


def pinned_corpus(settings: CorpusSettings, store: Store) -> CorpusSettings:
    """The settings with the digest of every file that they name; BadInput if one is missing or unusable."""
    index = pinned_benchmarks(settings.decontaminate.index)
    return settings.model_copy(
        update={
            "select": resolve_lists(store, settings.select),
            "signals": pinned_signals(settings.signals, store),
            "decontaminate": settings.decontaminate.model_copy(update={"index": index}),
            "redact": pinned_names(settings.redact),
        }
    )


def measure(runner: StageRunner, settings: CorpusSettings, step: Step = directly) -> Build:
    """Read, select, extract and measure: all that needs the source. Settings are pinned."""
    build = Build()
    pages = build.add(step("fetch", fetch, runner, settings.source, settings.collections))
    read = {pages.stage: pages.digest}
    chosen = build.add(step("select", runner.run, SELECT, select_shard, pages.kept_paths, settings.select, read))
    parents = read | {chosen.stage: chosen.digest}
    take = ExtractSelected(pages.folder)
    text = step("extract", runner.run, EXTRACT, take, chosen.kept_paths, settings.extract, parents)
    build.add(text)
    build.signals, trained = train_models(runner, text, settings, step)
    build.add(step("signals", runner.apply, SIGNALS, signals, text, build.signals), *trained)
    return build


def remeasured(runner: StageRunner, settings: CorpusSettings, dataset: DatasetManifest, step: Step = directly) -> Build:
    """What `measure` made for a published dataset, without its source: pages and extracted texts may be gone.

    BadInput if the settings would measure otherwise; RunFailed if the measured documents are gone.
    """
    build = Build()
    manifests = [StageManifest.load(runner.store, manifest_path(dataset, name)) for name in MEASURED]
    for manifest in manifests[:-1]:
        build.add(manifest)
    build.signals, trained = train_models(runner, manifests[-2], settings, step)
    chosen = {"select": settings.select, "extract": settings.extract, "signals": build.signals}
    for manifest in manifests[1:]:
        if manifest.settings != chosen[manifest.stage].identity():
            raise BadInput(
                f"corpus.{manifest.stage} differs from that of {dataset.name}/{dataset.version}",
                "a dataset that is made from the signals of another takes select, extract and signals from it",
                "Change filter and later settings alone, or leave out dataset.rebuild",
            )
    if finished_stage(runner.store, f"{manifests[-1].folder}/manifest.json") is None:
        retained = find_retained(runner.store, manifests[-1].folder)
        raise RunFailed(
            f"documents of {manifests[-1].folder} are gone{f', {retained.text}' if retained else ''}",
            "a dataset is made anew from the documents of its signals stage",
            "Leave out dataset.rebuild to read the source again",
        )
    build.add(manifests[-1], *trained)
    return build


def manifest_path(dataset: DatasetManifest, stage: str) -> str:
    """Where the manifest of one of a dataset's stages lies; BadInput if the dataset had no such stage."""
    if stage not in dataset.stages:
        raise BadInput(
            f"dataset {dataset.name}/{dataset.version} has no stage {stage}",
            "the dataset must have been made by this version",
            "Build it anew",
        )
    return f"{stage_folder(stage, dataset.stages[stage])}/manifest.json"


def train_models(
    runner: StageRunner, text: StageManifest, settings: CorpusSettings, step: Step
) -> tuple[SignalSettings, list[StageManifest]]:
    """Train the models that the settings ask for, and add them to those that measure."""
    measures, stages = settings.signals, []
    classifiers, language_models = list(measures.models.models), list(measures.perplexity.models)
    for training in settings.train.classifiers:
        manifest, model = step("train classifier", train_quality_model, runner, text, training)
        classifiers.append(model)
        stages.append(manifest)
    for training in settings.train.language_models:
        manifest, model = step("train language model", train_ngram_model, runner, training)
        language_models.append(model)
        stages.append(manifest)
    update = {
        "models": measures.models.model_copy(update={"models": tuple(classifiers)}),
        "perplexity": measures.perplexity.model_copy(update={"models": tuple(language_models)}),
    }
    return measures.model_copy(update=update), stages


def refine(
    runner: StageRunner,
    build: Build,
    settings: CorpusSettings,
    exclude: tuple[str, str] | None = None,
    step: Step = directly,
) -> Corpus:
    """From measured documents to token shards: all that needs no source. `exclude` is the dataset being made."""
    measured = build.stage("signals")
    good = build.add(step("filter", filter_documents, runner, measured, settings.filter, build.signals))
    deduped = step("dedup", dedup, runner, good, settings.dedup, exclude)
    unique, build.dedup = build.add(deduped.unique, *deduped.helpers), deduped.report
    if settings.repeats.units:
        *helpers, trimmed = step("repeats", repeats, runner, unique, settings.repeats)
        unique = build.add(trimmed, *helpers)
    if settings.decontaminate.index.given:
        index, clean = step("decontaminate", decontaminate, runner, unique, settings.decontaminate)
        unique = build.add(clean, index)
    unique = build.add(step("redact", runner.apply, REDACT, redact, unique, settings.redact))
    if settings.mix.weights or settings.mix.shares or settings.mix.default_weight != 1:
        weights = settings.mix
        if weights.shares:
            weights = resolve_mix(weights, step("measure mixture", measure_groups, runner.store, unique))
        unique = build.add(step("mix", runner.apply, MIX, mix, unique, weights))
    learned, tokenizer = step("train tokenizer", train_tokenizer, runner, unique, settings.tokenizer, settings.heldout)
    tokens = step("tokenize", tokenization, runner, unique, tokenizer, settings.heldout)
    build.add(tokens, learned)
    written = step("ledger", ledger, runner, build.passed, measured, build.signals)
    profiled = step("profile", profile, runner, written, settings.report.profile)
    inputs = ExampleInputs(
        examples=settings.report.examples, filter=FilterInputs(filter=settings.filter, signals=build.signals)
    )
    shown = step("examples", examples, runner, build.passed, measured, inputs)
    return Corpus(build, tokenizer, written, profiled, shown)
