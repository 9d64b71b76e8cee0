r"""Shingles: the word n-grams of texts as hashes, computed on Arrow buffers without a Python string for any of them.

The words of a text are what `re.findall(r"\w+", text.lower())` finds. A *shingle* is n neighbouring words joined by
single spaces, in UTF-8; a text of fewer words is one shingle, a text without words has none. Each shingle has two
hashes: xxh32, which MinHash permutes, and xxh64, which stands for the shingle where sets are compared.

Lower case and word characters come from a table over all code points, made from Python's own. Two rules of
`str.lower` look beyond one character: the final sigma (texts with a capital sigma are lowered by Python first) and
the dotted capital I, whose dot ends a word.
"""

from functools import lru_cache
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numba import njit

from tasks.duplicates.xxhash_kernels import xxh32, xxh64
from tasks.utf8 import write_code_point

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers
_CODE_POINTS = 0x110000
_ENDS_WORD = np.uint32(1 << 31)
_SPACE = np.uint8(0x20)


@lru_cache(maxsize=1)
def word_characters() -> np.ndarray:
    """For each code point its lower case if that is a word character, otherwise 0: uint32, 4 MB.

    The highest bit marks a character whose lower case goes on with something that ends the word.
    """
    table = np.zeros(_CODE_POINTS, np.uint32)
    for code in range(_CODE_POINTS):
        lowered = chr(code).lower()
        if lowered[0].isalnum() or lowered[0] == "_":
            table[code] = np.uint32(ord(lowered[0])) | (_ENDS_WORD if len(lowered) > 1 else np.uint32(0))
    return table


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
def decode(data: Any, at: int) -> Any:
    """The code point that begins at a byte of valid UTF-8, and how many bytes it takes."""
    lead = np.uint32(data[at])
    if lead < 0x80:
        return lead, 1
    if lead < 0xE0:
        return (lead & np.uint32(0x1F)) << np.uint32(6) | (data[at + 1] & np.uint32(0x3F)), 2
    middle = (np.uint32(data[at + 1]) & np.uint32(0x3F)) << np.uint32(6) | (data[at + 2] & np.uint32(0x3F))
    if lead < 0xF0:
        return (lead & np.uint32(0x0F)) << np.uint32(12) | middle, 3
    return (lead & np.uint32(0x07)) << np.uint32(18) | middle << np.uint32(6) | (data[at + 3] & np.uint32(0x3F)), 4


@njit(cache=True, nogil=True)
def find_words(data: Any, start: int, stop: int, table: Any, out: Any, begins: Any, ends: Any) -> int:
    """Write the words of one text into `out`, a space between them, and where each begins and ends. Returns words."""
    words, at, inside = 0, 0, False
    position = start
    while position < stop:
        code, size = decode(data, position)
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
