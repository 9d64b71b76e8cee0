"""What is taken for granted of spaCy's rules, checked on the rules of every language that it has."""

import pkgutil
from collections.abc import Callable
from functools import lru_cache
from re import _constants as kinds  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest
import spacy.lang
from spacy.util import get_lang_class

from tasks.quality.word_rules import (
    _LETTER_AFFIXES,
    _NEEDS_PACKAGES,
    _WINDOW,
    UNSPACED,
    QuickSearches,
    SpacyRules,
    Unspaced,
    language_rules,
    stop_words,
    symbols,
    terminal_marks,
)

LANGUAGES = sorted(
    each.name for each in pkgutil.iter_modules(spacy.lang.__path__) if each.ispkg and each.name not in _NEEDS_PACKAGES
)
# Slovene: needs two full stops, and a tail is one. Greek: a capital, and a full stop is a tail after a-z only.
_NO_TAILS = (r"(?<=[A-Z]\.)(?:[A-Z].)", "^[\u0391-\u03a9]{1}\\.")
Allowed = Callable[[str], bool]
_is_letter, _is_alphanumeric = lru_cache(None)(str.isalpha), lru_cache(None)(str.isalnum)


def matches_only(tree: Any, allowed: Allowed) -> bool:
    """Whether an expression could match within text of allowed characters alone; yes if in doubt."""
    return all(_node_matches(kind, value, allowed) for kind, value in tree)


def _node_matches(kind: Any, value: Any, allowed: Allowed) -> bool:
    if kind is kinds.LITERAL:
        return allowed(chr(value))
    if kind is kinds.IN:
        return _class_matches(value, allowed)
    if kind is kinds.BRANCH:
        return any(matches_only(each, allowed) for each in value[1])
    if kind is kinds.SUBPATTERN:
        return matches_only(value[3], allowed)
    if kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT):
        return value[0] == 0 or matches_only(value[2], allowed)
    return matches_only(value[1], allowed) if kind is kinds.ASSERT else True


def _class_matches(items: Any, allowed: Allowed) -> bool:
    if any(kind in (kinds.NEGATE, kinds.CATEGORY) for kind, _ in items):
        return True
    return any(
        allowed(chr(value)) if kind is kinds.LITERAL else any(map(allowed, map(chr, range(value[0], value[1] + 1))))
        for kind, value in items
    )


def edge_matches(tree: Any, allowed: Allowed, order: int) -> bool:
    """Whether the first (order 1) or last (order -1) character of a match could be an allowed one; yes if in doubt."""
    for kind, value in list(tree)[::order]:
        if kind in (kinds.ASSERT, kinds.ASSERT_NOT, kinds.AT):
            continue
        if kind is kinds.SUBPATTERN:
            return edge_matches(value[3], allowed, order)
        if kind is kinds.BRANCH:
            return any(edge_matches(each, allowed, order) for each in value[1])
        if kind in (kinds.MAX_REPEAT, kinds.MIN_REPEAT):
            if edge_matches(value[2], allowed, order) or value[0]:
                return edge_matches(value[2], allowed, order)
            continue
        return _node_matches(kind, value, allowed)
    return False


@lru_cache(None)
def pieces(language: str, kind: str) -> tuple[str, ...]:
    """The expressions of a language's prefixes, suffixes or infixes that spaCy uses."""
    defaults = get_lang_class(language).Defaults
    every = [each if isinstance(each, str) else each.pattern for each in getattr(defaults, kind) or ()]
    return tuple(each for each in every if each.strip())


@lru_cache(None)
def tree(piece: str) -> Any:
    return parser.parse(piece)


@pytest.mark.parametrize("language", [each for each in LANGUAGES if each not in ("id", "ms")])
def test_no_affix_consists_of_letters_and_so_words_of_letters_are_never_cut(language: str) -> None:
    every = pieces(language, "prefixes") + pieces(language, "suffixes") + pieces(language, "infixes")
    assert [each for each in every if _within_letters(each)] == []


@lru_cache(None)
def _within_letters(piece: str) -> bool:
    return matches_only(tree(piece), _is_letter)


@pytest.mark.parametrize("language", [each for each in LANGUAGES if each not in ("id", "ms")])
def test_a_tail_is_cut_off_as_it_stands_and_never_with_letters_before_it(language: str) -> None:
    rules = SpacyRules(language)
    for mark in (chr(code) for code in rules.tails.nonzero()[0]):
        for piece in pieces(language, "suffixes") + pieces(language, "prefixes"):
            assert piece in _NO_TAILS or not (_within_letters_and(piece, mark) and _edge(piece, 1, _is_letter)), piece
        assert mark == "." or mark in {each.replace("\\", "") for each in pieces(language, "suffixes")}


@lru_cache(None)
def _within_letters_and(piece: str, mark: str) -> bool:
    return matches_only(tree(piece), lambda character: character == mark or _is_letter(character))


@lru_cache(None)
def _edge(piece: str, order: int, allowed: Allowed) -> bool:
    return edge_matches(tree(piece), allowed, order)


@pytest.mark.parametrize("language", [each for each in LANGUAGES if each not in _LETTER_AFFIXES])
def test_quick_searches_skip_nothing(language: str) -> None:
    for piece in pieces(language, "prefixes"):
        assert not _edge(piece, 1, _is_alphanumeric) or "\\$" in piece, piece
    for piece in pieces(language, "suffixes"):
        unit = piece.startswith("(?<=[0-9])")
        assert not _edge(piece, -1, _is_alphanumeric) or unit or piece in ("'s", "'S", "\u2019s", "\u2019S"), piece
        assert piece == r"\.\.+" or tree(piece).getwidth()[1] < _WINDOW // 2


CHUNKS = [
    "word",
    "it's",
    "it\u2019S",
    "5km",
    "US$5",
    "a-b",
    "x",
    "(a",
    "a)",
    "\u00b2",
    "1st",
    "s",
    "(" * 200,
    "." * 200,
]


@pytest.mark.parametrize("chunk", [*CHUNKS, "a" * 90 + "." * 60, "a" * 90 + "5km", "(" * 90 + "'s"])
def test_quick_searches_find_what_spacy_finds(chunk: str) -> None:
    known: Any = spacy.blank("en").tokenizer
    quick = QuickSearches(known)
    for name in ("prefix_search", "suffix_search"):
        ours, theirs = getattr(quick, name)(chunk), getattr(known, name)(chunk)
        assert (ours and ours[0]) == (theirs and theirs[0])  # of which spaCy uses the length
    assert [each.span() for each in quick.infix_finditer(chunk)] == [
        each.span() for each in known.infix_finditer(chunk)
    ]


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
