"""Words and sentences of many texts at once, as integers; each piece between white space is tokenised only once.

A *chunk* is what stands between white space. Its tokens are looked up in a table that each process keeps for each
language; chunks that are new are tokenised together by `tasks.word_rules`. Sentences are counted as spaCy's
sentencizer does: after a terminal mark, the next token that is no punctuation begins one, and so does white space
other than one space, which spaCy makes a token of.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from tasks.word_kernels import (
    BREAK,
    DIFFICULT,
    FRAGILE,
    HEAD,
    LETTER,
    LETTERS_AND_TAIL,
    OPENING,
    OTHER,
    PUNCTUATION,
    SPACE,
    TAIL,
    TERMINAL,
    fill_slots,
    gather,
    hash_tokens,
    linked_lines,
    look_up,
    scan,
)
from tasks.word_rules import SpacyRules, Unspaced, language_rules, sentence_marks, symbols

LIBRARIES = ("spacy", "numba")
"""Libraries whose versions can change what a word is."""
_REMEMBERED = 1 << 19  # chunks of a language; about 100 MB when full
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


@dataclass(frozen=True)
class Words:
    """The lines of texts and the tokens in them. Arrays by line have one entry for each line, empty ones too."""

    text: str
    """All texts, a newline between them."""
    text_lines: np.ndarray
    """Where the lines of each text begin, and the end: int64, texts + 1."""
    line_begins: np.ndarray
    """Where each line without the white space around it begins in `text`: int64."""
    line_ends: np.ndarray
    """Where it ends: int64."""
    line_words: np.ndarray
    """Pieces between white space in each line, or units where the script has no spaces: int64."""
    longest: np.ndarray
    """Characters of the longest piece between white space in each line: int64."""
    line_flags: np.ndarray
    """BULLET_LINE and its like, uint8."""
    tokens: np.ndarray
    """Token ids of all lines, int32."""
    line_tokens: np.ndarray
    """Where the tokens of each line begin, and the end: int64, lines + 1."""
    sentences: np.ndarray
    """Sentences in each line, at least 1: int64."""
    table: TokenTable

    @property
    def text_tokens(self) -> np.ndarray:
        """Where the tokens of each text begin, and the end: int64, texts + 1."""
        return self.line_tokens[self.text_lines]

    def by_text(self, values: np.ndarray) -> np.ndarray:
        """Sums of a value by line over each text: int64."""
        sums = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
        return np.diff(sums[self.text_lines])


class WordSplitter:
    """Splits texts of one language; remembers chunks until there are too many, then begins anew."""

    def __init__(self, rules: SpacyRules | Unspaced) -> None:
        self._rules = rules
        self._forget()

    def _forget(self) -> None:
        self.table = TokenTable(self._rules.links)
        self._chunks = ChunkTable()
        self._starts, self._tokens = Column(np.int64, [0, 1]), Column(np.int32, [0])
        self._flags = Column(np.uint8, [0])
        self._first_plain = 0  # nothing is plain until the special cases are known
        special = [rule for rule in self._rules.special if len(rule.split()) == 1]
        text, ends = "".join(special), np.cumsum([0, *map(len, special)])
        self._ids(text, code_points(text), ends[:-1], ends[1:])
        self._flags.values[:] &= HEAD | TAIL
        self._first_plain = self._chunks.size

    def split(self, texts: Sequence[str], whole: bool = False) -> Words:
        """Lines, tokens and sentences of texts. If `whole`, each is one line, and white space at its end counts."""
        if self._chunks.size > _REMEMBERED:
            self._forget()
        text = "\n".join([*texts, ""])
        codes = code_points(text)
        starts = np.concatenate([[0], np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)])
        begins, ends, lines, text_lines = scan(codes, starts, character_classes(), whole)
        line_chunks, line_words, line_begins, line_ends, longest, line_flags = lines
        ids = self._ids(text, codes, begins, ends)
        linked = linked_lines(ids, line_chunks, self._flags.values)
        for line in self._lines_across_spaces(text, line_begins, line_ends):
            linked[line] = True
        if linked.any():
            lines = self._ids(text, codes, line_begins[linked], line_ends[linked])
            ids, line_chunks = _replace_chunks(ids, line_chunks, linked, lines)
        table = self.table
        tokens, line_tokens, sentences, units = gather(
            ids, line_chunks, self._starts.values, self._tokens.values, table.roles, table.is_word
        )
        return Words(
            text=text,
            text_lines=text_lines,
            line_begins=line_begins,
            line_ends=line_ends,
            line_words=line_words if self._rules.spaced else units,
            longest=longest,
            line_flags=line_flags,
            tokens=tokens,
            line_tokens=line_tokens,
            sentences=sentences,
            table=table,
        )

    def _ids(self, text: str, codes: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Ids of chunks, after learning the tokens of those that are new."""
        tails = self._rules.tails if self._first_plain else np.zeros(0, np.uint8)
        ids, fresh, kinds = self._chunks.look_up(codes, begins, ends, tails, self._first_plain)
        if len(fresh):
            self._learn(text, begins[fresh], ends[fresh], kinds)
        return ids

    def _learn(self, text: str, begins: np.ndarray, ends: np.ndarray, kinds: np.ndarray) -> None:
        """Tokens of new chunks, in the order of their ids."""
        plain, tailed, difficult = kinds != DIFFICULT, kinds == LETTERS_AND_TAIL, kinds == DIFFICULT
        chunks = _slices(text, begins[difficult], ends[difficult])
        tokens, sizes = self._rules.tokenize(chunks)
        every = np.where(tailed, 2, 1)
        every[difficult] = sizes
        starts = np.concatenate([[0], np.cumsum(every)])
        ids = np.empty(starts[-1], np.int32)
        ids[starts[:-1][plain]] = self.table.learn(_slices(text, begins[plain], (ends - tailed)[plain]), letters=True)
        ids[starts[:-1][tailed] + 1] = self.table.learn(_slices(text, ends[tailed] - 1, ends[tailed]))
        ids[np.repeat(difficult, every)] = self.table.learn(tokens)
        links = self.table.links[ids]
        flags = links[starts[:-1]] & TAIL | links[starts[1:] - 1] & HEAD
        fragile = np.bitwise_or.reduceat(links, starts[:-1]) & FRAGILE != 0
        for number in np.flatnonzero(fragile & difficult).tolist():
            flags[number] = self._rules.fragile_flags(text[begins[number] : ends[number]])
        self._flags.extend(flags)
        self._tokens.extend(ids)
        self._starts.extend(self._starts.values[-1] + starts[1:])

    def _lines_across_spaces(self, text: str, begins: np.ndarray, ends: np.ndarray) -> list[int]:
        if not self._rules.crosses_spaces(text):
            return []
        bounds = enumerate(zip(begins.tolist(), ends.tolist(), strict=True))
        return [line for line, (begin, end) in bounds if self._rules.crosses_spaces(text[begin:end])]


