"""N-gram language models in bulk: a hash table of n-grams that is mapped into memory, and the scores of many texts.

A model is in back-off form, as ARPA files are: each n-gram has the logarithm (base 10) of its last word's probability
and the weight by which shorter contexts count where it is the context. Ours is an Arrow file that holds the hash table
itself, so that all workers of a machine share one copy; ARPA text is read too. Sentences are lines, as for kenlm.

Own models also know letters: an unknown word costs its spelling, byte by byte, so that the whole is a probability of
the text and bits per byte mean something.
"""

import gzip
import json
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
from numba import njit

from tasks.models.fasttext_file import is_space, token_hashes
from tasks.models.preparation import Prepared

KIND = b"gristmill n-gram model 1"
TABLE_SCHEMA = pa.schema(
    [
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("log_probability", pa.float32(), nullable=False),
        pa.field("backoff", pa.float32(), nullable=False),
    ]
)
"""A slot of the hash table: key 0 is free. Both numbers are logarithms to base 10."""
MAX_ORDER = 6
NO_UNKNOWN = -100.0  # what kenlm charges for an unknown word where the model has no <unk>
BYTES_AND_END = 257


class NgramModel(NamedTuple):
    """The slots of the table, the order, and the bits that each byte, and the end, of an unknown word costs."""

    keys: np.ndarray
    log_probabilities: np.ndarray
    backoffs: np.ndarray
    order: int
    letters: np.ndarray | None


class TextScores(NamedTuple):
    """For each text: log10 probability, words and line ends, unknown words, bits to spell these, bytes."""

    log_probability: np.ndarray
    words: np.ndarray
    unknown: np.ndarray
    spelling_bits: np.ndarray
    size: np.ndarray


def score_texts(model: NgramModel, prepared: Prepared) -> TextScores:
    """What a model says of each text; arrays (texts,)."""
    letters = np.zeros(BYTES_AND_END) if model.letters is None else model.letters
    special = word_hashes([b"<s>", b"</s>", b"<unk>"])
    columns = walk(prepared.data, prepared.offsets, *model[:4], letters, special)
    return TextScores(columns[0], columns[1], columns[2], columns[3], np.diff(prepared.offsets))


def build(keys: np.ndarray, log_probabilities: np.ndarray, backoffs: np.ndarray) -> tuple[np.ndarray, ...]:
    """The slots of a table, at most two thirds full, from entries in any fixed order; the first of equal keys stays."""
    size = 1 << max(4, int(1.5 * len(keys)).bit_length())
    table = np.zeros(size, np.uint64), np.zeros(size, np.float32), np.zeros(size, np.float32)
    enter(keys, log_probabilities.astype(np.float32), backoffs.astype(np.float32), *table)
    for each in table:
        each.setflags(write=False)
    return table


def write_model(model: NgramModel) -> bytes:
    """The model as an Arrow file."""
    letters = None if model.letters is None else model.letters.tolist()
    metadata = {b"kind": KIND, b"order": str(model.order).encode(), b"letters": json.dumps(letters).encode()}
    table = pa.table(list(model[:3]), schema=TABLE_SCHEMA.with_metadata(metadata))
    sink = pa.BufferOutputStream()
    with ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return cast("bytes", sink.getvalue().to_pybytes())


def read_model(path: Path) -> NgramModel:
    """A model of ours, mapped into memory, or an ARPA file (.arpa, .arpa.gz). ValueError if it is neither."""
    with open(path, "rb") as file:
        head = file.read(8)
    if head.startswith(b"ARROW1"):
        return _read_arrow(path)
    if head.startswith(b"mmap lm"):
        raise ValueError("it is a binary file of kenlm; give the ARPA file that it was made from")
    return read_arpa(gzip.decompress(path.read_bytes()) if head[:2] == b"\x1f\x8b" else path.read_bytes())


def _read_arrow(path: Path) -> NgramModel:
    try:
        table = ipc.open_file(pa.memory_map(str(path))).read_all()
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    if metadata.get(b"kind") != KIND or not table.schema.equals(TABLE_SCHEMA) or table.num_rows & (table.num_rows - 1):
        raise ValueError("it is an Arrow file of something else")
    columns = [column.combine_chunks().to_numpy() for column in table.columns]
    letters = json.loads(metadata[b"letters"])
    return NgramModel(
        columns[0], columns[1], columns[2], int(metadata[b"order"]), None if letters is None else np.array(letters)
    )


def read_arpa(data: bytes) -> NgramModel:
    """A model from the text of an ARPA file. ValueError where it is not one."""
    keys: list[np.ndarray] = []
    numbers: list[np.ndarray] = []
    order = 0
    lines = data.split(b"\n")
    index = next((n for n, line in enumerate(lines) if line.strip() == b"\\data\\"), None)
    if index is None:
        raise ValueError("it is no ARPA file: there is no \\data\\")
    while index < len(lines) and lines[index].strip() != b"\\end\\":
        if not (lines[index].startswith(b"\\") and lines[index].strip().endswith(b"-grams:")):
            index += 1
            continue
        order += 1
        start = index + 1
        index = next(n for n in range(start, len(lines) + 1) if n == len(lines) or lines[n].startswith(b"\\"))
        rows = [line.split() for line in lines[start:index] if line.strip()]
        if order > MAX_ORDER or any(len(row) not in (order + 1, order + 2) for row in rows):
            raise ValueError(f"it has {order}-grams that are not {order} words with one or two numbers")
        words = word_hashes([word for row in rows for word in row[1 : order + 1]]).reshape(len(rows), order)
        keys.append(combine(words))
        numbers.append(
            np.array([(float(row[0]), float(row[order + 1]) if len(row) > order + 1 else 0.0) for row in rows])
        )
    if index == len(lines) or order == 0:
        raise ValueError("the ARPA file ends before its \\end\\")
    values = np.concatenate([each.reshape(-1, 2) for each in numbers])
    slots = build(np.concatenate(keys), values[:, 0], values[:, 1])
    return NgramModel(slots[0], slots[1], slots[2], order, None)


