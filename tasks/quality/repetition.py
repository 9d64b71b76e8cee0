"""Gopher's repetition rules (Rae et al. 2021, table A1): paragraphs, lines and word n-grams that repeat in a text.

Counted as datatrove counts: characters are code points, shares are of the whole text's characters, and an element is a
duplicate from its second occurrence on. The most frequent n-gram of two to four words counts with the spaces between
its words, the one that comes first if several are as frequent; duplicated n-grams of five to ten words count without
spaces and do not overlap. Two n-grams are the same if their words joined are, wherever the words end.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit
from pydantic import Field

from infra.settings import Settings
from tasks.quality.words import Words
from tasks.rules import Rule

SOURCE = "Rae et al. 2021, table A1; datatrove: {}"
TOP, DUPLICATED = (2, 3, 4), (5, 6, 7, 8, 9, 10)
SIGNALS = (
    pa.field("duplicate_paragraphs", pa.float64()),
    pa.field("duplicate_paragraph_characters", pa.float64()),
    pa.field("duplicate_lines", pa.float64()),
    pa.field("duplicate_line_characters", pa.float64()),
    *(pa.field(f"top_{n}_gram", pa.float64()) for n in TOP),
    *(pa.field(f"duplicate_{n}_grams", pa.float64()) for n in DUPLICATED),
)
"""Shares of the text's paragraphs, lines or characters; null where there is no text, or no n-gram."""


class RepetitionSettings(Settings):
    """Thresholds of the Gopher repetition rules; an unset threshold switches its rule off."""

    min_characters: int | None = Field(default=1, ge=0)
    """Fewer characters: empty_text."""
    max_duplicate_paragraphs: float | None = Field(default=0.30, ge=0)
    """A larger share of paragraphs that stood before: duplicate_paragraphs."""
    max_duplicate_paragraph_characters: float | None = Field(default=0.20, ge=0)
    """A larger share of characters in such paragraphs: duplicate_paragraph_characters."""
    max_duplicate_lines: float | None = Field(default=0.30, ge=0)
    """A larger share of lines that stood before: duplicate_lines."""
    max_duplicate_line_characters: float | None = Field(default=0.20, ge=0)
    """A larger share of characters in such lines: duplicate_line_characters."""
    max_top_2_gram: float | None = Field(default=0.20, ge=0)
    """A larger share of characters in the most frequent two words: top_2_gram."""
    max_top_3_gram: float | None = Field(default=0.18, ge=0)
    """The same of three words: top_3_gram."""
    max_top_4_gram: float | None = Field(default=0.16, ge=0)
    """The same of four words: top_4_gram."""
    max_duplicate_5_grams: float | None = Field(default=0.15, ge=0)
    """A larger share of characters in five words that stood before: duplicate_5_grams."""
    max_duplicate_6_grams: float | None = Field(default=0.14, ge=0)
    """The same of six words: duplicate_6_grams."""
    max_duplicate_7_grams: float | None = Field(default=0.13, ge=0)
    """The same of seven words: duplicate_7_grams."""
    max_duplicate_8_grams: float | None = Field(default=0.12, ge=0)
    """The same of eight words: duplicate_8_grams."""
    max_duplicate_9_grams: float | None = Field(default=0.11, ge=0)
    """The same of nine words: duplicate_9_grams."""
    max_duplicate_10_grams: float | None = Field(default=0.10, ge=0)
    """The same of ten words: duplicate_10_grams."""


def _rule(reason: str, signal: str, setting: str, peer: str) -> Rule:
    bound = "min" if setting.startswith("min_") else "max"
    return Rule(reason, signal, bound, f"gopher_repetition.{setting}", SOURCE.format(peer))


