r"""Shingles: the word n-grams of texts as hashes, computed on Arrow buffers without a Python string for any of them.

The words of a text are what `re.findall(r"\w+", text.lower())` finds. A *shingle* is n neighbouring words joined by
single spaces, in UTF-8; a text of fewer words is one shingle, a text without words has none. Each shingle has two
hashes: xxh32, which MinHash permutes, and xxh64, which stands for the shingle where sets are compared.

Lower case and word characters come from a table over all code points, made from Python's own. Two rules of
`str.lower` look beyond one character: the final sigma (texts with a capital sigma are lowered by Python first) and
the dotted capital I, whose dot ends a word.
"""

import re
from functools import lru_cache
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numba import njit

from tasks.duplicates.xxhash_kernels import xxh32, xxh64
from tasks.utf8 import code_point, write_code_point

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers
_CODE_POINTS = 0x110000
_ENDS_WORD = np.uint32(1 << 31)
_SPACE = np.uint8(0x20)
_BLOCK = 256
_WORD_CHARACTER = re.compile(r"\w")


@lru_cache(maxsize=1)
def word_characters() -> np.ndarray:
    """For each code point its lower case if that is a word character, otherwise 0: uint32, 4 MB.

    The highest bit marks a character whose lower case goes on with something that ends the word.
    """
    table = np.zeros(_CODE_POINTS, np.uint32)
    for begin in range(0, _CODE_POINTS, _BLOCK):
        block = "".join(map(chr, range(begin, begin + _BLOCK)))
        if block.lower() != block:
            table[begin : begin + _BLOCK] = list(map(_word_character, block))
        elif block.isalnum():
            table[begin : begin + _BLOCK] = range(begin, begin + _BLOCK)
        else:  # none of them, most often: there are many more code points than characters
            for match in _WORD_CHARACTER.finditer(block):
                table[begin + match.start()] = begin + match.start()
    return table


def _word_character(character: str) -> int:
    lowered = character.lower()
    if not (lowered[0].isalnum() or lowered[0] == "_"):
        return 0
    return ord(lowered[0]) | (int(_ENDS_WORD) if len(lowered) > 1 else 0)


def text_buffers(texts: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 bytes of all texts (uint8) and where each begins and the last ends (int64); a null is an empty text."""
    if pc.any(pc.match_substring(texts, "Σ")).as_py():
        rows = cast("list[str | None]", texts.to_pylist())
        texts = pa.chunked_array([pa.array([row.lower() if row and "Σ" in row else row for row in rows], texts.type)])
    array: Any = pa.concat_arrays(texts.chunks) if texts.num_chunks else pa.array([], pa.large_string())
    array = pc.fill_null(array, "").cast(pa.large_string())
    _, offsets, data = array.buffers()
    starts = np.zeros(1, np.int64) if offsets is None else np.frombuffer(offsets, np.int64)
    starts = starts[array.offset : array.offset + len(array) + 1]
    return np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8), starts


@njit(cache=True, nogil=True)
def find_words(data: Any, start: int, stop: int, table: Any, out: Any, begins: Any, ends: Any) -> int:
    """Write the words of one text into `out`, a space between them, and where each begins and ends. Returns words."""
    words, at, inside = 0, 0, False
    position = start
    while position < stop:
        code, size = code_point(data, position, stop)
        position += size
        lowered = table[code]
        if lowered == 0:
            if inside:
                ends[words - 1] = at
            inside = False
            continue
        if not inside:
            if words:
                out[at] = _SPACE
                at += 1
            begins[words] = at
            words += 1
        at = write_code_point(out, at, lowered & ~_ENDS_WORD)
        inside = lowered < _ENDS_WORD
        if not inside:
            ends[words - 1] = at
    if inside:
        ends[words - 1] = at
    return words


@njit(cache=True, nogil=True)
def hash_shingles(out: Any, begins: Any, ends: Any, words: int, ngram: int, narrow: Any, wide: Any) -> int:
    """Fill xxh32 and xxh64 of each shingle of one text, in the order of the text. Returns the number of shingles."""
    if words == 0:
        return 0
    count = max(words - ngram + 1, 1)
    for index in range(count):
        last = min(index + ngram, words) - 1
        narrow[index] = xxh32(out, begins[index], ends[last])
        wide[index] = xxh64(out, begins[index], ends[last])
    return count


@njit(cache=True, nogil=True)
def distinct(values: Any, count: int, most: int) -> Any:
    """Move the distinct values of a sorted array to its front, `most` at most. Returns how many moved, how many are."""
    moved, different, previous = 0, 0, np.uint64(0)
    for index in range(count):
        value = values[index]
        if index == 0 or value != previous:
            different += 1
            if moved < most:
                values[moved] = value
                moved += 1
        previous = value
    return moved, different
