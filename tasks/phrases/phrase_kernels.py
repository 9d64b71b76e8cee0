"""Compiled loops over UTF-8: words of texts, hashes of phrases, and the places where known phrases stand.

Words, phrases and their order are those of `tasks.phrases.finder`.
"""

import unicodedata
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from tasks.utf8 import code_point, write_code_point

APART, WORD, SINGLE, NOTHING = 0, 1, 2, 3
TABLE_SIZE = 0x20000  # beyond lie ideographs of the supplementary planes, which are words of their own
CLASS_SHIFT = 24
SINGLES = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x9FFF),  # CJK radicals, kana, ideographs
    (0xF900, 0xFAFF),  # compatibility ideographs
    (0xFF66, 0xFF9F),  # halfwidth kana
    (0x1B000, 0x1B16F),  # historic kana
)
EMOJI = (0x1F300, 0x1FAFF)
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@lru_cache(maxsize=1)
def character_table() -> np.ndarray:
    """uint32 (TABLE_SIZE,): for each code point its class in the top byte and its lower case in the others."""
    table = np.zeros(TABLE_SIZE, np.uint32)
    for point in range(TABLE_SIZE):
        lower = chr(point).lower()
        table[point] = (_character_class(point) << CLASS_SHIFT) | (ord(lower) if len(lower) == 1 else point)
    return table


def _character_class(point: Any) -> int:
    category = unicodedata.category(chr(point))
    if category == "Cf":  # joiners, soft hyphens, direction marks
        return NOTHING
    if EMOJI[0] <= point <= EMOJI[1] and category == "So":
        return SINGLE
    if category[0] not in "LMN" or 0x2B0 <= point <= 0x2FF:  # the latter are apostrophes and the like
        return APART
    return SINGLE if any(first <= point <= last for first, last in SINGLES) else WORD


@njit(cache=True)
def _next_word(
    data: np.ndarray, position: Any, stop: Any, table: np.ndarray, out: np.ndarray, size: Any
) -> tuple[Any, Any, Any, Any, Any]:
    """Write the next word of a text and a space: (first byte, byte after, next position, new size, hash).

    The first byte is -1 where no word is left.
    """
    hashed = np.uint64(0)
    first, after = -1, -1
    while position < stop:
        point, length = code_point(data, position, stop)
        entry = np.int64(table[point]) if point < TABLE_SIZE else (SINGLE << CLASS_SHIFT) | point
        kind = entry >> CLASS_SHIFT
        if kind in (WORD, SINGLE):
            if kind == SINGLE and first >= 0:
                break
            if first < 0:
                first = position
            lower = entry & 0xFFFFFF
            size = write_code_point(out, size, lower)
            hashed = (hashed ^ np.uint64(lower)) * MULTIPLIER
            hashed ^= hashed >> np.uint64(29)
            after = position + length
            position = after
            if kind == SINGLE:
                break
        elif kind == APART and first >= 0:
            break
        else:
            position += length
    if first >= 0:
        out[size] = 32
        size += 1
    hashed = (hashed + np.uint64(1)) * MULTIPLIER
    return first, after, position, size, hashed ^ (hashed >> np.uint64(32))


