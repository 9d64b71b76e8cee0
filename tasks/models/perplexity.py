"""Perplexity under small n-gram models as a signal: how surprising a text is to a model of well-written text.

    perplexity                  per word, line ends counted as words
    perplexity_bits_per_byte    of the text as prepared; models of ours only
    perplexity_unknown_words    share of words that the model does not know

Models of ours charge for the spelling of unknown words. ARPA models count each as <unk>, which is kenlm's number, and
which makes text of unknown words only (garbled, or of another language) look natural: <unk> follows <unk> easily.

Low is like the reference. Wenzek et al. 2020 (CCNet) keep it as a signal and cut each language at its 30th and 60th
percentile into head, middle and tail: see tasks.models.buckets.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from infra.errors import BadInput
from infra.settings import Settings
from infra.store import Store
from tasks.inputs import UserFile
from tasks.models.ngram_model import NgramModel, TextScores, read_model, score_texts
from tasks.models.preparation import Preparation, prepare
from tasks.models.quality_model import check_languages, known_rows

SUFFIXES = ("", "_bits_per_byte", "_unknown_words")
MAX_BITS = 100.0  # a word: keeps perplexity finite in float32


class PerplexityModel(UserFile):
    """An n-gram model and the languages that it knows."""

    name: str = Field(default="perplexity", pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the signal. Models of different languages may share one."""
    languages: tuple[str, ...] | None = None
    """Languages that the model knows; documents of others are not measured. Unset measures every document."""
    preparation: Preparation = "words"
    """What the model was trained on: words as models trained here see them, plain text or lower case."""
    max_characters: int | None = Field(default=100_000, ge=1)
    """Longer documents are measured by their beginning; unset reads them whole."""


class PerplexitySettings(Settings):
    """Which n-gram models measure the documents."""

    models: tuple[PerplexityModel, ...] = ()
    """The models, one for each language or set of languages; none by default."""

    @model_validator(mode="after")
    def _one_model_for_a_language(self) -> "PerplexitySettings":
        check_languages([(model.name, model.languages) for model in self.models])
        return self


def resolve_perplexity_models(settings: PerplexitySettings, store: Store) -> PerplexitySettings:
    """The settings with absolute paths and digests. BadInput for a file that is missing or no model."""
    resolved = tuple(model.resolved(store) for model in settings.models)
    for model in resolved:
        load(model)
    return settings.model_copy(update={"models": resolved})


def perplexity_schema(settings: PerplexitySettings) -> pa.Schema:
    """Three float columns for each name of a model."""
    names = dict.fromkeys(model.name for model in settings.models)
    return pa.schema([pa.field(f"{name}{suffix}", pa.float32()) for name in names for suffix in SUFFIXES])


def perplexity(texts: Sequence[str], languages: Sequence[str | None], settings: PerplexitySettings) -> pa.Table:
    """The signals of documents: null where no model of that name knows the language, or the text has no word."""
    schema = perplexity_schema(settings)
    columns = {name: np.full(len(texts), np.nan) for name in schema.names}
    for model in settings.models:
        chosen = known_rows(languages, model.languages)
        loaded = load(model)
        prepared = prepare([texts[row] for row in chosen], model.preparation, model.max_characters)
        measured = per_text(score_texts(loaded, prepared), loaded.letters is not None)
        for suffix, values in zip(SUFFIXES, measured, strict=True):
            columns[f"{model.name}{suffix}"][chosen] = values
    return pa.table([pa.array(values, pa.float32(), from_pandas=True) for values in columns.values()], schema=schema)


def per_text(scores: TextScores, spelled: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Perplexity, bits per byte and share of unknown words of each text; NaN where it has no word."""
    words = np.where(scores.words > 0, scores.words, np.nan)
    bits = -scores.log_probability / np.log10(2.0)
    sizes = np.where(scores.words > 0, scores.size + 1.0, np.nan)  # the last line ends too
    if spelled:
        bits = bits + scores.spelling_bits
    per_byte = bits / sizes if spelled else np.full(len(words), np.nan)
    return np.exp2(np.minimum(bits / words, MAX_BITS)), per_byte, scores.unknown / words


def load(model: PerplexityModel) -> NgramModel:
    """The model, opened once in each process. BadInput if it cannot be read."""
    return _load(model.path, model.sha256)


@lru_cache(maxsize=64)
def _load(path: str, sha256: str | None) -> NgramModel:
    with UserFile(path=path, sha256=sha256).local() as local:
        try:
            return read_model(local)
        except (ValueError, OSError, EOFError) as error:
            raise BadInput(
                f"model {path} ({error})",
                "perplexity needs an n-gram model trained here, or an ARPA file",
                "Correct the path",
            ) from error
