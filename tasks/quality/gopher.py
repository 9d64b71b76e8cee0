"""Gopher's quality rules (Rae et al. 2021, section A1.1): whether it is prose, by words, symbols and lines.

As datatrove measures: a word that consists of `word_rules.symbols` alone is a symbol; number and mean length are
of the other words, while shares of words are of all, symbols too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit
from pydantic import Field

from infra.settings import Settings
from tasks.quality.word_kernels import BULLET_LINE, ELLIPSIS_LINE
from tasks.quality.word_rules import UNSPACED, stop_words
from tasks.quality.words import Words
from tasks.rules import Rule

SOURCE = "Rae et al. 2021, section A1.1; datatrove: gopher_{}"
SIGNALS = (
    pa.field("nonsymbol_words", pa.int64()),
    pa.field("mean_word_length", pa.float64()),
    pa.field("hash_ratio", pa.float64()),
    pa.field("ellipsis_ratio", pa.float64()),
    pa.field("bullet_lines", pa.float64()),
    pa.field("ellipsis_lines", pa.float64()),
    pa.field("alphabetic_words", pa.float64()),
    pa.field("stop_words", pa.int64()),
)
"""Null: shares of a text without words or lines, the word length of a script without spaces, and the stop words of a
language that has no list."""
ENGLISH_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


class GopherQualitySettings(Settings):
    """Thresholds of the Gopher quality rules; an unset threshold switches its rule off."""

    min_words: int | None = Field(default=50, ge=0)
    """Fewer words that are no symbols: too_few_words."""
    max_words: int | None = Field(default=100_000, ge=1)
    """More of them: too_many_words."""
    min_mean_word_length: float | None = Field(default=3.0, ge=0)
    """Shorter on average: words_too_short."""
    max_mean_word_length: float | None = Field(default=10.0, ge=0)
    """Longer on average: words_too_long."""
    max_hash_ratio: float | None = Field(default=0.1, ge=0)
    """More hash signs for each word: too_many_hashes."""
    max_ellipsis_ratio: float | None = Field(default=0.1, ge=0)
    """More ellipses for each word: too_many_ellipses."""
    max_bullet_lines: float | None = Field(default=0.9, ge=0, le=1)
    """A larger share of lines that open with a bullet or a hyphen: too_many_bullet_lines."""
    max_ellipsis_lines: float | None = Field(default=0.3, ge=0, le=1)
    """A larger share of lines that end in an ellipsis: too_many_ellipsis_lines."""
    min_alphabetic_words: float | None = Field(default=0.8, ge=0, le=1)
    """A smaller share of words with a letter: too_few_alphabetic_words."""
    min_stop_words: int | None = Field(default=2, ge=0)
    """Fewer different stop words of the language: too_few_stop_words."""


def _rule(reason: str, signal: str, setting: str, peer: str) -> Rule:
    bound = "min" if setting.startswith("min_") else "max"
    return Rule(reason, signal, bound, f"gopher_quality.{setting}", SOURCE.format(peer))


RULES = (
    _rule("too_few_words", "nonsymbol_words", "min_words", "short_doc"),
    _rule("too_many_words", "nonsymbol_words", "max_words", "long_doc"),
    _rule("words_too_short", "mean_word_length", "min_mean_word_length", "below_avg_threshold"),
    _rule("words_too_long", "mean_word_length", "max_mean_word_length", "above_avg_threshold"),
    _rule("too_many_hashes", "hash_ratio", "max_hash_ratio", "too_many_hashes"),
    _rule("too_many_ellipses", "ellipsis_ratio", "max_ellipsis_ratio", "too_many_ellipsis"),
    _rule("too_many_bullet_lines", "bullet_lines", "max_bullet_lines", "too_many_bullets"),
    _rule("too_many_ellipsis_lines", "ellipsis_lines", "max_ellipsis_lines", "too_many_end_ellipsis"),
    _rule("too_few_alphabetic_words", "alphabetic_words", "min_alphabetic_words", "below_alpha_threshold"),
    _rule("too_few_stop_words", "stop_words", "min_stop_words", "enough_stop_words"),
)


def measure(
    texts: Sequence[str], words: Words, language: str | None, lists: Mapping[str, Sequence[str]]
) -> dict[str, np.ndarray]:
    """SIGNALS of texts of one language by name, float64, NaN for null.

    `words` are those of the same texts; `lists` are stop words by language, used before spaCy's.
    """
    table = words.table
    own = lists.get(language or "")
    listed = stop_words(language or "") if own is None else frozenset(own)
    known = table.learn(sorted(listed))
    stops = np.full(table.size, -1, np.int32)
    stops[known] = np.arange(len(known))
    counts = count_words(words.tokens, words.text_tokens, table.lengths, table.is_word, table.is_alphabetic, stops)
    nonsymbol, characters, alphabetic, stopping = counts.T
    total = positive(np.diff(words.text_tokens))
    lines = positive(np.diff(words.text_lines))
    dots = np.array([text.count("...") + text.count("\u2026") for text in texts], np.float64)
    mean = np.full(len(texts), np.nan) if language in UNSPACED else characters / positive(nonsymbol)
    return {
        "nonsymbol_words": nonsymbol,
        "mean_word_length": mean,
        "hash_ratio": np.array([text.count("#") for text in texts], np.float64) / total,
        "ellipsis_ratio": dots / total,
        "bullet_lines": words.by_text(words.line_flags & BULLET_LINE != 0) / lines,
        "ellipsis_lines": words.by_text(words.line_flags & ELLIPSIS_LINE != 0) / lines,
        "alphabetic_words": alphabetic / total,
        "stop_words": stopping if listed else np.full(len(texts), np.nan),
    }


def positive(values: np.ndarray) -> np.ndarray:
    """Denominators: zeros become NaN."""
    return np.where(values > 0, values, np.nan)


@njit(cache=True, nogil=True)
def count_words(tokens: Any, starts: Any, lengths: Any, is_word: Any, is_alphabetic: Any, stops: Any) -> Any:
    """Of each text: words that are no symbols, their characters, words with a letter, different stop words."""
    counts = np.zeros((len(starts) - 1, 4), np.float64)
    seen = np.full(len(stops) + 1, -1, np.int64)
    for text in range(len(starts) - 1):
        for token in tokens[starts[text] : starts[text + 1]]:
            if is_word[token]:
                counts[text, 0] += 1
                counts[text, 1] += lengths[token]
            counts[text, 2] += is_alphabetic[token]
            stop = stops[token]
            if stop >= 0 and seen[stop] != text:
                seen[stop] = text
                counts[text, 3] += 1
    return counts