RULES = (
    _rule("empty_text", "characters", "min_characters", "empty"),
    _rule("duplicate_paragraphs", "duplicate_paragraphs", "max_duplicate_paragraphs", "dup_para_frac"),
    _rule(
        "duplicate_paragraph_characters",
        "duplicate_paragraph_characters",
        "max_duplicate_paragraph_characters",
        "dup_para_char_frac",
    ),
    _rule("duplicate_lines", "duplicate_lines", "max_duplicate_lines", "dup_line_frac"),
    _rule(
        "duplicate_line_characters", "duplicate_line_characters", "max_duplicate_line_characters", "dup_line_char_frac"
    ),
    *(_rule(f"top_{n}_gram", f"top_{n}_gram", f"max_top_{n}_gram", f"top_{n}_gram") for n in TOP),
    *(
        _rule(f"duplicate_{n}_grams", f"duplicate_{n}_grams", f"max_duplicate_{n}_grams", f"duplicated_{n}_n_grams")
        for n in DUPLICATED
    ),
)


def measure(texts: Sequence[str], words: Words) -> dict[str, np.ndarray]:
    """SIGNALS of texts by name, float64, NaN for null; `words` are those of the same texts."""
    characters = np.array([len(text) or np.nan for text in texts])
    paragraphs = np.array([duplicates(paragraphs_of(text)) for text in texts]).reshape(-1, 2)
    lines = np.array([duplicates(lines_of(text)) for text in texts]).reshape(-1, 2)
    table = words.table
    top = top_ngrams(words.tokens, words.text_tokens, table.lengths)
    repeated = repeated_ngrams(
        words.tokens, words.text_tokens, table.lengths, table.hashes, table.powers, *table.characters
    )
    return {
        "duplicate_paragraphs": np.where(np.isnan(characters), np.nan, paragraphs[:, 0]),
        "duplicate_paragraph_characters": paragraphs[:, 1] / characters,
        "duplicate_lines": np.where(np.isnan(characters), np.nan, lines[:, 0]),
        "duplicate_line_characters": lines[:, 1] / characters,
        **{f"top_{n}_gram": np.where(top[:, k] < 0, np.nan, top[:, k]) / characters for k, n in enumerate(TOP)},
        **{f"duplicate_{n}_grams": repeated[:, k] / characters for k, n in enumerate(DUPLICATED)},
    }


def paragraphs_of(text: str) -> list[str]:
    """What stands between two or more newlines, white space around the text removed; faster than an expression."""
    parts = [part.lstrip("\n") for part in text.strip().split("\n\n")]
    return [part for part in parts if part] or [""]


def lines_of(text: str) -> list[str]:
    """What stands between newlines; a text that begins or ends with them has an empty line there."""
    lines = [line for line in text.split("\n") if line]
    return [""] * text.startswith("\n") + lines + [""] * text.endswith("\n") if lines or text else [""]


def duplicates(items: list[str]) -> tuple[float, int]:
    """Which share of items stood before, and the number of characters in those."""
    unique = set(items)
    if len(unique) == len(items):
        return 0.0, 0
    return (len(items) - len(unique)) / len(items), sum(map(len, items)) - sum(map(len, unique))


@njit(cache=True, nogil=True)
def top_ngrams(tokens: Any, starts: Any, lengths: Any) -> Any:
    """Characters times occurrences of each text's most frequent 2-, 3- and 4-gram, -1 if it has none: (texts, 3)."""
    texts = len(starts) - 1
    found = np.full((texts, 3), -1, np.int64)
    size = _table_size(starts)
    slots, stamps, counts = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.int64)
    stamp = 0
    for text in range(texts):
        start, stop = starts[text], starts[text + 1]
        mask = _mask(stop - start)
        for n in range(2, 5):
            stamp += 1
            best, first = 0, 0
            for at in range(start, stop - n + 1):
                hashed = np.uint64(n)
                for token in tokens[at : at + n]:
                    hashed = (hashed ^ np.uint64(token)) * np.uint64(0x9E3779B97F4A7C15)
                    hashed ^= hashed >> np.uint64(32)
                slot = np.int64(hashed & np.uint64(mask))
                while stamps[slot] == stamp and not _same(tokens, slots[slot], at, n):
                    slot = (slot + 1) & mask
                if stamps[slot] != stamp:
                    stamps[slot], slots[slot], counts[slot] = stamp, at, 0
                counts[slot] += 1
                if counts[slot] > best or (counts[slot] == best and slots[slot] < first):
                    best, first = counts[slot], slots[slot]
            if best:
                characters = n - 1
                for token in tokens[first : first + n]:
                    characters += lengths[token]
                found[text, n - 2] = characters * best
    return found


