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

from tasks.quality.affix_kernels import cut
from tasks.quality.word_kernels import CHANGED, FRAGILE, HEAD, TAIL, gather, linked_lines, scan
from tasks.quality.word_rules import SpacyRules, Unspaced, language_rules
from tasks.quality.word_tables import Column, StringTable, TokenTable, character_classes, code_points

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
        self._specials: StringTable | None = None
        self._forget()

    def _forget(self) -> None:
        self.table = TokenTable(self._rules.links)
        self._chunks = StringTable()
        self._starts, self._tokens = Column(np.int64, [0, 1]), Column(np.int32, [0])
        self._flags = Column(np.uint8, [0])
        pairs = self.table.learn([token for pair in self._rules.changed_pairs for token in pair])
        self._changed_pairs = _pair_keys(pairs[::2], pairs[1::2])
        special = [rule for rule in self._rules.special if len(rule.split()) == 1]
        text, ends = "".join(special), np.cumsum([0, *map(len, special)])
        self._specials, self._longest_special = None, max(map(len, special), default=0)
        self._ids(text, code_points(text), ends[:-1], ends[1:])  # by spaCy, because special cases are not known yet
        self._specials = StringTable()
        self._specials.look_up(code_points(text), ends[:-1], ends[1:])
        self._flags.values[:] &= HEAD | TAIL

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
        ids, fresh = self._chunks.look_up(codes, begins, ends)
        if len(fresh):
            self._learn(text, codes, begins[fresh], ends[fresh])
        return ids

    def _learn(self, text: str, codes: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> None:
        """Tokens of new chunks, in the order of their ids."""
        ids, counts = self._cut(codes, begins, ends)
        difficult = np.flatnonzero(counts == 0)
        bounds = list(zip(begins[difficult].tolist(), ends[difficult].tolist(), strict=True))
        tokens, sizes = self._rules.tokenize([text[begin:end] for begin, end in bounds])
        counts[difficult] = sizes
        starts = np.concatenate([[0], np.cumsum(counts)])
        every, plain = np.empty(starts[-1], np.int32), np.ones(len(counts), bool)
        plain[difficult] = False
        plain = np.repeat(plain, counts)
        every[plain], every[~plain] = ids, self.table.learn(tokens)
        links = self.table.links[every]
        flags = links[starts[:-1]] & TAIL | links[starts[1:] - 1] & HEAD
        fragile = np.bitwise_or.reduceat(links, starts[:-1]) & FRAGILE != 0
        for number, (begin, end) in zip(difficult.tolist(), bounds, strict=True):
            if fragile[number]:
                flags[number] = self._rules.fragile_flags(text[begin:end])
        self._flags.extend(flags)
        self._tokens.extend(every)
        self._starts.extend(self._starts.values[-1] + starts[1:])

    def _cut(self, codes: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the tokens of chunks that the rules cut, and how many each has: none if spaCy has to be asked."""
        if self._rules.affixes is None or self._specials is None:
            return np.zeros(0, np.int32), np.zeros(len(begins), np.int64)
        special = self._specials.arrays, self._longest_special
        token_begins, token_ends, counts = cut(codes, begins, ends, self._rules.affixes, *special)
        ids = self.table.learn_slices(codes, token_begins, token_ends)
        of_chunk = np.repeat(np.arange(len(counts)), counts)
        links = self.table.links[ids]
        changed = links & CHANGED != 0
        joined = np.flatnonzero((links[:-1] & HEAD != 0) & (links[1:] & TAIL != 0) & (of_chunk[:-1] == of_chunk[1:]))
        changed[joined[np.isin(_pair_keys(ids[joined], ids[joined + 1]), self._changed_pairs)]] = True
        if changed.any():
            counts[of_chunk[changed]] = 0
            ids = ids[counts[of_chunk] > 0]
        return ids, counts

    def _lines_across_spaces(self, text: str, begins: np.ndarray, ends: np.ndarray) -> list[int]:
        if not self._rules.crosses_spaces(text):
            return []
        bounds = enumerate(zip(begins.tolist(), ends.tolist(), strict=True))
        return [line for line, (begin, end) in bounds if self._rules.crosses_spaces(text[begin:end])]


def _pair_keys(firsts: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """A number for each pair of token ids, int64."""
    return firsts.astype(np.int64) << 32 | seconds


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
