"""Dates that are named dates of birth; other dates stay."""

import pytest

from tasks.privacy.birth_dates import find_births

FOUND = [
    ("Date of birth: 1980-05-12.", ["1980-05-12"]),
    ("DOB 05/12/1980", ["05/12/1980"]),
    ("Q: And your date of birth?\nA: 1985-01-18.", ["1985-01-18"]),
    ("Geburtsdatum: 12.05.1980", ["12.05.1980"]),
    ("fecha de nacimiento: 12 de mayo de 1980", ["12 de mayo de 1980"]),
    ("birthday is May 12, 1980", ["May 12, 1980"]),
    ("出生日期\uff1a1980年5月12日", ["1980年5月12日"]),
]
LEFT = [
    "founded 12 May 1980",
    "date of birth unknown, 1980-05-12",
    "the birth of 1980-05-12",
    "",
]


def finds(text: str) -> list[str]:
    return [text[slice(*span)] for span in find_births(text)]


@pytest.mark.parametrize(("text", "found"), FOUND)
def test_what_is_one_is_found(text: str, found: list[str]) -> None:
    assert finds(text) == found


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_one_is_left(text: str) -> None:
    assert finds(text) == []
