"""Chunks of any length are cut in time that grows with their length, and as spaCy does where special cases come in."""

import time
from typing import Any

import numpy as np
import pytest
import spacy

from tasks.quality.affix_kernels import cut
from tasks.quality.affix_rules import affix_rules
from tasks.quality.word_tables import StringTable, code_points
from tasks.quality.words import split_words

PIECES = ("(", ")", ".", "...", "'s", "a.", "(a", "5km", "-a", "a-", "\u2019", "US$", "\xb0C.")


def counts_of(chunks: list[str], special: list[str]) -> list[int]:
    """Tokens of each chunk by English rules, 0 where spaCy has to be asked."""
    table = StringTable()
    ends = np.cumsum([0, *map(len, special)])
    table.look_up(code_points("".join(special)), ends[:-1], ends[1:])
    begun = np.cumsum([0, *map(len, chunks)])
    longest = max(map(len, special), default=0)
    tokenizer: Any = spacy.blank("en").tokenizer
    rules = affix_rules(tokenizer).arrays
    return cut(code_points("".join(chunks)), begun[:-1], begun[1:], rules, table.arrays, longest)[2].tolist()


def test_a_special_case_inside_is_left_to_spacy() -> None:
    chunks = ["(qx)", "(qx.)", "(qx", "qx)", "(qxy)", "a-qx", "((qx"]
    assert counts_of(chunks, []) == [3, 4, 2, 2, 3, 3, 3]
    assert counts_of(chunks, ["qx"]) == [0, 0, 0, 0, 3, 3, 0]  # what infixes part is not looked up
    assert counts_of(chunks, ["qx)", "(qx"]) == [0, 0, 2, 2, 3, 3, 0]  # and the whole chunks are before this


def test_an_address_is_left_to_spacy_if_it_could_be_cut() -> None:
    chunks = ["a.com", "a.com/b", "a-b.com", "a-b", "(a.com).", "1.2.3.4"]
    assert counts_of(chunks, []) == [1, 0, 0, 3, 4, 1]


@pytest.mark.parametrize("piece", PIECES)
def test_time_grows_with_the_length_only(piece: str) -> None:
    chunk = piece * (200_000 // len(piece))
    started = time.process_time()
    words = split_words(chunk)
    assert time.process_time() - started < 2
    assert "".join(words) == chunk


@pytest.mark.parametrize("piece", PIECES)
def test_repeated_pieces_are_cut_as_spacy_cuts_them(piece: str) -> None:
    tokenizer: Any = spacy.blank("en").tokenizer
    for chunk in (piece * 40, f"{piece * 20}word{piece * 20}", f"9{piece * 20}9"):
        assert split_words(chunk) == [token.text for token in tokenizer(chunk)]
