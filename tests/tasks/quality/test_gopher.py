"""Gopher's quality signals, counted by hand."""

import numpy as np
import pytest

from tasks.quality.gopher import ENGLISH_STOP_WORDS, SIGNALS, measure
from tasks.quality.words import word_splitter

LISTS = {"en": ENGLISH_STOP_WORDS}


def measured(text: str, language: str | None = "en") -> dict[str, float]:
    found = measure([text], word_splitter(language).split([text]), language, LISTS)
    assert list(found) == [signal.name for signal in SIGNALS]
    return {name: float(values[0]) for name, values in found.items()}


@pytest.mark.parametrize(
    ("signal", "text", "expected"),
    [
        ("nonsymbol_words", "one two three -- !!", 3),
        ("mean_word_length", "aa bbbb !!", 3.0),
        ("hash_ratio", "#a b # d", 2 / 5),
        ("ellipsis_ratio", "a ... b \u2026 c d", 2 / 6),
        ("bullet_lines", "- a\n* b\n\n\u2022 c", 2 / 4),
        ("ellipsis_lines", "a...\nb \u2026 \nc\nd", 2 / 4),
        ("alphabetic_words", "a1 2 -- b", 2 / 4),
        ("stop_words", "the the of The x", 2),
    ],
)
def test_a_signal_is_what_one_would_count(signal: str, text: str, expected: float) -> None:
    assert measured(text)[signal] == expected


def test_stop_words_are_those_of_the_language() -> None:
    text = "Der Hund und die Katze sind the best of friends"
    assert measured(text)["stop_words"] == 2
    assert measured(text, "de")["stop_words"] == 3  # und, die, sind; as written, so that Der is not der
    assert np.isnan(measured(text, None)["stop_words"])


def test_scripts_without_spaces_have_neither_word_lengths_nor_stop_words() -> None:
    found = measured("\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3002", "ja")
    assert found["nonsymbol_words"] == 6
    assert np.isnan(found["mean_word_length"])
    assert np.isnan(found["stop_words"])


def test_a_text_without_words_has_no_shares() -> None:
    found = measured("")
    assert found["nonsymbol_words"] == 0
    assert all(np.isnan(found[name]) for name in ("mean_word_length", "hash_ratio", "bullet_lines", "alphabetic_words"))
