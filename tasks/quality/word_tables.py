"""What a process remembers of a language: its tokens with what they are like, and its chunks by their characters."""

import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tasks.quality.word_kernels import (
    ALPHABETIC,
    BREAK,
    ENDING,
    LETTER,
    MARK,
    OPENING,
    SPACE,
    SYMBOL,
    WORD,
    describe,
    fill_slots,
    look_up,
)
from tasks.quality.word_rules import sentence_marks, symbols

_CHARACTERS = 0x32400  # no letter and no punctuation beyond


class Column:
    """A numpy array that grows."""

    def __init__(self, dtype: Any, first: Sequence[int] = ()) -> None:
        self._data = np.zeros(1024, dtype)
        self.size = 0
        self.extend(first)

    @property
    def values(self) -> np.ndarray:
        """What was put in so far."""
        return self._data[: self.size]

    def room(self, count: int) -> np.ndarray:
        """The whole array, with room for so many more values."""
        if self.size + count > len(self._data):
            grown = np.empty(self.size + max(self.size, 2 * count), self._data.dtype)  # pages not used cost nothing
            grown[: self.size] = self.values
            self._data = grown
        return self._data

    def extend(self, values: Any) -> None:
        """Append values."""
        self.room(len(values))[self.size : self.size + len(values)] = values
        self.size += len(values)


class StringTable:
    """Ids of strings by their characters, given in the order in which they come; id 0 is the empty string's."""

    def __init__(self) -> None:
        self.size = 1
        self._slots = np.zeros(1 << 16, np.int64)
        self._bounds, self._pool = Column(np.int64, [0, 0]), Column(np.uint32)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For the kernels: see `look_up`."""
        return self._slots, self._bounds.values, self._pool.values

    def look_up(self, codes: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids of codes[begins[i] : ends[i]], int32, and of each new one its index among them, int64."""
        known, done = self.size, 0
        bounds, pool = self._bounds.room(len(begins)), self._pool.room(int((ends - begins).sum()))
        ids, fresh = np.empty(len(begins), np.int32), np.empty(known + len(begins), np.int64)
        while True:
            table = self._slots, bounds, pool
            self.size, done = look_up(codes, begins, ends, *table, self.size, ids, fresh, done)
            if done == len(begins):
                break
            filled, self._slots = self._slots, np.zeros(2 * len(self._slots), np.int64)
            fill_slots(self._slots, filled)
        self._bounds.size, self._pool.size = self.size + 1, int(bounds[self.size])
        return ids, fresh[known : self.size].copy()

    def strings(self) -> list[str]:
        """All strings, by id."""
        bounds = 4 * self._bounds.values
        data = self._pool.values.tobytes()
        pairs = zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
        return [data[begin:end].decode("utf-32-le", "surrogatepass") for begin, end in pairs]


class TokenTable:
    """What each token is like, by its id; id 0 is white space, which is no word."""

    def __init__(self, links: Mapping[str, int]) -> None:
        self._strings = StringTable()
        self._length, self._flags, self._links = Column(np.int32), Column(np.uint8), Column(np.uint8)
        self._hashes, self._powers = Column(np.uint64), Column(np.uint64)
        self._describe()
        known = self.learn(list(links))
        self.links[known] = list(links.values())

    @property
    def ids(self) -> dict[str, int]:
        """Ids by token, in their order; made anew each time, so not for work on many texts."""
        return {token: index for index, token in enumerate(self._strings.strings())}

    def learn(self, tokens: Sequence[str]) -> np.ndarray:
        """Ids of tokens, known or new: int32."""
        ends = np.cumsum([0, *map(len, tokens)])
        return self.learn_slices(code_points("".join(tokens)), ends[:-1], ends[1:])

    def learn_slices(self, codes: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Ids of the tokens codes[begins[i] : ends[i]], known or new: int32."""
        ids, _ = self._strings.look_up(codes, begins, ends)
        if self._strings.size > self._length.size:
            self._describe()
        return ids

    def _describe(self) -> None:
        _, bounds, pool = self._strings.arrays
        bounds = bounds[self._length.size :]
        flags, hashes, powers = describe(pool, bounds, character_classes())
        self._length.extend(np.diff(bounds))
        self._links.extend(np.zeros(len(flags)))
        self._flags.extend(flags)
        self._hashes.extend(hashes)
        self._powers.extend(powers)

    @property
    def size(self) -> int:
        """How many tokens there are, the empty one too."""
        return self._strings.size

    @property
    def lengths(self) -> np.ndarray:
        """Characters of each token, int32."""
        return self._length.values

    @property
    def roles(self) -> np.ndarray:
        """What each token does to sentences, uint8: begins one after a terminal mark, ends one, or neither."""
        return self._flags.values & 3

    @property
    def links(self) -> np.ndarray:
        """Which part a token can have in special cases, uint8: HEAD, TAIL, FRAGILE."""
        return self._links.values

    @property
    def is_word(self) -> np.ndarray:
        """Whether a character of the token is not punctuation."""
        return self._flags.values & WORD != 0

    @property
    def is_alphabetic(self) -> np.ndarray:
        """Whether a character of the token is a letter."""
        return self._flags.values & ALPHABETIC != 0

    @property
    def hashes(self) -> np.ndarray:
        """Polynomial hash of each token's characters modulo 2^64, uint64: the hashes of joined tokens follow."""
        return self._hashes.values

    @property
    def powers(self) -> np.ndarray:
        """The base of the hash to the power of each token's length, modulo 2^64, uint64."""
        return self._powers.values

    @property
    def characters(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the characters of each token begin, and the end: int64, size + 1; and the characters: uint32."""
        return self._strings.arrays[1:]


def code_points(text: str) -> np.ndarray:
    """The code points of a string, uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@lru_cache(maxsize=1)
def character_classes() -> np.ndarray:
    """For each code point its classes (SPACE and its like): uint8."""
    classes = np.zeros(0x110000, np.uint8)
    for code in range(0x3001):  # no white space beyond
        if chr(code).isspace():
            classes[code] = SPACE | BREAK * (len(f"a{chr(code)}b".splitlines()) > 1)
    for code in range(_CHARACTERS):
        if chr(code).isalpha():
            classes[code] |= LETTER
        elif unicodedata.category(chr(code))[0] == "P":
            classes[code] |= MARK
    classes[[ord("-"), 0x2022]] |= OPENING
    classes[list(map(ord, symbols()))] |= SYMBOL
    classes[list(map(ord, sentence_marks()))] |= ENDING
    return classes