@njit(cache=True)
def split_words(
    data: np.ndarray, offsets: np.ndarray, table: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Words written out one after another: (data, starts, ends, hashes, offsets by text)."""
    texts = len(offsets) - 1
    total = offsets[texts] - offsets[0]
    out = np.empty(3 * total + 8, np.uint8)
    starts, ends = np.empty(total + 1, np.int64), np.empty(total + 1, np.int64)
    hashes = np.empty(total + 1, np.uint64)
    bounds = np.zeros(texts + 1, np.int64)
    size, count = 0, 0
    for text in range(texts):
        position, stop = offsets[text], offsets[text + 1]
        while True:
            begin = size
            first, _, position, size, hashed = _next_word(data, position, stop, table, out, size)
            if first < 0:
                break
            starts[count], ends[count], hashes[count] = begin, size - 1, hashed
            count += 1
        bounds[text + 1] = count
    return out[:size].copy(), starts[:count].copy(), ends[:count].copy(), hashes[:count].copy(), bounds


@njit(cache=True)
def hash_phrases(hashes: np.ndarray, firsts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """uint64: hashes of phrases, given their first words and their numbers of words."""
    found = np.empty(len(firsts), np.uint64)
    for index in range(len(firsts)):
        rolled = np.uint64(0)
        for word in range(firsts[index], firsts[index] + counts[index]):
            rolled = rolled * MULTIPLIER + hashes[word]
        found[index] = _mixed(rolled)
    return found


@njit(cache=True)
def _mixed(rolled: np.uint64) -> np.uint64:
    """A rolled hash with its high bits depending on all of its words."""
    rolled = (rolled ^ (rolled >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return rolled ^ (rolled >> np.uint64(29))


@njit(cache=True)
def make_filter(hashes: np.ndarray, shift: Any, bits: Any) -> np.ndarray:
    """uint8 (2 ** bits / 8,): bit `hash >> shift` is set for each hash."""
    found = np.zeros((1 << bits) >> 3, np.uint8)
    for hashed in hashes:
        bit = hashed >> np.uint64(shift)
        found[bit >> np.uint64(3)] |= np.uint8(1 << (bit & np.uint64(7)))
    return found


@njit(cache=True)
def find_phrases(
    data: np.ndarray, offsets: np.ndarray, table: np.ndarray, wanted: Any, most: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Hits as int64 (5, hits) and words read as int64 (texts,); `wanted` is the `Phrases` of `tasks.phrases.finder`."""
    hashes, starts, ends, lengths = wanted.hashes, wanted.starts, wanted.ends, wanted.lengths
    texts = len(offsets) - 1
    hits, count = np.empty((5, 64), np.int64), 0
    words = np.zeros(texts, np.int64)
    ring = lengths[-1] + 1 if len(lengths) else 1
    recent = np.zeros(ring, np.uint64)  # hashes of the last words, and where they begin: written out, and in the text
    written, placed = np.zeros(ring, np.int64), np.zeros(ring, np.int64)
    powers = np.ones(len(lengths), np.uint64)
    for index in range(len(lengths)):
        for _ in range(lengths[index]):
            powers[index] *= MULTIPLIER
    rolled = np.zeros(len(lengths), np.uint64)
    longest = 0
    for text in range(texts):
        longest = max(longest, offsets[text + 1] - offsets[text])
    out = np.empty(3 * longest + 8, np.uint8)
    for text in range(texts):
        position, stop = offsets[text], offsets[text + 1]
        size, word, before = 0, 0, count
        rolled[:] = 0
        while count - before < most:
            begin = size
            first, after, position, size, hashed = _next_word(data, position, stop, table, out, size)
            if first < 0:
                break
            here = word % ring
            recent[here], written[here], placed[here] = hashed, begin, first
            word += 1
            for index in range(len(lengths)):
                length = lengths[index]
                value = rolled[index] * MULTIPLIER + hashed
                if word > length:
                    value -= recent[(word - 1 - length) % ring] * powers[index]
                rolled[index] = value
                if word < length:
                    continue
                key = _mixed(value)
                bit = key >> np.uint64(wanted.shift)
                if not wanted.filter[bit >> np.uint64(3)] & np.uint8(1 << (bit & np.uint64(7))):
                    continue
                row = np.searchsorted(hashes, key)
                oldest = (word - length) % ring
                while row < len(hashes) and hashes[row] == key:
                    if _equal(wanted.data, starts[row], ends[row], out, written[oldest], size - 1):
                        if count == hits.shape[1]:
                            hits = _doubled(hits)
                        hits[0, count], hits[1, count], hits[2, count] = text, row, word - length
                        hits[3, count], hits[4, count] = placed[oldest] - offsets[text], after - offsets[text]
                        count += 1
                    row += 1
        words[text] = word
    return hits[:, :count].copy(), words


@njit(cache=True)
def _equal(one: np.ndarray, start: Any, end: Any, other: np.ndarray, first: Any, stop: Any) -> bool:
    if end - start != stop - first:
        return False
    for index in range(end - start):  # noqa: SIM110 - `all` of a generator does not compile
        if one[start + index] != other[first + index]:
            return False
    return True


@njit(cache=True)
def _doubled(hits: np.ndarray) -> np.ndarray:
    wider = np.empty((hits.shape[0], 2 * hits.shape[1]), np.int64)
    wider[:, : hits.shape[1]] = hits
    return wider