@njit(cache=True, nogil=True)
def repeated_ngrams(tokens: Any, starts: Any, lengths: Any, hashes: Any, powers: Any, bounds: Any, pool: Any) -> Any:
    """Characters in duplicated n-grams of 5 to 10 tokens, found from left to right without overlap: (texts, 6).

    By token id, `lengths`, `hashes`, `powers`, and the characters pool[bounds[id] : bounds[id + 1]].
    """
    texts = len(starts) - 1
    found = np.zeros((texts, 6), np.int64)
    size = _table_size(starts)
    slots, joined, sizes = np.zeros(size, np.int64), np.zeros(size, np.uint64), np.zeros(size, np.int64)
    stamp = 0
    for text in range(texts):
        start, count = starts[text], starts[text + 1] - starts[text]
        mask = _mask(count)
        for at in range(count):
            joined[at], sizes[at] = hashes[tokens[start + at]], lengths[tokens[start + at]]
        for n in range(2, 11):
            for at in range(count - n + 1):  # grow every (n-1)-gram by a token
                token = tokens[start + at + n - 1]
                joined[at] = joined[at] * powers[token] + hashes[token]
                sizes[at] += lengths[token]
            stamp += 1
            at = 0 if n >= 5 else count
            while at <= count - n:
                slot = np.int64((joined[at] ^ (joined[at] >> np.uint64(31))) & np.uint64(mask))
                while slots[slot] >> 32 == stamp:  # the slot holds the place of an n-gram that stood before
                    before = slots[slot] & 0xFFFFFFFF
                    if joined[before] == joined[at] and sizes[before] == sizes[at]:
                        if _same(tokens, start + before, start + at, n):
                            break
                        if _same_joined(tokens, start + before, start + at, sizes[at], bounds, pool):
                            break
                    slot = (slot + 1) & mask
                if slots[slot] >> 32 == stamp:
                    found[text, n - 5] += sizes[at]
                    at += n
                else:
                    slots[slot] = stamp << 32 | at
                    at += 1
    return found


@njit(cache=True, nogil=True)
def _same_joined(tokens: Any, one: Any, other: Any, size: int, bounds: Any, pool: Any) -> bool:
    """Whether the tokens from two places on have the same characters, so many, wherever the tokens end."""
    first, second = bounds[tokens[one]], bounds[tokens[other]]
    for _ in range(size):
        while first == bounds[tokens[one] + 1]:
            one += 1
            first = bounds[tokens[one]]
        while second == bounds[tokens[other] + 1]:
            other += 1
            second = bounds[tokens[other]]
        if pool[first] != pool[second]:
            return False
        first, second = first + 1, second + 1
    return True


@njit(cache=True, nogil=True)
def _same(tokens: Any, one: Any, other: Any, n: int) -> bool:
    offset = 0
    while offset < n and tokens[one + offset] == tokens[other + offset]:
        offset += 1
    return offset == n


@njit(cache=True, nogil=True)
def _mask(count: int) -> int:
    size = 16
    while size < 2 * count:
        size *= 2
    return size - 1


@njit(cache=True, nogil=True)
def _table_size(starts: Any) -> int:
    longest = 0
    for text in range(len(starts) - 1):
        longest = max(longest, starts[text + 1] - starts[text])
    return _mask(longest) + 1
