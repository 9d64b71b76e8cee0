"""Signatures are datasketch's, and shingles are those of the words that Python's own rules find."""

import re

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from datasketch import MinHash

from tasks.duplicates.minhash import MinHashSettings, band_keys, minhash
from tests.tasks.documents import prose

AWKWARD = [
    "",
    "one",
    "!!! ... ???",
    "One two, three four five!",
    "a b c d e f g a b c d e f g " * 40,
    "水車 小屋 の 話 です。これは長い文です 終わり",
    "İstanbul'da ΣΑΣ ὈΔΥΣΣΕΎΣ ΣΣ Σ. \u0130\u0130x ǅ Ⱥ_b ①² e\u0301 \U0001d7d8\U00010400 ß\x00ẞ",
    "snake_case x" + "y" * 100_000,
    None,
]


def column(texts: list[str | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(texts[:3], pa.large_string()), pa.array(texts[3:], pa.large_string())])


def shingles(text: str, ngram: int) -> set[bytes]:
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[at : at + ngram]).encode() for at in range(max(len(words) - ngram + 1, 1)) if words}


@pytest.mark.parametrize(
    "settings", [MinHashSettings(), MinHashSettings(ngram=1, bands=2, rows=3, seed=42), MinHashSettings(ngram=9)]
)
def test_signatures_and_shingles_equal_those_made_the_plain_way(settings: MinHashSettings) -> None:
    texts = [*AWKWARD, *prose()]
    signed = minhash(column(texts), settings)
    for row, text in enumerate(texts):
        expected = shingles(text or "", settings.ngram)
        reference = MinHash(settings.bands * settings.rows, seed=settings.seed, hashfunc=xxhash.xxh32_intdigest)
        reference.update_batch(expected)
        assert np.array_equal(signed.values[row], reference.hashvalues), text
        assert signed.words[row] == len(re.findall(r"\w+", (text or "").lower()))
        assert signed.distinct[row] == len(expected)
        found = signed.shingles[signed.offsets[row] : signed.offsets[row + 1]]
        assert found.tolist() == sorted(map(xxhash.xxh64_intdigest, expected))


def test_of_a_long_text_the_smallest_hashes_are_kept() -> None:
    text = " ".join(map(str, range(5000)))
    settings = MinHashSettings(max_shingles=64)
    signed = minhash(pa.chunked_array([[text]]), settings)
    assert signed.distinct.tolist() == [4996]
    assert signed.shingles.tolist() == sorted(map(xxhash.xxh64_intdigest, shingles(text, 5)))[:64]


def test_slices_and_empty_columns() -> None:
    texts = pa.chunked_array([pa.array(["x", *prose()[:4]], pa.large_string())])
    settings = MinHashSettings()
    assert np.array_equal(minhash(texts.slice(2, 2), settings).values, minhash(texts, settings).values[2:4])
    assert minhash(texts.slice(0, 0), settings).values.shape == (0, 112)


def test_bands_agree_in_their_keys_exactly_where_they_agree_in_their_values() -> None:
    settings = MinHashSettings(bands=3, rows=2)
    values = np.array([[1, 2, 3, 4, 5, 6], [1, 2, 4, 3, 5, 6], [5, 6, 3, 4, 1, 2]], np.uint32)
    keys = band_keys(values, settings)
    assert (keys[0] == keys[1]).tolist() == [True, False, True]
    assert (keys[0] == keys[2]).tolist() == [False, True, False]
    assert len(np.unique(keys)) == 6, "equal values in bands of other numbers have other keys"
