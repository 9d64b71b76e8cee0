"""FineWeb's signals, counted by hand."""

import numpy as np
import pytest

from tasks.quality.fineweb import SIGNALS, measure

TEXT = "A line that is longer than thirty characters\n\nshort.\nshort.\n \nEnd!"


@pytest.mark.parametrize(
    ("signal", "expected"),
    [
        ("fineweb_lines", 4),
        ("fineweb_terminal_lines", 3 / 4),
        ("fineweb_short_lines", 3 / 4),
        ("fineweb_duplicate_characters", 6 / (len(TEXT) - 5)),
        ("fineweb_newlines_per_word", 5 / 14),
    ],
)
def test_a_signal_is_what_one_would_count(signal: str, expected: float) -> None:
    found = measure([TEXT], np.array([14]), 30)
    assert list(found) == [each.name for each in SIGNALS]
    assert found[signal].tolist() == [expected]


@pytest.mark.parametrize(
    ("line", "ends"), [("a\u3002", 1), ("a\u0964", 1), ("a\u17d4", 1), ("a\u2026", 0), ('a."', 0), ("a. ", 0)]
)
def test_a_line_ends_in_a_terminal_mark_of_any_script(line: str, ends: int) -> None:
    assert measure([line], np.array([2]), 30)["fineweb_terminal_lines"].tolist() == [ends]


def test_shares_of_nothing_are_not_defined() -> None:
    found = measure(["", " \n "], np.array([0, 0]), 30)
    assert found["fineweb_lines"].tolist() == [0, 0]
    assert np.isnan(found["fineweb_terminal_lines"]).all()
    assert np.isnan(found["fineweb_newlines_per_word"]).all()
