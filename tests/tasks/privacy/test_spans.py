"""What the finders share: spans in order, and labels before values."""

import re

from tasks.privacy.spans import compact, in_order, labelled


def test_of_overlapping_spans_the_first_and_longest_stays() -> None:
    assert in_order([(5, 9), (0, 3), (0, 4), (3, 6), (9, 10)]) == [(0, 4), (5, 9), (9, 10)]


def test_labels_stand_before_within_reach() -> None:
    label = re.compile(r"\btel\b")
    assert labelled(label, "tel 123", 4)
    assert not labelled(label, "123 tel", 0)
    assert not labelled(label, "tel" + " " * 50 + "123", 53)
    assert labelled(label, "tel" + " " * 50 + "123", 53, reach=60)


def test_compact_keeps_letters_and_digits_in_capitals() -> None:
    assert compact("de89 3704-0044") == "DE8937040044"
