"""Quality: the Gopher rules (Rae et al. 2021, "Scaling Language Models", table A1), as data.

A *signal* is a number that a text has; a *rule* compares a signal with a setting and owns a reason code. The first
rule that fails drops the document, and its row says the signal's value. Words are what stands between white space;
a word made of punctuation alone is a symbol, not counted where a rule speaks of words' number and length.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import pyarrow as pa
from pydantic import Field

from infra.settings import Settings
from tasks.stage import Split, Stage, split_by_reason, texts

QUALITY = Stage("quality", 1)
GOPHER = "Rae et al. 2021, table A1"
_BULLETS = ("\u2022", "-", "\u2023", "\u25e6", "\u25aa", "*")
_ELLIPSES = ("...", "\u2026")
_ELLIPSIS = re.compile(r"\.\.\.|\u2026")


class QualitySettings(Settings):
    """Thresholds of the Gopher quality rules; an unset threshold switches its rule off."""

    min_words: int | None = Field(default=50, ge=0)
    """Fewer words: too_few_words."""
    max_words: int | None = Field(default=100_000, ge=1)
    """More words: too_many_words."""
    min_mean_word_length: float | None = Field(default=3.0, ge=0)
    """Shorter words on average: words_too_short."""
    max_mean_word_length: float | None = Field(default=10.0, ge=0)
    """Longer words on average: words_too_long."""
    max_hash_ratio: float | None = Field(default=0.1, ge=0)
    """More hash signs for each word: too_many_hashes."""
    max_ellipsis_ratio: float | None = Field(default=0.1, ge=0)
    """More ellipses for each word: too_many_ellipses."""
    max_bullet_lines: float | None = Field(default=0.9, ge=0, le=1)
    """A larger share of lines that open with a bullet: too_many_bullet_lines."""
    max_ellipsis_lines: float | None = Field(default=0.3, ge=0, le=1)
    """A larger share of lines that end in an ellipsis: too_many_ellipsis_lines."""
    min_alphabetic_words: float | None = Field(default=0.8, ge=0, le=1)
    """A smaller share of words with a letter: too_few_alphabetic_words."""
    min_stop_words: int | None = Field(default=2, ge=0)
    """Fewer different stop words: too_few_stop_words."""
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")
    """Stop words that the last rule looks for, as written."""


@dataclass(frozen=True)
class Signals:
    """What the rules measure of one text."""

    words: int
    mean_word_length: float
    hash_ratio: float
    ellipsis_ratio: float
    bullet_lines: float
    ellipsis_lines: float
    alphabetic_words: float
    stop_words: int


@dataclass(frozen=True)
class Rule:
    """A threshold setting, the signal that it bounds, from which side, and the reason code of failing it."""

    setting: str
    signal: str
    bound: Literal["min", "max"]
    reason: str
    source: str = GOPHER

    def fails(self, value: float, threshold: float) -> bool:
        """Whether a signal's value lies beyond the threshold."""
        return value < threshold if self.bound == "min" else value > threshold


RULES = (
    Rule("min_words", "words", "min", "too_few_words"),
    Rule("max_words", "words", "max", "too_many_words"),
    Rule("min_mean_word_length", "mean_word_length", "min", "words_too_short"),
    Rule("max_mean_word_length", "mean_word_length", "max", "words_too_long"),
    Rule("max_hash_ratio", "hash_ratio", "max", "too_many_hashes"),
    Rule("max_ellipsis_ratio", "ellipsis_ratio", "max", "too_many_ellipses"),
    Rule("max_bullet_lines", "bullet_lines", "max", "too_many_bullet_lines"),
    Rule("max_ellipsis_lines", "ellipsis_lines", "max", "too_many_ellipsis_lines"),
    Rule("min_alphabetic_words", "alphabetic_words", "min", "too_few_alphabetic_words"),
    Rule("min_stop_words", "stop_words", "min", "too_few_stop_words"),
)


def quality(table: pa.Table, settings: QualitySettings) -> Split:
    """Keep documents that pass every rule; the others carry the first rule's reason and the value that failed it."""
    judged = [judge(text, settings) for text in texts(table)]
    kept, dropped = split_by_reason(
        table, QUALITY.name, [reason for reason, _ in judged], [value for _, value in judged]
    )
    return Split(kept, dropped)


def judge(text: str, settings: QualitySettings) -> tuple[str | None, float | None]:
    """Reason and value of the first rule that a text fails, or two Nones."""
    signals = measure(text, frozenset(settings.stop_words))
    for rule in RULES:
        threshold, value = getattr(settings, rule.setting), getattr(signals, rule.signal)
        if threshold is not None and rule.fails(value, threshold):
            return rule.reason, value
    return None, None


def measure(text: str, stop_words: frozenset[str]) -> Signals:
    """All signals of one text. Ratios are 0 for an empty text, except that it has no alphabetic words either."""
    tokens = text.split()
    words = [token for token in tokens if not is_symbol(token)]
    lines = [stripped for line in text.splitlines() if (stripped := line.strip())]
    return Signals(
        words=len(words),
        mean_word_length=_ratio(sum(map(len, words)), len(words)),
        hash_ratio=_ratio(text.count("#"), len(tokens)),
        ellipsis_ratio=_ratio(len(_ELLIPSIS.findall(text)), len(tokens)),
        bullet_lines=_ratio(_count(lines, lambda line: line.startswith(_BULLETS)), len(lines)),
        ellipsis_lines=_ratio(_count(lines, lambda line: line.endswith(_ELLIPSES)), len(lines)),
        alphabetic_words=_ratio(_count(tokens, lambda token: any(map(str.isalpha, token))), len(tokens)),
        stop_words=len(stop_words.intersection(tokens)),
    )


@lru_cache(maxsize=1 << 16)
def is_symbol(token: str) -> bool:
    """Whether a token holds punctuation and symbols only (Unicode categories P and S)."""
    return all(unicodedata.category(character)[0] in "PS" for character in token)


def _count(items: list[str], condition: Callable[[str], bool]) -> int:
    return sum(map(condition, items))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
