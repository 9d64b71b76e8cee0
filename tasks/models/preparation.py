"""How a text is prepared for a model, in bulk on Arrow buffers: the model must see what it was trained on.

plain   as it is; models that split at white space see newlines as spaces (DCLM, datatrove, NeMo Curator)
lower   the same in lower case
words   lower case, digits as 0, punctuation apart, one word for each character of a script that sets no spaces
        (Chinese, Japanese, Thai, Khmer, ...); lines stay lines. What the models trained here see.
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit

from tasks.utf8 import code_point, write_code_point

Preparation = Literal["plain", "lower", "words"]

SPACE, NEWLINE, WORD, SINGLE, NOTHING = 0, 1, 2, 3, 4
TABLE_SIZE = 0x20000  # beyond lie ideographs of the supplementary plane, which are words of their own
CLASS_SHIFT = 24
NO_SPACES = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x9FFF),  # CJK radicals, kana, ideographs
    (0xF900, 0xFAFF),  # compatibility ideographs
    (0xFF66, 0xFF9F),  # halfwidth kana
    (0x1B000, 0x1B16F),  # historic kana
)


class Prepared(NamedTuple):
    """Texts as UTF-8 in one buffer: text i is data[offsets[i]:offsets[i + 1]]."""

    data: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def text(self, index: int) -> str:
        """One text as a Python string."""
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes().decode()


def prepare(texts: Sequence[str], how: Preparation, max_characters: int | None = None) -> Prepared:
    """Texts as a model wants them, each cut after max_characters first."""
    if max_characters is not None:
        texts = [text if len(text) <= max_characters else text[:max_characters] for text in texts]
    if how == "lower":
        texts = [text.lower() for text in texts]
    given = utf8(texts)
    return Prepared(*split_words(*given, character_table())) if how == "words" else given


def utf8(texts: Sequence[str]) -> Prepared:
    """Texts in one buffer, unchanged but for lone surrogates, which UTF-8 cannot say and which become `?`."""
    try:
        array = pa.array(texts, pa.large_string())
    except UnicodeEncodeError:
        array = pa.array([text.encode(errors="replace").decode() for text in texts], pa.large_string())
    _, offsets, data = array.buffers()
    return Prepared(
        np.frombuffer(data or b"", np.uint8),
        np.frombuffer(offsets, np.int64)[: len(array) + 1] if len(array) else np.zeros(1, np.int64),
    )


@lru_cache(maxsize=1)
def character_table() -> np.ndarray:
    """uint32 (TABLE_SIZE,): for each code point its class in the top byte and its lower case in the others."""
    table = np.zeros(TABLE_SIZE, np.uint32)
    for point in range(TABLE_SIZE):
        character = chr(point)
        kind = _character_class(point, unicodedata.category(character))
        lower = character.lower()
        written = ord(lower) if len(lower) == 1 else point
        if kind == WORD and unicodedata.category(character) == "Nd":
            written = ord("0")
        table[point] = (kind << CLASS_SHIFT) | written
    return table


def _character_class(point: int, category: str) -> int:
    if category == "Cf":  # joiners, soft hyphens, direction marks
        return NOTHING
    if point in (0x0A, 0x0D, 0x2028, 0x2029):
        return NEWLINE
    if category[0] == "Z" or category == "Cc":
        return SPACE
    if category == "Nd":
        return WORD
    if category[0] in "LM":
        return SINGLE if any(first <= point <= last for first, last in NO_SPACES) else WORD
    return SINGLE


@njit(cache=True)
def split_words(data: np.ndarray, offsets: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The `words` preparation of valid UTF-8: (data, offsets). Words are parted by one space, lines by one newline."""
    out = np.empty(2 * len(data) + 1, np.uint8)
    ends = np.empty(len(offsets), np.int64)
    size = 0
    ends[0] = 0
    for text in range(len(offsets) - 1):
        start = size
        gap = 0  # what has to be written before the next word: nothing, a space, or a newline
        inside = False
        position = offsets[text]
        stop = offsets[text + 1]
        while position < stop:
            point, length = code_point(data, position, stop)
            entry = table[point] if point < TABLE_SIZE else np.uint32(SINGLE << CLASS_SHIFT)
            kind = entry >> CLASS_SHIFT
            if kind in (WORD, SINGLE):
                if size > start and gap == NEWLINE + 1:
                    out[size] = 10
                    size += 1
                elif size > start and (gap or kind == SINGLE or not inside):
                    out[size] = 32
                    size += 1
                if point < TABLE_SIZE:
                    size = write_code_point(out, size, np.int64(entry & 0xFFFFFF))
                else:
                    for index in range(position, position + length):
                        out[size] = data[index]
                        size += 1
                gap = 0
                inside = kind == WORD
            elif kind != NOTHING:
                gap = max(gap, np.int64(kind) + 1)
            position += length
        ends[text + 1] = size
    return out[:size].copy(), ends
