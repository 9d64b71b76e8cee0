"""Words are those that Python finds, and only distinct hashes stay."""

import re
import sys

import numpy as np
import pyarrow as pa
import pytest

from tasks.duplicates.shingles import distinct, find_words, text_buffers, word_characters


def words(text: str) -> list[str]:
    data, starts = text_buffers(pa.chunked_array([pa.array([text], pa.large_string())]))
    out, begins, ends = (
        np.zeros(2 * len(data) + 8, np.uint8),
        np.zeros(len(data) + 1, int),
        np.zeros(len(data) + 1, int),
    )
    count = find_words(data, starts[0], starts[1], word_characters(), out, begins, ends)
    found = [out[begins[at] : ends[at]].tobytes().decode() for at in range(count)]
    assert out[: ends[count - 1] if count else 0].tobytes().decode() == " ".join(found)
    return found


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ... ",
        "Don't stop_me  now42",
        "ΣΑΣ. ΣΟΦΟΣ Σ",
        "İİ İx xİ",
        "e\u0301te\u0301 हिन्दी ไทย 日本語 ǅ \U00010400 Ⱥ",
        "\x00a\x00",
    ],
)
def test_words_are_those_of_the_regular_expression(text: str) -> None:
    assert words(text) == re.findall(r"\w+", text.lower())


def test_every_character_is_lowered_and_classed_as_python_does() -> None:
    every = " ".join(f"a{chr(code)}b" for code in [*range(0xD800), *range(0xE000, sys.maxunicode + 1)] if code != 0x3A3)
    assert words(every) == re.findall(r"\w+", every.lower())


def test_distinct_values_move_to_the_front() -> None:
    values = np.array([1, 1, 2, 5, 5, 5, 9], np.uint64)
    assert distinct(values.copy(), 7, 100) == (4, 4)
    assert distinct(values, 7, 3) == (3, 4)
    assert values[:3].tolist() == [1, 2, 5]
    assert distinct(values, 0, 3) == (0, 0)
