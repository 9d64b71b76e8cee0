"""Repetition: against a plain count of strings, and by hand."""

import random
import re
from collections import Counter

import numpy as np
import pytest

from tasks.quality.repetition import DUPLICATED, SIGNALS, TOP, duplicates, lines_of, measure, paragraphs_of
from tasks.quality.words import split_words, word_splitter


def measured(*texts: str) -> dict[str, list[float]]:
    found = measure(texts, word_splitter("en").split(texts))
    assert list(found) == [signal.name for signal in SIGNALS]
    return {name: values.tolist() for name, values in found.items()}


def plain_top(words: list[str], n: int) -> float | None:
    """Characters of the most frequent n-gram, spaces counted, times its occurrences."""
    grams = [" ".join(words[at : at + n]) for at in range(len(words) - n + 1)]
    if not grams:
        return None
    gram, count = Counter(grams).most_common(1)[0]
    return len(gram) * count


def plain_repeated(words: list[str], n: int) -> int:
    """Characters of n-grams that stood before, spaces not counted; a repeated one is stepped over."""
    seen: set[str] = set()
    at = total = 0
    while at <= len(words) - n:
        gram = "".join(words[at : at + n])
        total += len(gram) * (gram in seen)
        at += n if gram in seen else 1
        seen.add(gram)
    return total


def test_ngrams_are_those_of_a_plain_count() -> None:
    rng = random.Random(5)
    vocabulary = ["a", "b", "ab", "ba", "-", "word", "x.y", "\u00e9", "\U0001f600"]
    texts = [" ".join(rng.choices(vocabulary[: rng.randint(1, 9)], k=rng.randint(1, 120))) for _ in range(400)]
    found = measured(*texts)
    for row, text in enumerate(texts):
        words = split_words(text)
        for n in TOP:
            expected = plain_top(words, n)
            ours = found[f"top_{n}_gram"][row]
            assert np.isnan(ours) if expected is None else ours == expected / len(text), text
        for n in DUPLICATED:
            assert found[f"duplicate_{n}_grams"][row] == plain_repeated(words, n) / len(text), text


def test_ngrams_are_the_same_if_their_words_joined_are() -> None:
    text = "ab cd ef gh ij | a bcd ef gh ij"
    assert measured(text)["duplicate_5_grams"] == [10 / len(text)]


def test_ngrams_with_the_same_hash_are_not_the_same() -> None:
    one, other = "a", "b"
    for _ in range(11):  # Thue and Morse's sequence: every polynomial hash modulo 2^64 takes these two for the same
        one, other = one + other, other + one
    table = word_splitter("en").table
    first, second = table.learn([one, other])
    assert table.hashes[first] == table.hashes[second]
    text = f"{one} c d e f, {other} c d e f, {one} c d e f"
    assert measured(text)["duplicate_5_grams"] == [len("cdef," + one + "cdef") / len(text)]


def test_lines_and_paragraphs_by_hand() -> None:
    text = "aa\nb\naa\n\nb b\n\n\nb b"
    found = {name: values[0] for name, values in measured(text).items()}
    assert found["duplicate_paragraphs"] == 1 / 3
    assert found["duplicate_paragraph_characters"] == 3 / len(text)
    assert found["duplicate_lines"] == 2 / 5
    assert found["duplicate_line_characters"] == 5 / len(text)


def test_text_is_cut_as_expressions_would_cut_it() -> None:
    rng = random.Random(6)
    for _ in range(3000):
        text = "".join(rng.choices(["\n", "\n", "\n\n", " ", "a", "b\t", "\r", "\x0b"], k=rng.randint(0, 12)))
        assert lines_of(text) == re.split(r"\n+", text)
        assert paragraphs_of(text) == re.split(r"\n{2,}", text.strip())


@pytest.mark.parametrize(
    ("items", "expected"),
    [(["a", "b"], (0.0, 0)), (["aa", "aa", "b"], (1 / 3, 2)), ([""], (0.0, 0)), (["", ""], (0.5, 0))],
)
def test_duplicates_count_from_the_second_on(items: list[str], expected: tuple[float, int]) -> None:
    assert duplicates(items) == expected


def test_an_empty_text_has_no_shares() -> None:
    assert all(np.isnan(values[0]) for values in measured("").values())


def test_text_without_an_ngram_has_none() -> None:
    found = measured("one two")
    assert found["top_2_gram"] == [1.0]
    assert np.isnan(found["top_3_gram"][0])
    assert found["duplicate_5_grams"] == [0.0]
