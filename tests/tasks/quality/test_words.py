"""Words and sentences: equal to spaCy's own, on text made to be difficult, whatever was split before."""

import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import spacy
from spacy.pipeline import Sentencizer

from tasks.quality.words import Words, split_words, word_splitter

LANGUAGES = ("en", "de", "fr", "es", "ru", "it", "hu", "tr", "el", "pl", "xx", "sl", "ms")
MARKS = tuple(".,;:!?)(\"'[]{}/\\-_#*=<>%$&@|~^`")
MARKS += tuple("\u2026\u2019\u2018\u201c\u201d\u201e\u00b4\u00ab\u00bb\u2013\u2014\u3002\u0964\u00b0\u00b2\u200b")
SOME = ("a", "word", "Word", "WORD", "12", "3.5", "5km", "US$5", "don't", "U.S.", "he's", "Inc", "z.B", "\u00df")
SOME += ("e\u0301", "http://a.b/c?d=e", "a@b.de", "1,000.50", "8)", ":-)", "\u4e2d\u6587", "\U0001f600", "x:y", "...")
SOME += ("and/or", "w/o", "..")
GAPS = ("", "", "", " ", " ", " ", " ", "  ", "\n", "\t", "\xa0", " \xa0", "\u3000", "\r\n", "\x0b")


def difficult(language: str, count: int, seed: int) -> list[str]:
    """Strings of marks, words and the language's own special cases, with all kinds of white space."""
    rng = random.Random(seed)
    tokenizer: Any = spacy.blank(language).tokenizer
    rules = sorted(tokenizer.rules)
    found = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 10)):
            kind = rng.random()
            parts.append(rng.choice(rules if kind < 0.3 else MARKS if kind < 0.65 else SOME))
            parts.append(rng.choice(GAPS))
        found.append("".join(parts))
    return found


def spacy_words(language: str, texts: list[str]) -> list[list[str]]:
    tokenizer = spacy.blank(language).tokenizer
    return [[token.text.strip() for token in tokenizer(text) if token.text.strip()] for text in texts]


def rows(words: Words) -> list[list[str]]:
    """The words of each text."""
    names = list(words.table.ids)
    bounds = words.text_tokens
    return [[names[token] for token in words.tokens[a:b]] for a, b in pairwise(bounds)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_are_spacys(language: str) -> None:
    texts = difficult(language, 1500, seed=1)
    expected = spacy_words(language, texts)
    for text, ours, theirs in zip(texts, rows(word_splitter(language).split(texts)), expected, strict=True):
        assert ours == theirs, text


@pytest.mark.parametrize("language", ["en", "de", "el", "xx"])
def test_sentences_are_spacys(language: str) -> None:
    texts = [" ".join(text.splitlines()) + end for text in difficult(language, 1000, seed=2) for end in ("", "  ")]
    tokenizer, sentencizer = spacy.blank(language).tokenizer, Sentencizer()
    expected = [max(1, len(list(sentencizer(tokenizer(text)).sents))) for text in texts]
    found = word_splitter(language).split(texts, whole=True).sentences.tolist()
    for text, ours, theirs in zip(texts, found, expected, strict=True):
        assert ours == theirs, repr(text)


def test_a_special_case_across_a_space_undoes_one_within() -> None:
    text = "a: (8) b"  # spaCy sees ": (" and leaves its parts alone, whatever they would be by themselves
    assert split_words(text) == spacy_words("en", [text])[0]


def test_words_do_not_depend_on_what_was_split_before(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = difficult("en", 300, seed=3)
    together = rows(word_splitter("en").split(texts))
    word_splitter.cache_clear()
    splitter = word_splitter("en")
    monkeypatch.setattr("tasks.quality.words._REMEMBERED", 1)  # forget everything after each call
    assert [rows(splitter.split([text]))[0] for text in reversed(texts)] == together[::-1]
    word_splitter.cache_clear()


def test_lines_tell_their_words_and_sentences() -> None:
    words = word_splitter("en").split(["One two. Three!\n\n  four five  \n", "", "x"])
    assert [words.text[a:b] for a, b in zip(words.line_begins, words.line_ends, strict=True)] == [
        *("One two. Three!", "", "four five", "x")
    ]
    assert words.text_lines.tolist() == [0, 3, 3, 4]
    assert words.line_words.tolist() == [3, 0, 2, 1]
    assert words.sentences.tolist() == [2, 1, 1, 1]
    assert words.longest.tolist() == [6, 0, 4, 1]
    assert words.by_text(words.line_words).tolist() == [5, 0, 1]
    assert np.diff(words.text_tokens).tolist() == [7, 0, 1]


def test_units_stand_in_for_words_where_there_are_no_spaces() -> None:
    words = word_splitter("ja").split(["\u65e5\u672c\u8a9e\u3002\u65e5\u672c\u3002"])
    assert words.line_words.tolist() == [5]
    assert words.sentences.tolist() == [2]


def test_nothing_is_split_into_nothing() -> None:
    assert word_splitter("en").split([]).text_lines.tolist() == [0]
    assert word_splitter("en").split(["", " \n "], whole=False).tokens.tolist() == []
    assert split_words("") == []
