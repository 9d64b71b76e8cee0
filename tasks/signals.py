"""Signals: everything that is measured of a document, one column each, before anything is decided.

This stage reads every text once: language, the families of quality rules, word lists, classifiers, perplexity. It
drops nothing. Its kept documents carry the text as C4's line rules leave it, and the table beside them (`signals`) has
a row for each, in the same order. The filter stage judges by that table alone, so other thresholds cost a pass over
numbers; the decision ledger hands it on.
"""

from typing import Any

import pyarrow as pa

from infra.settings import Settings
from infra.store import Store
from tasks.models.perplexity import PerplexitySettings, perplexity, perplexity_schema, resolve_perplexity_models
from tasks.models.quality_model import QualityModelSettings, resolve_models, score, score_schema
from tasks.phrases.word_lists import WordListSettings, measure_word_lists, pinned_lists, word_list_schema
from tasks.quality.families import QUALITY_SIGNALS, QualitySignalSettings, measure
from tasks.quality.language import LANGUAGE_SIGNALS, LanguageSignalSettings, label, pinned_model
from tasks.quality.language import LIBRARIES as LANGUAGE_LIBRARIES
from tasks.stage import Split, Stage, replace_columns, texts


class SignalSettings(Settings):
    """What is measured of every document."""

    language: LanguageSignalSettings = LanguageSignalSettings()
    """How languages are recognised."""
    quality: QualitySignalSettings = QualitySignalSettings()
    """How words, lines and sentences are counted, and which lines C4's rules remove."""
    word_lists: WordListSettings = WordListSettings()
    """Lists of words whose share is measured, such as toxic or adult ones."""
    models: QualityModelSettings = QualityModelSettings()
    """Classifiers that score the documents."""
    perplexity: PerplexitySettings = PerplexitySettings()
    """Small language models by which documents' perplexity is measured."""


def pinned_signals(settings: SignalSettings, store: Store) -> SignalSettings:
    """The settings with the digest of every file that they name; BadInput if one is missing or unusable."""
    return settings.model_copy(
        update={
            "language": pinned_model(settings.language),
            "word_lists": pinned_lists(settings.word_lists),
            "models": resolve_models(settings.models, store),
            "perplexity": resolve_perplexity_models(settings.perplexity, store),
        }
    )


def signals_schema(settings: SignalSettings) -> pa.Schema:
    """The document's id and a column for each signal."""
    parts = [
        LANGUAGE_SIGNALS,
        QUALITY_SIGNALS,
        word_list_schema(settings.word_lists),
        score_schema(settings.models),
        perplexity_schema(settings.perplexity),
    ]
    return pa.schema([pa.field("id", pa.string(), nullable=False), *(field for part in parts for field in part)])


SIGNALS = Stage(
    "signals",
    1,
    others={"signals": signals_schema},
    libraries=("pyarrow", "numpy", "spacy", *LANGUAGE_LIBRARIES),
)


def signals(table: pa.Table, settings: SignalSettings) -> Split:
    """Measure every document; the split's `signals` has a row for each, in order. Drops nothing."""
    original = texts(table)
    language = label(original, settings.language)
    codes: list[Any] = language["language"].to_pylist()
    edited, quality = measure(original, codes, settings.quality)
    parts = [
        language,
        quality,
        measure_word_lists(
            pa.chunked_array([pa.array(edited, pa.large_string())]), language["language"], settings.word_lists
        ),
        score(edited, codes, settings.models),
        perplexity(edited, codes, settings.perplexity),
    ]
    columns = {name: part[name] for part in parts for name in part.column_names}
    schema = signals_schema(settings)
    measured = pa.table([table["id"], *(columns[name] for name in schema.names[1:])], schema=schema)
    kept = replace_columns(
        table, {"text": edited, "language": codes, "language_score": language["language_score"].to_pylist()}
    )
    return Split(kept, others={"signals": measured})
