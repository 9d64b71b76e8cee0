"""Phrases: what words are, where phrases are found, and that equal hashes are not enough."""

import random

import numpy as np
import pyarrow as pa
import pytest

from tasks.phrases.finder import Phrases, find, phrase_hashes, phrases, words_of

TEXT = "Don\u2019t stop: the MILL's wheel—Größe 3.14, soft\u00adhyphen; 水車は 👍👍 कि ไทย ǅ Ⱥ\u0301"


def ready(*terms: str) -> Phrases:
    words = words_of(terms)
    counts = np.diff(words.offsets)
    hashes = phrase_hashes(words, words.offsets[:-1], counts)
    order = np.argsort(hashes)
    firsts, lasts = words.offsets[:-1][order], words.offsets[1:][order] - 1
    return phrases(words.data, hashes[order], words.starts[firsts], words.ends[lasts], np.unique(counts))


def spelled(text: str) -> list[str]:
    words = words_of([text])
    return [words.data[start:end].tobytes().decode() for start, end in zip(words.starts, words.ends, strict=True)]


def found(wanted: Phrases, *texts: str) -> list[tuple[int, str, int]]:
    """Text, what stands there, number of the first word."""
    hits = find(list(texts), wanted, 1000)
    places = zip(*(column.tolist() for column in (hits.text, hits.start, hits.end, hits.word)), strict=True)
    return [(text, texts[text].encode()[start:end].decode(), word) for text, start, end, word in places]


def test_words_are_letters_and_digits_in_lower_case() -> None:
    assert spelled(TEXT) == [
        *("don", "t", "stop", "the", "mill", "s", "wheel", "größe", "3", "14", "softhyphen"),
        *("水", "車", "は", "👍", "👍", "कि", "ไ", "ท", "ย", "ǆ", "ⱥ\u0301"),
    ]


def test_phrases_are_found_with_their_places() -> None:
    wanted = ready("the mill s", "wheel", "水車", "👍", "größe 3")
    assert found(wanted, "nothing", TEXT) == [
        (1, "the MILL's", 3),
        (1, "wheel", 6),
        (1, "Größe 3", 7),
        (1, "水車", 11),
        (1, "👍", 14),
        (1, "👍", 15),
    ]
    assert found(ready("mill wheel"), "the mill", "wheel") == []


def test_every_place_is_found_that_a_plain_search_finds() -> None:
    random.seed(0)
    texts = ["".join(random.choice("ab 水é,") for _ in range(random.randrange(40))) for _ in range(300)]
    terms = sorted({" ".join(spelled(text)[:3]) for text in texts[:40]} - {""})
    expected = [
        (index, place)
        for index, words in enumerate(map(spelled, texts))
        for place in range(len(words))
        for term in terms
        if words[place : place + len(term.split())] == term.split()
    ]
    hits = find(texts, ready(*terms), 1000)
    assert sorted(zip(hits.text.tolist(), hits.word.tolist(), strict=True)) == sorted(expected)
    assert hits.words.tolist() == [len(spelled(text)) for text in texts]


def test_equal_hashes_of_other_words_match_nothing() -> None:
    wanted = ready("one two")
    other = ready("two three")
    forged = wanted._replace(data=other.data, starts=other.starts, ends=other.ends)
    assert found(wanted, "one two three") == [(0, "one two", 0)]
    assert found(forged, "one two three") == []


def test_phrases_of_one_hash_are_all_looked_at() -> None:
    one = ready("one two")
    starts, ends = np.array([4, *one.starts]), np.array([*one.ends, *one.ends])
    both = phrases(one.data, np.repeat(one.hashes, 2), starts, ends, one.lengths)
    assert find(["one two"], both, 10).phrase.tolist() == [1]


def test_a_text_with_too_many_hits_is_read_no_further() -> None:
    hits = find(["a " * 100, "a b"], ready("a"), 10)
    assert np.bincount(hits.text).tolist() == [10, 1]
    assert hits.words.tolist() == [10, 2]


@pytest.mark.parametrize("texts", [[], [""], ["", "...", ""]])
def test_texts_without_words_have_no_phrases(texts: list[str]) -> None:
    hits = find(texts, ready("a"), 10)
    assert len(hits.text) == 0
    assert hits.words.tolist() == [0] * len(texts)


def test_no_phrases_find_nothing_and_slices_of_arrow_columns_are_read_where_they_lie() -> None:
    empty = np.zeros(0, np.int64)
    nothing = phrases(np.zeros(0, np.uint8), np.zeros(0, np.uint64), empty, empty, empty)
    assert len(find(["a b"], nothing, 10).text) == 0
    column = pa.chunked_array([["skip", "a mill"], ["mill", None]], pa.large_string())
    assert find(column.slice(1), ready("mill"), 10).text.tolist() == [0, 1]