def word_hashes(words: list[bytes]) -> np.ndarray:
    """uint64 (words,): the hash under which the scorer knows each word; words hold no white space."""
    offsets = np.cumsum([0, *(len(word) for word in words)])
    return hash_words(np.frombuffer(b"".join(words), np.uint8), offsets)


@njit(cache=True)
def hash_words(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Hash of each piece of a buffer."""
    hashes = np.empty(len(offsets) - 1, np.uint64)
    for index in range(len(hashes)):
        hashes[index] = token_hashes(data, offsets[index], offsets[index + 1])[1]
    return hashes


@njit(cache=True)
def extend(key: np.uint64, word: np.uint64) -> np.uint64:
    """Key of an n-gram from the key of its words but the last (0: there are none) and the last word's hash."""
    mixed = (key ^ word) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return (mixed ^ (mixed >> np.uint64(29))) | np.uint64(1)


@njit(cache=True)
def combine(words: np.ndarray) -> np.ndarray:
    """Keys (n,) of n-grams given as word hashes (n, order)."""
    keys = np.zeros(len(words), np.uint64)
    for index in range(len(words)):
        for place in range(words.shape[1]):
            keys[index] = extend(keys[index], words[index, place])
    return keys


@njit(cache=True)
def extend_all(keys: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Keys of n-grams from those of their words but the last, and the last words' hashes."""
    longer = np.empty(len(keys), np.uint64)
    for index in range(len(keys)):
        longer[index] = extend(keys[index], words[index])
    return longer


@njit(cache=True)
def enter(
    keys: np.ndarray,
    log_probabilities: np.ndarray,
    backoffs: np.ndarray,
    table: np.ndarray,
    table_log_probabilities: np.ndarray,
    table_backoffs: np.ndarray,
) -> None:
    """Write entries into the slots of a table."""
    for index in range(len(keys)):
        slot = find_slot(keys[index], table)
        if table[slot] == 0:
            table[slot] = keys[index]
            table_log_probabilities[slot] = log_probabilities[index]
            table_backoffs[slot] = backoffs[index]


@njit(cache=True)
def find_slot(key: np.uint64, table: np.ndarray) -> np.int64:
    """The slot that holds a key, or the free slot where it would go."""
    mask = np.uint64(len(table) - 1)
    slot = (key >> np.uint64(7)) & mask
    while table[slot] != 0 and table[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return np.int64(slot)


@njit(cache=True)
def predict(
    recent: np.ndarray,
    known: int,
    word: np.uint64,
    before: np.ndarray,
    after: np.ndarray,
    keys: np.ndarray,
    log_probabilities: np.ndarray,
    backoffs: np.ndarray,
    order: int,
) -> Any:
    """log10 P(word | the `known` words before it), NaN if the word is unknown.

    `before[n]` is the slot of the n words before, or -1; `after` receives the same for the next word.
    """
    best = 0
    value = 0.0
    for length in range(1, min(order, known + 1) + 1):
        key = np.uint64(0)
        for place in range(known - length + 1, known):
            key = extend(key, recent[place % order])
        key = extend(key, word)
        slot = find_slot(key, keys)
        after[length] = slot if keys[slot] == key else -1
        if after[length] >= 0:
            best = length
            value = log_probabilities[slot]
    for length in range(known + 2, order + 1):
        after[length] = -1
    if after[1] < 0:
        return np.nan
    for length in range(best, min(order - 1, known) + 1):
        if before[length] >= 0:
            value += backoffs[before[length]]
    return value


@njit(cache=True)
def walk(
    data: np.ndarray,
    offsets: np.ndarray,
    keys: np.ndarray,
    log_probabilities: np.ndarray,
    backoffs: np.ndarray,
    order: int,
    letters: np.ndarray,
    special: np.ndarray,
) -> np.ndarray:
    """float64 (4, texts): log10 probability, words and line ends, unknown words, bits of their letters."""
    found = np.zeros((4, len(offsets) - 1))
    recent = np.zeros(order, np.uint64)
    before = np.full(order + 1, -1, np.int64)
    after = np.full(order + 1, -1, np.int64)
    begin, end, unknown = special[0], special[1], special[2]
    for text in range(len(offsets) - 1):
        position = offsets[text]
        stop = offsets[text + 1]
        count = 0  # words of the line so far, <s> among them
        while position <= stop:
            if position < stop and is_space(data[position]) and data[position] != 10:
                position += 1
                continue
            line_ends = position == stop or data[position] == 10
            if line_ends and count == 0:
                position += 1
                continue
            if count == 0:
                recent[0] = begin
                before[:] = -1
                slot = find_slot(extend(np.uint64(0), begin), keys)
                before[1] = slot if keys[slot] != 0 else -1
                count = 1
            first = position
            if line_ends:
                word = end
                position += 1
            else:
                position, word, _ = token_hashes(data, position, stop)
            value = predict(recent, count, word, before, after, keys, log_probabilities, backoffs, order)
            if np.isnan(value):
                word = unknown
                value = predict(recent, count, word, before, after, keys, log_probabilities, backoffs, order)
                if np.isnan(value):
                    value = NO_UNKNOWN
                found[2, text] += 1
                found[3, text] += letters[256]
                for place in range(first, position):
                    found[3, text] += letters[data[place]]
            found[0, text] += value
            found[1, text] += 1
            before, after = after, before
            recent[count % order] = word
            count = 0 if line_ends else count + 1
    return found
