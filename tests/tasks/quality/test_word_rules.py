"""What the rules of languages are: whose they are, their special cases, units for scripts without spaces."""

import pytest

from tasks.quality.word_rules import (
    UNSPACED,
    SpacyRules,
    Unspaced,
    language_rules,
    stop_words,
    symbols,
    terminal_marks,
)


@pytest.mark.parametrize("language", [None, "und", "zxx", "ko", "vi", "ceb", "x/y", "..", "als"])
def test_languages_without_rules_have_those_of_any(language: str | None) -> None:
    rules = language_rules(language)
    assert isinstance(rules, SpacyRules)
    assert rules.special == SpacyRules("xx").special


def units(text: str) -> list[str]:
    return Unspaced().tokenize([text])[0]


def test_scripts_without_spaces_are_split_into_characters_with_their_marks() -> None:
    assert units("\u65e5\u672c\u8a9eABC\u3002") == ["\u65e5", "\u672c", "\u8a9e", "ABC", "\u3002"]
    assert units("\u0e17\u0e35\u0e48\u0e19") == ["\u0e17\u0e35\u0e48", "\u0e19"]
    assert units("\u0f56\u0f7c\u0f51\u0f0b\u0f61\u0f72\u0f42") == ["\u0f56\u0f7c\u0f51\u0f0b", "\u0f61\u0f72\u0f42"]
    assert all(isinstance(language_rules(each), Unspaced) for each in UNSPACED)


@pytest.mark.parametrize("language", ["th", "lo", "km", "my", "ja", "bo"])
def test_every_character_belongs_to_a_unit(language: str) -> None:
    every = "".join(chr(code) for code in (*range(0xE00, 0x10A0), *range(0x1780, 0x1800), *range(0x3040, 0x3100)))
    chunks = every.split()
    assert "".join(Unspaced().tokenize(chunks)[0]) == "".join(chunks)


def test_stop_words_are_the_languages_own() -> None:
    assert {"der", "und"} <= stop_words("de")
    assert "the" not in stop_words("de")
    assert not any(stop_words(each) for each in ("ceb", "ja", "zh", "", "ko"))


def test_marks_and_symbols_are_as_many_as_published() -> None:
    assert len(terminal_marks()) == 159
    assert {len(mark) for mark in symbols()} == {1}
    assert not any(mark.isalpha() or (mark.isspace() and mark in " \t\n") for mark in symbols())


def test_a_chunk_on_which_spacy_would_take_hours_is_split_simply() -> None:
    chunk = "(" * 100_000 + "ab"
    tokens, sizes = SpacyRules("en").tokenize(["one", chunk, "two."])
    assert sizes == [1, 100_001, 2]
    assert tokens[-3:] == ["ab", "two", "."]
    long_word = "a" * 100_000
    assert SpacyRules("en").tokenize([long_word])[0] == [long_word]


def test_special_cases_that_hold_a_space_are_noticed() -> None:
    assert SpacyRules("ru").crosses_spaces("\u0438 \u0434\u0440.")
    assert not SpacyRules("en").crosses_spaces("and so on")
