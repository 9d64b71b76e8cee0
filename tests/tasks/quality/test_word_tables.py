"""Tokens are described as one would, and chunks keep their ids however many there are."""

import random

import numpy as np
import pytest

from tasks.quality.word_kernels import DIFFICULT, HEAD, LETTERS, LETTERS_AND_TAIL, TAIL, TAIL_AFTER_LOWER, TAIL_ALWAYS
from tasks.quality.word_tables import ChunkTable, Column, TokenTable, character_classes, code_points

TAILS = np.zeros(128, np.uint8)
TAILS[ord(",")], TAILS[ord(".")] = TAIL_ALWAYS, TAIL_AFTER_LOWER
TOKENS = {"Ab1": (3, True, True), "--": (2, False, False), "x\u2014": (2, True, True), "42": (2, True, False)}
TOKENS |= {"\u2026": (1, False, False), "\u6587": (1, True, True), "": (0, False, False), "%": (1, False, False)}


def looked_up(table: ChunkTable, chunks: list[str], rules: int = 0) -> tuple[list[int], list[int], list[int]]:
    ends = np.cumsum([0, *map(len, chunks)])
    ids, fresh, kinds = table.look_up(code_points("".join(chunks)), ends[:-1], ends[1:], TAILS, rules)
    return ids.tolist(), fresh.tolist(), kinds.tolist()


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_is_described(token: str) -> None:
    table = TokenTable({})
    (index,) = table.learn([token])
    described = (int(table.lengths[index]), bool(table.is_word[index]), bool(table.is_alphabetic[index]))
    assert described == TOKENS[token]


def test_tokens_keep_their_ids_and_links() -> None:
    table = TokenTable({":": HEAD, ")": HEAD | TAIL})
    assert table.learn([")", "x", "", ":"]).tolist() == [2, 3, 0, 1]
    assert table.learn(["x", "y"], letters=True).tolist() == [3, 4]
    assert table.links.tolist() == [0, HEAD, HEAD | TAIL, 0, 0]


def test_chunks_have_ids_in_the_order_in_which_they_come() -> None:
    table = ChunkTable()
    assert looked_up(table, ["a", "b", "", "a"]) == ([1, 2, 0, 1], [0, 1], [LETTERS, LETTERS])
    assert looked_up(table, ["c", "b"]) == ([3, 2], [0], [LETTERS])


def test_plain_chunks_are_told_from_difficult_ones() -> None:
    table = ChunkTable()
    looked_up(table, ["etc"])
    chunks = ["word", "word,", "word.", "Word.", "WORD.", "a1", "etc,", ",", "a,b", "\u00e9t\u00e9,", "\u6587."]
    letters, tailed, other = LETTERS, LETTERS_AND_TAIL, DIFFICULT
    assert looked_up(table, chunks, rules=2)[2] == [
        *(letters, tailed, tailed, tailed, other, other, other, other, other, tailed, other)
    ]


def test_many_chunks_are_all_remembered() -> None:
    rng = random.Random(8)
    table, ids = ChunkTable(), {}
    for _ in range(30):
        chunks = ["".join(rng.choices("ab\u4e2d", k=rng.randint(1, 12))) for _ in range(5000)]
        for chunk, index in zip(chunks, looked_up(table, chunks)[0], strict=True):
            assert ids.setdefault(chunk, index) == index
    assert len(set(ids.values())) == len(ids) == table.size - 1


def test_a_column_grows() -> None:
    column = Column(np.int32, [7])
    for size in (1, 5000, 1, 20_000):
        column.extend(np.arange(size))
    assert column.size == len(column.values) == 25_003
    assert column.values[[0, 1, 2, 5001, 5002, 5003, -1]].tolist() == [7, 0, 0, 4999, 0, 0, 19_999]


def test_white_space_and_letters_are_pythons() -> None:
    classes = character_classes()
    codes = np.array([ord(character) for character in "a\n \u3000\u2028-1"])
    assert classes[codes].tolist() == [8, 3, 1, 1, 3, 4, 0]
