"""FineWeb's quality rules (Penedo et al. 2024, section 3.6): lists, lines without an end, lines that repeat.

As datatrove measures them, on the text that the C4 rules have edited, over lines that are not blank.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pydantic import Field

from infra.settings import Settings
from tasks.quality.gopher import positive
from tasks.quality.repetition import duplicates
from tasks.quality.word_rules import terminal_marks
from tasks.rules import Rule

SOURCE = "Penedo et al. 2024, section 3.6; datatrove: {}"
SIGNALS = (
    pa.field("fineweb_lines", pa.int64()),
    pa.field("fineweb_terminal_lines", pa.float64()),
    pa.field("fineweb_short_lines", pa.float64()),
    pa.field("fineweb_duplicate_characters", pa.float64()),
    pa.field("fineweb_newlines_per_word", pa.float64()),
)
"""Lines that are left, and shares of them, of characters and of words; shares of nothing are null."""


class FineWebSettings(Settings):
    """Thresholds of the FineWeb rules; an unset threshold switches its rule off."""

    min_lines: int | None = Field(default=1, ge=0)
    """Fewer lines left: no_lines."""
    min_terminal_lines: float | None = Field(default=0.12, ge=0, le=1)
    """A smaller share of lines that end in a terminal mark: too_few_terminal_lines."""
    max_short_lines: float | None = Field(default=0.67, ge=0, le=1)
    """A larger share of short lines: too_many_short_lines."""
    max_duplicate_characters: float | None = Field(default=0.01, ge=0)
    """A larger share of characters in lines that stood before: duplicate_characters."""
    max_newlines_per_word: float | None = Field(default=0.3, ge=0)
    """More newlines for each word: too_many_newlines."""


def _rule(reason: str, signal: str, setting: str, peer: str) -> Rule:
    bound = "min" if setting.startswith("min_") else "max"
    return Rule(reason, f"fineweb_{signal}", bound, f"fineweb.{setting}", SOURCE.format(peer))


RULES = (
    _rule("no_lines", "lines", "min_lines", "empty"),
    _rule("too_few_terminal_lines", "terminal_lines", "min_terminal_lines", "line_punct_ratio"),
    _rule("too_many_short_lines", "short_lines", "max_short_lines", "short_line_ratio"),
    _rule("duplicate_characters", "duplicate_characters", "max_duplicate_characters", "char_dup_ratio"),
    _rule("too_many_newlines", "newlines_per_word", "max_newlines_per_word", "list_ratio"),
)


def measure(texts: Sequence[str], words: np.ndarray, short_line_length: int) -> dict[str, np.ndarray]:
    """SIGNALS of (edited) texts by name, float64, NaN for null; `words` are their numbers of words, symbols too."""
    marks = terminal_marks()
    rows = np.array([_count(text, marks, short_line_length) for text in texts], np.float64).reshape(-1, 6)
    lines, terminal, short, repeated, characters, newlines = rows.T
    whole = positive(lines)
    return {
        "fineweb_lines": lines,
        "fineweb_terminal_lines": terminal / whole,
        "fineweb_short_lines": short / whole,
        "fineweb_duplicate_characters": repeated / positive(characters),
        "fineweb_newlines_per_word": newlines / positive(words),
    }


def _count(text: str, marks: frozenset[str], short: int) -> tuple[int, int, int, int, int, int]:
    """Lines; those with a terminal mark; short ones; characters of repeated ones; characters; newlines."""
    lines = text.split("\n")
    newlines = len(lines) - 1
    lines = [line for line in lines if line and not line.isspace()]
    return (
        len(lines),
        sum([line[-1] in marks for line in lines]),
        sum([len(line) <= short for line in lines]),
        duplicates(lines)[1],
        len(text) - newlines,
        newlines,
    )
