"""How the languages are cut into words: spaCy's rules without a model, and units for scripts without spaces.

spaCy's tokeniser cuts text at white space and then works on one *chunk* after the other, so its answer for a chunk
can be remembered. What remains is exact: `flags` marks chunks whose special cases (emoticons, abbreviations) may reach
over a space, and their lines are then given to spaCy whole.

Scripts that put no spaces between words (`UNSPACED`) have no words without a dictionary: their unit is the character
with its marks, or Tibetan's syllable with the point that ends it. Languages that spaCy does not know are split by its
rules for any language.
"""

import re
import string
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import chain
from typing import Any

import numpy as np

from tasks.quality.affix_rules import affix_rules
from tasks.quality.spacy_library import spacy
from tasks.quality.word_kernels import CHANGED, FRAGILE, HEAD, TAIL

UNSPACED = frozenset({"zh", "yue", "wuu", "gan", "lzh", "ja", "th", "lo", "km", "my", "bo", "dz"})
"""Languages written without spaces between words (Tibetan and Dzongkha: between syllables)."""
_UNSPACED_BLOCKS = (
    *((0xE00, 0xEFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF)),
    *((0x4E00, 0x9FFF), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F), (0xF900, 0xFAFF), (0x20000, 0x323AF)),
)  # Thai and Lao, Myanmar, Khmer, kana, ideographs, more Myanmar, more ideographs
_PART = "\n"  # a special case of its own in every language, and in no chunk, line or other case
_TOGETHER = 1000  # chunks that spaCy is given at once
_PATIENCE = 100_000  # spaCy takes affixes off one by one: time grows with their number times the chunk's length
_SHORT = 300  # chunks that are never too much for it
_PLAIN = re.compile(r"\w+|[^\w\s]")
_PROXIES = {"no": "nb"}
_NEEDS_PACKAGES = ("ja", "ko", "th", "vi", "zh")  # spaCy leaves these to packages of their own


def terminal_marks() -> frozenset[str]:
    """The 159 marks that datatrove counts as ending a sentence or line: spaCy's, and the newer ones of Unicode."""
    newer = [0x61D, 0x61E, 0x837, 0x839, 0x83D, 0x83E, 0x17D4, 0x17D5, 0x17D6, 0x17D9, 0x17DA, 0x1B7D, 0x1B7E]
    newer += [0x2E53, 0x2E54, *range(0x10F55, 0x10F5A), *range(0x10F86, 0x10F8A), 0x11944, 0x11946, 0x11EF7, 0x11EF8]
    return sentence_marks() | frozenset(map(chr, [*newer, 0x11F43, 0x11F44, 0x16E98]))


def sentence_marks() -> frozenset[str]:
    """The marks after which spaCy's sentencizer begins a sentence."""
    spacy()
    from spacy.pipeline import Sentencizer

    return frozenset(Sentencizer.default_punct_chars)


def symbols() -> frozenset[str]:
    """The characters of which a symbol consists: ASCII's, CC-Net's wide and typographic ones, controls, terminals."""
    wide = [ord(each) + 0xFEE0 for each in "%(),.:;?!~1"]  # the digit is in CC-Net's list too
    cjk = [0x3001, 0x3002, *range(0x3008, 0x300E), 0x3010, 0x3011, 0x2501]
    typographic = [0xAB, 0xB4, 0xBB, 0x2013, 0x2014, 0x2019, 0x201C, 0x201D, 0x201E, 0x2026, 0x2236, 0x25BA]
    controls = [*range(9), 11, 12, *range(13, 32), *range(127, 160)]
    return frozenset(string.punctuation) | frozenset(map(chr, wide + cjk + typographic + controls)) | terminal_marks()


def stop_words(language: str) -> frozenset[str]:
    """SpaCy's stop words of a language; empty where it has none."""
    known = _spacy_language(language)
    return frozenset() if known == "xx" or language in UNSPACED else frozenset(_blank(known).Defaults.stop_words)


def language_rules(language: str | None) -> "SpacyRules | Unspaced":
    """The rules of a language (ISO 639 code); None and unknown ones are split by spaCy's rules for any language."""
    return Unspaced() if language in UNSPACED else SpacyRules(_spacy_language(language))


def _spacy_language(language: str | None) -> str:
    code = _PROXIES.get(language or "", language or "")
    if code in _NEEDS_PACKAGES or not (code.isalpha() and code.isascii()):
        return "xx"
    spacy()
    return code if find_spec(f"spacy.lang.{code}") is not None else "xx"


@lru_cache(maxsize=64)
def _blank(language: str) -> Any:
    return spacy().blank(language)