def _slices(text: str, begins: np.ndarray, ends: np.ndarray) -> list[str]:
    return [text[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]


@lru_cache(maxsize=64)
def word_splitter(language: str | None) -> WordSplitter:
    """The splitter of a language (ISO 639 code; None for any), one for each process."""
    return WordSplitter(language_rules(language))


def split_words(text: str, language: str | None = "en") -> list[str]:
    """The words of a text, as datatrove's word tokeniser gives them where that is spaCy's."""
    words = word_splitter(language).split([text])
    names = list(words.table.ids)
    return [names[index] for index in words.tokens.tolist()]


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


def _replace_chunks(
    ids: np.ndarray, line_chunks: np.ndarray, chosen: np.ndarray, lines: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of chunks and where each line's begin, chosen lines as one chunk each, whose ids are given.

    White space at the end of a line is a chunk that stays.
    """
    sizes = np.diff(line_chunks)
    stays = np.repeat(~chosen, sizes)
    first, last = line_chunks[:-1][chosen], line_chunks[1:][chosen] - 1
    ids[first], stays[first] = lines, True
    stays[last[ids[last] == 0]] = True
    counts = np.add.reduceat(np.append(stays, False), line_chunks[:-1], dtype=np.int64)
    return ids[stays], np.concatenate([[0], np.cumsum(np.where(sizes > 0, counts, 0))])
