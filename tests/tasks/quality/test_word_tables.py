"""Tokens are described as one would, and strings keep their ids however many there are."""

import random
import sys
import unicodedata

import numpy as np
import pytest

from tasks.quality.word_kernels import HEAD, LETTER, MARK, OTHER, PUNCTUATION, TAIL, TERMINAL
from tasks.quality.word_rules import sentence_marks, symbols
from tasks.quality.word_tables import Column, StringTable, TokenTable, character_classes, code_points

TOKENS = {"Ab1": (3, True, True), "--": (2, False, False), "x\u2014": (2, True, True), "42": (2, True, False)}
TOKENS |= {"\u2026": (1, False, False), "\u6587": (1, True, True), "": (0, False, False), "%": (1, False, False)}
ROLES = {"x": OTHER, ".": TERMINAL, "\u3002": TERMINAL, "..": PUNCTUATION, "x.": OTHER, "\xbb": PUNCTUATION, "$": OTHER}


def looked_up(table: StringTable, strings: list[str]) -> tuple[list[int], list[int]]:
    ends = np.cumsum([0, *map(len, strings)])
    ids, fresh = table.look_up(code_points("".join(strings)), ends[:-1], ends[1:])
    return ids.tolist(), fresh.tolist()


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_is_described(token: str) -> None:
    table = TokenTable({})
    (index,) = table.learn([token])
    described = (int(table.lengths[index]), bool(table.is_word[index]), bool(table.is_alphabetic[index]))
    assert described == TOKENS[token]


@pytest.mark.parametrize("token", ROLES)
def test_a_token_does_something_to_sentences(token: str) -> None:
    table = TokenTable({})
    (index,) = table.learn([token])
    assert table.roles[index] == ROLES[token]


def test_tokens_keep_their_ids_and_links() -> None:
    table = TokenTable({":": HEAD, ")": HEAD | TAIL})
    assert table.learn([")", "x", "", ":"]).tolist() == [2, 3, 0, 1]
    assert table.learn(["x", "y"]).tolist() == [3, 4]
    assert table.links.tolist() == [0, HEAD, HEAD | TAIL, 0, 0]
    assert table.ids == {"": 0, ":": 1, ")": 2, "x": 3, "y": 4}


def test_strings_have_ids_in_the_order_in_which_they_come() -> None:
    table = StringTable()
    assert looked_up(table, ["a", "b", "", "a"]) == ([1, 2, 0, 1], [0, 1])
    assert looked_up(table, ["c", "b"]) == ([3, 2], [0])
    assert table.strings() == ["", "a", "b", "c"]


def test_many_strings_are_all_remembered() -> None:
    rng = random.Random(8)
    table, ids = StringTable(), {}
    for count in (30_000, *[5000] * 20):
        strings = ["".join(rng.choices("ab\u4e2d", k=rng.randint(1, 12))) for _ in range(count)]
        found, fresh = looked_up(table, strings)
        assert len({strings[index] for index in fresh}) == len(fresh)
        for string, index in zip(strings, found, strict=True):
            assert ids.setdefault(string, index) == index
    assert len(set(ids.values())) == len(ids) == table.size - 1


def test_a_column_grows() -> None:
    column = Column(np.int32, [7])
    for size in (1, 5000, 1, 20_000):
        column.extend(np.arange(size))
    assert column.size == len(column.values) == 25_003
    assert column.values[[0, 1, 2, 5001, 5002, 5003, -1]].tolist() == [7, 0, 0, 4999, 0, 0, 19_999]


def test_classes_of_characters_are_pythons() -> None:
    classes = character_classes()
    codes = np.array([ord(character) for character in "a\n \u3000\u2028-1"])
    assert (classes[codes] & 15).tolist() == [8, 3, 1, 1, 3, 4, 0]
    every = [chr(code) for code in range(sys.maxunicode + 1)]
    assert np.array_equal(classes & LETTER != 0, [each.isalpha() for each in every])
    assert np.array_equal(classes & MARK != 0, [unicodedata.category(each)[0] == "P" for each in every])


def test_sets_of_marks_hold_single_characters_that_are_no_letters() -> None:
    assert not [mark for mark in symbols() | sentence_marks() if len(mark) != 1 or mark.isalpha()]
