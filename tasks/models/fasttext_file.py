"""fastText's file format, read into a linear model that scores in bulk, and written by our own training.

A supervised fastText model averages the vectors of a text's words and word n-grams and multiplies the average by an
output matrix. Without subwords that is linear: the product of both matrices, taken once when the file is read, leaves
one number for each n-gram and label. A model of 100 dimensions becomes 50 times smaller and its score is the same.
Models with subwords, quantised matrices or hierarchical softmax cannot be read so (`read_linear` returns None).

Source: Joulin et al. 2016; layout and hashes as fastText 0.9.2 writes them.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from tasks.models.preparation import Prepared

MAGIC, FORMAT_VERSION = 793712314, 12
SUPERVISED, SOFTMAX = 3, 3
HEADER = struct.Struct("<2i12id")  # magic, version, the arguments
DICTIONARY = struct.Struct("<3i2q")  # entries, words, labels, tokens, pruned n-grams
SHAPE = struct.Struct("<?2q")  # quantised, rows, columns
END_OF_SENTENCE = b"</s>"
LABEL_PREFIX = b"__label__"
MAX_LABELS = 64
ENTRY_BYTES = 10  # NUL, count and kind, behind the word
ROWS_AT_ONCE = 1 << 18
LOG_GUARD = 1e-5  # fastText adds it to a probability before the logarithm, so published thresholds contain it


class LinearModel(NamedTuple):
    """Weights (words + buckets, labels) of words and hashed n-grams, and how to find a word's row."""

    labels: tuple[str, ...]
    weights: np.ndarray
    table_keys: np.ndarray
    """uint64: an open-addressed hash table of the words' 64-bit hashes; 0 is free."""
    table_rows: np.ndarray
    words: int
    buckets: int
    word_ngrams: int


def is_fasttext(path: Path) -> bool:
    """Whether a file begins as a fastText model does."""
    with open(path, "rb") as file:
        return file.read(4) == struct.pack("<i", MAGIC)


def read_linear(data: Any) -> LinearModel | None:
    """The linear model in a .bin file's bytes, or None where it is of another kind. ValueError if it is cut short."""
    view = memoryview(data)
    try:
        _, version, *arguments = HEADER.unpack_from(view)
        dimension, _, _, _, _, word_ngrams, loss, kind, buckets, _, subword, _, _ = arguments
        if version != FORMAT_VERSION or (kind, loss, subword) != (SUPERVISED, SOFTMAX, 0):
            return None
        position = HEADER.size
        entries, words, labels, _, pruned = DICTIONARY.unpack_from(view, position)
        if min(words, labels, buckets) < 0 or entries != words + labels or entries > len(view) // ENTRY_BYTES:
            raise ValueError("the dictionary's size cannot be")
        if pruned >= 0 or labels > MAX_LABELS:
            return None
        raw = np.frombuffer(view, np.uint8)
        hashes, starts, position = scan_dictionary(raw, position + DICTIONARY.size, entries)
        names = tuple(bytes(raw[start:end]).split(b"\0")[0].decode() for start, end in starts[words:])
        quantised, rows, columns = SHAPE.unpack_from(view, position)
        if quantised:
            return None
        if rows != words + buckets or columns != dimension or min(rows, columns) < 1:
            raise ValueError("the matrix is not of the dictionary's size")
        inputs = np.frombuffer(view, "<f4", rows * columns, position + SHAPE.size).reshape(rows, columns)
        position += SHAPE.size + inputs.nbytes
        quantised, rows, columns = SHAPE.unpack_from(view, position)
        if quantised:
            return None
        if (rows, columns) != (labels, dimension):
            raise ValueError("the output matrix is not of the labels' size")
        outputs = np.frombuffer(view, "<f4", rows * columns, position + SHAPE.size).reshape(rows, columns)
    except struct.error as error:
        raise ValueError(str(error)) from error
    keys, table = hash_table(hashes[:words])
    return LinearModel(names, _product(inputs, outputs), keys, table, words, buckets, word_ngrams if buckets else 1)


