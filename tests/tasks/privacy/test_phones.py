"""Telephone numbers by country code, label or region; sums, dates and catalogue numbers stay."""

import pytest

from tasks.privacy.phones import find_phones

FOUND = [
    ("call +1 (234) 817-8325 now", ["+1 (234) 817-8325"]),
    ("(415) 555-2671 or 415-555-2671", ["(415) 555-2671", "415-555-2671"]),
    ("415 555 2671, 415.555.2671, 1-800-555-0199", ["415 555 2671", "415.555.2671", "1-800-555-0199"]),
    ("+49 30 901820 +44 20 7946 0018", ["+49 30 901820", "+44 20 7946 0018"]),
    ("Tel: 030 901820; Fax 0541 300821", ["030 901820", "0541 300821"]),
    ("Phone 4155552671, tel:4155552671", ["4155552671", "4155552671"]),
    ("手机\uff1a13812345678 举报电话\uff1a010-62675637", ["13812345678", "010-62675637"]),
    ("тел. 8 (495) 123-45-67", ["8 (495) 123-45-67"]),
    ("&phone=+1 (403) 783-4340&x", ["+1 (403) 783-4340"]),
    ("by Phone 1-877-809-1659 (30 Day", ["1-877-809-1659"]),
]
LEFT = [
    "ISBN 978-3-16-148410-0, 2026-11-22 12:00:00, 1234567890",
    "pi is 3.14159265358979, 1 000 000 people, 1.3244637524",
    "+1 000 000 or +49 000 and C++ 11 2011 1234567",
    "030 901820, 4155552671",
    "doi:10.1145/3292500.3330701 arXiv:2101.00001 RFC 2616",
    "2019-2020, 2020/2021, 10.000.000, CAS 7732-18-5",
    "ISSN 2049-3630, 0-306-40615-2, order no. 415-555-2671",
    "Windows Phone 8.1.12397.895",
    "$415.555.2671, 123-456-7890",
]


def finds(text: str) -> list[str]:
    return [text[slice(*span)] for span in find_phones(text, ("US",))]


@pytest.mark.parametrize(("text", "found"), FOUND)
def test_what_is_one_is_found(text: str, found: list[str]) -> None:
    assert finds(text) == found


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_one_is_left(text: str) -> None:
    assert finds(text) == []


def test_numbers_without_a_country_code_are_those_of_the_chosen_regions() -> None:
    text = "030 901820 and 415-555-2671"
    assert find_phones(text, ("DE",)) == [(0, 10)]
    assert find_phones(text, ("US",)) == [(15, 27)]
    assert find_phones(text, ("DE", "CA", "US")) == [(0, 10), (15, 27)]
    assert find_phones(text, ()) == []


@pytest.mark.parametrize(
    ("region", "number"),
    [
        ("GB", "020 7946 0018"),
        ("FR", "01 42 68 53 00"),
        ("ES", "912 34 56 78"),
        ("JP", "03-1234-5678"),
        ("BR", "(11) 91234-5678"),
    ],
)
def test_regions_write_their_numbers_as_they_do(region: str, number: str) -> None:
    text = f"x {number} y"
    assert [text[slice(*span)] for span in find_phones(text, (region,))] == [number]
