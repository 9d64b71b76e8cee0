"""What a process remembers of a language: its tokens with what they are like, and its chunks by their characters."""

import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from tasks.quality.word_kernels import (
    BREAK,
    LETTER,
    OPENING,
    OTHER,
    PUNCTUATION,
    SPACE,
    TERMINAL,
    fill_slots,
    hash_tokens,
    look_up,
)
from tasks.quality.word_rules import sentence_marks, symbols

_LETTERS_UP_TO = 0x30000  # rarer letters are left to the rules
_WORD, _ALPHABETIC = 4, 8


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
            self._data = np.concatenate([self.values, np.zeros(max(self.size, 2 * count), self._data.dtype)])
        return self._data

    def extend(self, values: Any) -> None:
        """Append values."""
        self.room(len(values))[self.size : self.size + len(values)] = values
        self.size += len(values)


class TokenTable:
    """What each token is like, by its id; id 0 is white space, which is no word."""

    def __init__(self, links: Mapping[str, int]) -> None:
        self.ids: dict[str, int] = {}
        self._length, self._flags, self._links = Column(np.int32), Column(np.uint8), Column(np.uint8)
        self._hashes, self._powers = Column(np.uint64), Column(np.uint64)
        self._symbols, self._terminals = symbols(), sentence_marks()
        self.learn([""])
        self.learn(list(links))
        self.links[1:] = list(links.values())

    def learn(self, tokens: list[str], letters: bool = False) -> np.ndarray:
        """Ids of tokens, known or new: int32. `letters` says that they hold letters alone."""
        ids, known = self.ids, len(self.ids)
        found = np.array([ids.setdefault(token, len(ids)) for token in tokens], np.int32)
        if len(ids) > known:
            self._describe(list(islice(ids, known, None)), letters)
        return found

    def _describe(self, tokens: list[str], letters: bool) -> None:
        lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
        self._length.extend(lengths)
        self._links.extend(np.zeros(len(tokens)))
        plain = np.full(len(tokens), _WORD | _ALPHABETIC | OTHER)
        self._flags.extend(plain if letters else [self._flags_of(token) for token in tokens])
        hashes, powers = hash_tokens(code_points("".join(tokens)), lengths)
        self._hashes.extend(hashes)
        self._powers.extend(powers)

    def _flags_of(self, token: str) -> int:
        if token.isalpha():
            return _WORD | _ALPHABETIC | OTHER
        word = _WORD * (not self._symbols.issuperset(token))
        alphabetic = _ALPHABETIC * any(map(str.isalpha, token))
        if token in self._terminals:
            return word | alphabetic | TERMINAL
        punctuation = bool(token) and all(unicodedata.category(each)[0] == "P" for each in token)
        return word | alphabetic | (PUNCTUATION if punctuation else OTHER)

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
        return self._flags.values & _WORD != 0

    @property
    def is_alphabetic(self) -> np.ndarray:
        """Whether a character of the token is a letter."""
        return self._flags.values & _ALPHABETIC != 0

    @property
    def hashes(self) -> np.ndarray:
        """Polynomial hash of each token's characters modulo 2^61-1, uint64: the hashes of joined tokens follow."""
        return self._hashes.values

    @property
    def powers(self) -> np.ndarray:
        """The base of the hash to the power of each token's length, modulo 2^61-1, uint64."""
        return self._powers.values


class ChunkTable:
    """Ids of chunks by their characters (see `look_up`); id 0 is white space that spaCy makes a token of."""

    def __init__(self) -> None:
        self.size = 1
        self._slots = np.zeros(1 << 16, np.int32)
        self._hashes, self._bounds, self._pool = Column(np.uint64, [0]), Column(np.int64, [0, 0]), Column(np.uint32)

    def look_up(
        self, codes: np.ndarray, begins: np.ndarray, ends: np.ndarray, tails: np.ndarray, rules: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids of chunks and, for each new one, its index among them and its kind (see the kernel)."""
        if 2 * (self.size + len(begins)) > len(self._slots):
            self._slots = np.zeros(1 << (4 * (self.size + len(begins))).bit_length(), np.int32)
            fill_slots(self._slots, self._hashes.values, self.size)
        hashes, bounds = self._hashes.room(len(begins)), self._bounds.room(len(begins))
        pool = self._pool.room(int((ends - begins).sum()))
        table = (self._slots, hashes, bounds, pool)
        ids, fresh, kinds = look_up(codes, begins, ends, character_classes(), tails, rules, table, self.size)
        self.size += len(fresh)
        self._hashes.size, self._bounds.size = self.size, self.size + 1
        self._pool.size = int(bounds[self.size])
        return ids, fresh, kinds


def code_points(text: str) -> np.ndarray:
    """The code points of a string, uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@lru_cache(maxsize=1)
def character_classes() -> np.ndarray:
    """For each code point whether it is white space, ends a line, opens a list item or is a letter: uint8."""
    classes = np.zeros(0x110000, np.uint8)
    for code in range(0x3001):  # no white space beyond
        if chr(code).isspace():
            classes[code] = SPACE | BREAK * (len(f"a{chr(code)}b".splitlines()) > 1)
    for code in range(_LETTERS_UP_TO):
        classes[code] |= LETTER * chr(code).isalpha()
    classes[[ord("-"), 0x2022]] |= OPENING
    return classes