def _product(inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Inputs times outputs transposed, in parts, in sums that do not depend on the machine's BLAS."""
    product = np.empty((len(inputs), len(outputs)), np.float32)
    for start in range(0, len(inputs), ROWS_AT_ONCE):
        part = inputs[start : start + ROWS_AT_ONCE]
        product[start : start + len(part)] = np.einsum("rd,ld->rl", part, outputs, dtype=np.float64, optimize=False)
    return product


def write_linear(
    words: Sequence[bytes], counts: Sequence[int], labels: tuple[str, str], weights: np.ndarray, word_ngrams: int
) -> bytes:
    """A fastText .bin file of one dimension: P(first label) is the sigmoid of the average of the weights.

    Weights are float32, (words + buckets,): one for each word, then one for each bucket of hashed n-grams.
    """
    buckets = len(weights) - len(words)
    entries = [(word, count, 0) for word, count in zip(words, counts, strict=True)]
    entries += [(label.encode(), 1, 1) for label in labels]
    arguments = (1, 5, 1, 1, 5, word_ngrams, SOFTMAX, SUPERVISED, buckets, 0, 0, 100, 1e-4)
    parts = [
        HEADER.pack(MAGIC, FORMAT_VERSION, *arguments),
        DICTIONARY.pack(len(entries), len(words), len(labels), sum(counts), -1),
        *(word + b"\0" + struct.pack("<qb", count, kind) for word, count, kind in entries),
        SHAPE.pack(False, len(weights), 1),
        weights.astype("<f4").tobytes(),
        SHAPE.pack(False, 2, 1),
        np.array([0.5, -0.5], "<f4").tobytes(),
    ]
    return b"".join(parts)


def probabilities(model: LinearModel, prepared: Prepared, label: int) -> np.ndarray:
    """float64 (texts,): the probability of a label as fastText's predict gives it, NaN for a text without features."""
    logits = average_weights(prepared.data, prepared.offsets, *model[1:])
    powers = np.exp(logits - logits.max(axis=1, keepdims=True)) if len(logits) else logits
    return np.minimum(powers[:, label] / powers.sum(axis=1) + LOG_GUARD, 1.0)


def hash_table(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Open-addressed table (keys, rows) of distinct 64-bit hashes, at most half full."""
    size = 1 << max(4, int(2 * len(hashes)).bit_length())
    keys, rows = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    fill_table(hashes, keys, rows)
    return keys, rows


@njit(cache=True)
def fill_table(hashes: np.ndarray, keys: np.ndarray, rows: np.ndarray) -> None:
    """Enter each hash with its index; the first of equal ones stays."""
    mask = np.uint64(len(keys) - 1)
    for index in range(len(hashes)):
        place = hashes[index] & mask
        while keys[place] != 0 and keys[place] != hashes[index]:
            place = (place + np.uint64(1)) & mask
        if keys[place] == 0:
            keys[place] = hashes[index]
            rows[place] = index


@njit(cache=True)
def find_row(key: np.uint64, keys: np.ndarray, rows: np.ndarray) -> int:
    """Index under which a hash was entered, or -1."""
    mask = np.uint64(len(keys) - 1)
    place = key & mask
    while keys[place] != 0:
        if keys[place] == key:
            return rows[place]
        place = (place + np.uint64(1)) & mask
    return -1


@njit(cache=True)
def token_hashes(data: np.ndarray, start: int, stop: int) -> tuple[int, np.uint64, np.uint64]:
    """(end, 64-bit hash, fastText's hash) of the token that starts at a position: FNV-1a twice.

    fastText takes bytes as signed characters and reads its 32-bit hash as a signed number.
    """
    wide = np.uint64(14695981039346656037)
    narrow = np.uint64(2166136261)
    position = start
    while position < stop and not is_space(data[position]):
        byte = np.uint64(data[position])
        wide = (wide ^ byte) * np.uint64(1099511628211)
        signed = byte if byte < 128 else byte | np.uint64(0xFFFFFF00)
        narrow = ((narrow ^ signed) * np.uint64(16777619)) & np.uint64(0xFFFFFFFF)
        position += 1
    if narrow >= np.uint64(0x80000000):
        narrow |= np.uint64(0xFFFFFFFF00000000)
    return position, wide | np.uint64(1), narrow


@njit(cache=True)
def is_space(byte: int) -> bool:
    """What parts tokens for fastText: space, newline, return, tab, vertical tab, form feed and NUL."""
    return byte == 32 or (9 <= byte <= 13) or byte == 0


@njit(cache=True)
def scan_dictionary(data: np.ndarray, position: int, entries: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Hashes and (start, end) of a dictionary's entries, and where it ends. ValueError if the file ends before."""
    hashes = np.empty(entries, np.uint64)
    places = np.empty((entries, 2), np.int64)
    for index in range(entries):
        end = position
        wide = np.uint64(14695981039346656037)
        while end < len(data) and data[end] != 0:
            wide = (wide ^ np.uint64(data[end])) * np.uint64(1099511628211)
            end += 1
        if end + 10 > len(data):
            raise ValueError("the dictionary is cut short")
        hashes[index] = wide | np.uint64(1)
        places[index, 0], places[index, 1] = position, end
        position = end + 10  # NUL, int64 count, int8 kind
    return hashes, places, position


@njit(cache=True)
def text_features(
    data: np.ndarray,
    start: int,
    stop: int,
    table_keys: np.ndarray,
    table_rows: np.ndarray,
    words: int,
    buckets: int,
    word_ngrams: int,
    recent: np.ndarray,
    out: np.ndarray,
) -> int:
    """Write the rows of a text's words and n-grams, in order, to out; returns how many.

    A text ends with fastText's end-of-sentence word, at its end or where it spells it. Words that look like labels
    are passed over. `recent` holds word_ngrams hashes, out at least word_ngrams * (bytes // 2 + 2) rows.
    """
    size = 0
    seen = 0
    position = start
    finished = False
    while not finished:
        while position < stop and is_space(data[position]):
            position += 1
        first = position
        if position >= stop:
            finished = True
            wide, narrow = _end_of_sentence()
        else:
            position, wide, narrow = token_hashes(data, position, stop)
            finished = _spells(data, first, position, END_OF_SENTENCE) and position - first == 4
            if position - first >= 9 and _spells(data, first, position, LABEL_PREFIX):
                continue
        row = find_row(wide, table_keys, table_rows)
        if row >= 0:
            out[size] = row
            size += 1
        # n-grams that end here, from the longest: fastText hashes each from its first word
        for length in range(2, min(word_ngrams, seen + 1) + 1):
            code = np.uint64(0)
            for back in range(length - 1, 0, -1):
                code = code * np.uint64(116049371) + recent[(seen - back) % word_ngrams]
            code = code * np.uint64(116049371) + narrow
            out[size] = words + np.int64(code % np.uint64(buckets))
            size += 1
        recent[seen % word_ngrams] = narrow
        seen += 1
    return size


@njit(cache=True)
def _spells(data: np.ndarray, start: int, stop: int, word: bytes) -> bool:
    if stop - start < len(word):
        return False
    for index in range(len(word)):  # noqa: SIM110 (numba knows no all())
        if data[start + index] != word[index]:
            return False
    return True


@njit(cache=True)
def _end_of_sentence() -> tuple[np.uint64, np.uint64]:
    word = np.array([60, 47, 115, 62], np.uint8)
    _, wide, narrow = token_hashes(word, 0, 4)
    return wide, narrow


@njit(cache=True)
def average_weights(
    data: np.ndarray,
    offsets: np.ndarray,
    weights: np.ndarray,
    table_keys: np.ndarray,
    table_rows: np.ndarray,
    words: int,
    buckets: int,
    word_ngrams: int,
) -> np.ndarray:
    """float64 (texts, labels): the average weight of each text's features; NaN where it has none."""
    texts = len(offsets) - 1
    longest = 0
    for text in range(texts):
        longest = max(longest, offsets[text + 1] - offsets[text])
    rows = np.empty(max(word_ngrams, 1) * (longest // 2 + 2), np.int64)
    recent = np.empty(max(word_ngrams, 1), np.uint64)
    averages = np.zeros((texts, weights.shape[1]), np.float64)
    for text in range(texts):
        size = text_features(
            data, offsets[text], offsets[text + 1], table_keys, table_rows, words, buckets, word_ngrams, recent, rows
        )
        for label in range(weights.shape[1]):
            total = 0.0
            for index in range(size):
                total += weights[rows[index], label]
            averages[text, label] = total / size if size else np.nan
    return averages