class SpacyRules:
    """A language's rules, without a model."""

    spaced = True
    """Whether white space parts words."""

    def __init__(self, language: str) -> None:
        from spacy.vocab import Vocab

        known = _blank(language).tokenizer
        self._vocab = Vocab()  # a vocabulary of its own: the language's works out features of every new word
        self._tokenizer = _tokenizer(self._vocab, known, known.rules)
        self.affixes: tuple[Any, ...] | None = affix_rules(known).arrays
        self.special = sorted(rule for rule in known.rules if rule.strip() == rule != "")
        self.links: dict[str, int] = {}
        self.changed_pairs: list[tuple[str, str]] = []
        self._read_special_cases(_tokenizer(self._vocab, known, {}))
        self._head_ends = tuple(token for token, link in self.links.items() if link & HEAD)
        self._tail_begins = tuple(token for token, link in self.links.items() if link & TAIL)
        spaced = sorted((rule for rule in self.special if len(rule.split()) > 1), key=len, reverse=True)
        self._spaced_rule = re.compile("|".join(map(re.escape, spaced))).search if spaced else None

    def _read_special_cases(self, bare: Any) -> None:
        """Which tokens can begin or end a special case of several tokens, and which betray that one was applied."""
        links = self.links
        for parts, final in zip(
            self._tokens_of(bare, self.special), self._tokens_of(self._tokenizer, self.special), strict=True
        ):
            if len(parts) > 1:
                for token in parts[:-1]:
                    links[token] = links.get(token, 0) | HEAD
                for token in parts[1:]:
                    links[token] = links.get(token, 0) | TAIL
                if parts != final:  # one token of the case betrays it; a full stop would often lie
                    token = max([token for token in final if token not in parts] or final, key=len)
                    links[token] = links.get(token, 0) | FRAGILE
                    self.changed_pairs.append((parts[0], parts[1]))
            elif parts != final:
                links[parts[0]] = links.get(parts[0], 0) | CHANGED

    def crosses_spaces(self, line: str) -> bool:
        """Whether a special case that holds a space stands in a line."""
        return self._spaced_rule is not None and self._spaced_rule(line) is not None

    def fragile_flags(self, chunk: str) -> int:
        """Flags of a chunk that special cases changed.

        Only a longer match across a space can undo a change, so a line needs spaCy whole only if two neighbours could
        share a match and one of them was changed. What the chunk's tokens were before the change is not known.
        """
        return FRAGILE | HEAD * chunk.endswith(self._head_ends) | TAIL * chunk.startswith(self._tail_begins)

    def tokenize(self, chunks: Sequence[str]) -> tuple[list[str], list[int]]:
        """Tokens of all chunks (or lines), and how many each has; white space becomes the empty string."""
        tokens: list[str] = []
        sizes: list[int] = []
        for found in self._by_spacy(chunks):
            tokens += found
            sizes.append(len(found))
        return tokens, sizes

    def _by_spacy(self, chunks: Sequence[str]) -> Iterator[list[str]]:
        """Tokens of each chunk, by spaCy where that does not take too long."""
        for start in range(0, len(chunks), _TOGETHER):
            part = chunks[start : start + _TOGETHER]
            hard = {chunk for chunk in part if len(chunk) > _SHORT and _effort(chunk) > _PATIENCE}
            found = self._tokens_of(self._tokenizer, [chunk for chunk in part if chunk not in hard])
            for chunk in part:
                yield _PLAIN.findall(chunk) if chunk in hard else next(found)

    def _tokens_of(self, tokenizer: Any, chunks: Sequence[str]) -> Iterator[list[str]]:
        """Tokens of each chunk, all of them tokenised in one go; white space becomes the empty string."""
        from spacy.attrs import LENGTH, SPACY

        text = _PART.join(chunks)
        with self._vocab.memory_zone():  # or the vocabulary would grow for ever
            lengths, spaces = tokenizer(text).to_array([LENGTH, SPACY]).astype(np.int64).T
        ends = np.cumsum(lengths + spaces) - spaces
        found: list[str] = []
        for begin, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True):
            if (token := text[begin:end]) == _PART:
                yield found
                found = []
            else:
                found.append(token.strip())
        yield found


class Unspaced:
    """Characters with their marks as words, for scripts without spaces; other scripts' words as they stand."""

    spaced = False

    def __init__(self) -> None:
        self.special: list[str] = []
        self.links: dict[str, int] = {}
        self.changed_pairs: list[tuple[str, str]] = []
        self.affixes: tuple[Any, ...] | None = None
        tibetan, marks = _letters_and_marks([(0xF00, 0xFFF)])
        others, more = _letters_and_marks(_UNSPACED_BLOCKS)
        marks += more
        self._units = re.compile(
            rf"[{tibetan}][{tibetan}{marks}]*+[\u0f0b\u0f0c]?|[{others}][{marks}]*+|(?:(?![{tibetan}{others}])\w)++[{marks}]*+|\S"
        ).findall

    def crosses_spaces(self, line: str) -> bool:
        """No unit holds a space."""
        return False

    def fragile_flags(self, chunk: str) -> int:
        """Chunks do not bear on each other."""
        return 0

    def tokenize(self, chunks: Sequence[str]) -> tuple[list[str], list[int]]:
        """Units of all chunks, and how many each has."""
        units = [self._units(chunk) for chunk in chunks]
        return list(chain.from_iterable(units)), list(map(len, units))


def _letters_and_marks(blocks: Sequence[tuple[int, int]]) -> tuple[str, str]:
    """The letters of blocks of code points and the marks upon them, each as the inside of a character class."""
    letters, marks = [], []
    for first, last in blocks:
        for character in map(chr, range(first, last + 1)):
            category = unicodedata.category(character)
            if category[0] == "L":
                letters.append(character)
            elif category[0] == "M":
                marks.append(character)
    return "".join(letters), "".join(marks)


def _tokenizer(vocab: Any, model: Any, rules: Any) -> Any:
    """A tokeniser like another, with its own vocabulary and rules."""
    from spacy.tokenizer import Tokenizer

    return Tokenizer(
        vocab,
        rules=rules,
        prefix_search=model.prefix_search,
        suffix_search=model.suffix_search,
        infix_finditer=model.infix_finditer,
        token_match=model.token_match,
        url_match=model.url_match,
    )


def _effort(chunk: str) -> int:
    """How long spaCy may take for a chunk, or for the worst chunk of a line."""
    return max(len(piece) * sum(not each.isalnum() for each in piece) for piece in chunk.split())
