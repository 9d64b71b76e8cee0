"""Filter: verdicts on documents, from their signals alone.

Rules are applied in the order of FineWeb's recipe: language, Gopher repetition, Gopher quality, C4, FineWeb; then word
lists, classifiers and perplexity. The first rule that a document fails drops it. Thresholds are data (`thresholds`),
so the same function judges a batch of documents in this stage and a ledger of a finished dataset.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from infra.errors import BadInput
from infra.manifest import StageManifest
from infra.settings import Settings
from infra.store import Store
from tasks.models.buckets import BucketSettings, bucket_of, percentile_bounds
from tasks.phrases.word_lists import WordListRules, word_list_rules
from tasks.quality.families import RULES, QualitySettings, rules
from tasks.quality.language import LanguageSettings, judge_language
from tasks.rules import Rule, Verdicts, judge, signal_values
from tasks.signals import SignalSettings, signals_schema
from tasks.stage import Split, Stage, StageRunner, replace_columns, split_by_reason

FILTER = Stage("filter", 2, libraries=("pyarrow", "numpy"))
REFUSALS = ("language_uncertain", "languages_disagree", "language_unwanted")
"""Reasons of `tasks.quality.language.judge_language`."""
SURE = Rule(REFUSALS[0], "language_score", "above", "min_score", "datatrove: FineWeb, language score 0.65")
EMPTY = Rule("nothing_left", "characters", "min", "", "a document has a character at least")


class FilterSettings(Settings):
    """Which documents are kept, given their signals."""

    language: LanguageSettings = LanguageSettings()
    """Which languages are kept, and how sure their recognition must be."""
    quality: QualitySettings = QualitySettings()
    """Thresholds of the Gopher, C4 and FineWeb rules."""
    word_lists: WordListRules = WordListRules()
    """How many listed words a document may hold."""
    min_score: dict[str, float] = Field(default={})
    """By name of a classifier, the smallest score that is kept: low_<name> (DCLM's oh-eli5: 0.018112)."""
    max_perplexity: dict[str, float] = Field(default={})
    """By name of a perplexity signal, the largest value that is kept: high_<name>."""
    score: str | None = None
    """Signal that becomes the document's `quality`: what survivors of deduplication are chosen by."""
    buckets: BucketSettings = BucketSettings()
    """Names for ranges of a score, which sampling weights may refer to."""


class FilterInputs(Settings):
    """What decides the filter's bytes."""

    filter: FilterSettings
    signals: SignalSettings


@dataclass(frozen=True)
class Judgement(Verdicts):
    """Reasons, values and details by document."""

    details: list[str | None]


def thresholds(settings: FilterInputs, signals: pa.Table) -> list[tuple[Rule, Any]]:
    """The rules after language, in order, each with its threshold: a number, None, or one for each document."""
    chosen = settings.filter
    found: list[tuple[Rule, Any]] = [(EMPTY, 1)]
    found += rules(chosen.quality, signals["rules_language"].to_pylist())
    found += word_list_rules(settings.signals.word_lists, chosen.word_lists)
    known = signals_schema(settings.signals).names
    for name, limit in sorted(chosen.min_score.items()):
        require_signal(name, "filter.min_score", known)
        found.append((Rule(f"low_{name}", name, "min", "min_score", "the model's authors"), limit))
    for name, limit in sorted(chosen.max_perplexity.items()):
        require_signal(name, "filter.max_perplexity", known)
        found.append((Rule(f"high_{name}", name, "max", "max_perplexity", "the model's authors"), limit))
    return found


def comparisons(settings: FilterInputs, signals: pa.Table) -> list[tuple[Rule, Any]]:
    """Every rule that compares a signal with a threshold, in the order in which they are applied."""
    language = settings.filter.language
    codes = signals["language"].to_pylist()
    sure = np.array([language.min_score_by_language.get(code, language.min_score) for code in codes], np.float64)
    return [(SURE, sure), *thresholds(settings, signals)]


def setting_path(rule: Rule) -> str:
    """The setting that holds a rule's threshold, as `--set` takes it; empty for the one that has none."""
    if rule in RULES:
        return f"corpus.filter.quality.{rule.setting}"
    if rule == SURE:
        return f"corpus.filter.language.{rule.setting}"
    if rule.setting in ("min_score", "max_perplexity"):
        return f"corpus.filter.{rule.setting}.{rule.signal}"
    return f"corpus.filter.word_lists.{rule.setting}" if rule.setting else ""


def require_signal(name: str, setting: str, known: list[str]) -> None:
    """BadInput unless a signal is measured."""
    if name not in known:
        raise BadInput(
            f"{setting} names {name!r}",
            f"a signal must be measured to be judged; measured: {', '.join(known[1:])}",
            "Add the model or list to corpus.signals, or correct the name",
        )


def judge_documents(signals: pa.Table, settings: FilterInputs) -> Judgement:
    """Verdicts of a table of signals: language first, then the rules. The value is the signal that failed."""
    language = judge_language(signals, settings.filter.language)
    verdicts = judge(signals, thresholds(settings, signals))
    reasons, values = list(language.reasons), list(language.values)
    for row, (reason, value) in enumerate(zip(verdicts.reasons, verdicts.values, strict=True)):
        if reasons[row] is None:
            reasons[row], values[row] = reason, value
    return Judgement(reasons, values, language.details)


def filter_documents(
    runner: StageRunner, measured: StageManifest, settings: FilterSettings, signals: SignalSettings
) -> StageManifest:
    """Judge all documents of a signals stage. Percentiles of buckets are taken over all its documents first."""
    require_signals(settings, signals)
    if settings.buckets.by_percentile:
        settings = settings.model_copy(update={"buckets": bounded(runner.store, measured, settings.buckets)})
    inputs = FilterInputs(filter=settings, signals=signals)
    parents = {measured.stage: measured.digest}
    return runner.run(FILTER, filter_shard, measured.kept_paths, inputs, parents)


def require_signals(settings: FilterSettings, signals: SignalSettings) -> None:
    """BadInput unless the signals are measured that quality and buckets are taken from."""
    known = signals_schema(signals).names
    if settings.buckets.buckets or settings.buckets.languages:
        require_signal(settings.buckets.score, "filter.buckets.score", known)
    if settings.score is not None:
        require_signal(settings.score, "filter.score", known)


def bounded(store: Store, measured: StageManifest, settings: BucketSettings) -> BucketSettings:
    """Buckets with their percentiles turned into bounds, by the scores of all documents that were measured."""
    columns = ["language", settings.score]
    tables = [store.read_table(signals_path(path), columns) for path in measured.kept_paths]
    every = pa.concat_tables(tables)
    return percentile_bounds(signal_values(every, settings.score), every["language"].to_pylist(), settings)


def signals_path(kept_path: str) -> str:
    """Where the signals of a shard's documents stand, given where its documents do."""
    folder, _, name = kept_path.rpartition("/")
    return f"{folder}/signals/{name}"


def filter_shard(store: Store, source: str, settings: FilterInputs) -> Iterator[Split]:
    """The shard function: documents and their signals are in the same order."""
    signals = store.read_table(signals_path(source))
    reader, row = store.open_table(source), 0
    for index in range(reader.num_record_batches):
        table = pa.Table.from_batches([reader.get_batch(index)])
        yield filtered(table, signals.slice(row, table.num_rows), settings)
        row += table.num_rows


def filtered(table: pa.Table, signals: pa.Table, settings: FilterInputs) -> Split:
    """Kept and dropped documents of one batch; `quality` and `bucket` are filled in."""
    buckets, score = settings.filter.buckets, settings.filter.score
    columns: dict[str, Any] = {}
    if score is not None:
        columns["quality"] = signals[score].cast(pa.float32()).combine_chunks()
    if buckets.buckets or buckets.languages:
        languages = signals["language"].to_pylist()
        columns["bucket"] = bucket_of(signal_values(signals, buckets.score), languages, buckets)
    verdicts = judge_documents(signals, settings)
    labelled = replace_columns(table, columns)
    return Split(*split_by_reason(labelled, FILTER.name, verdicts.reasons, verdicts.values, verdicts.details))
