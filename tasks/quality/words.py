"""Words and sentences of many texts at once, as integers; each piece between white space is tokenised only once.

A *chunk* is what stands between white space. Its tokens are looked up in a table that each process keeps for each
language; chunks that are new are tokenised together by `tasks.quality.word_rules`. Sentences are counted as spaCy's
sentencizer does: after a terminal mark, the next token that is no punctuation begins one, and so does white space
other than one space, which spaCy makes a token of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tasks.quality.word_kernels import DIFFICULT, FRAGILE, HEAD, LETTERS_AND_TAIL, TAIL, gather, linked_lines, scan
from tasks.quality.word_rules import SpacyRules, Unspaced, language_rules
from tasks.quality.word_tables import ChunkTable, Column, TokenTable, character_classes, code_points

LIBRARIES = ("spacy", "numba")
"""Libraries whose versions can change what a word is."""
_REMEMBERED = 1 << 19  # chunks of a language; about 100 MB when full


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
