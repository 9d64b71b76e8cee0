"""National ids by shape and checksum, or after a label; the same digits elsewhere stay."""

import pytest

from tasks.privacy.national_ids import NAMED, SHAPED, find_ids

FOUND = [
    ("SSN 219-09-9998, ssn=925-22-8758, SSN: 219099998", ["219-09-9998", "925-22-8758", "219099998"]),
    ("no label 219-09-9998", ["219-09-9998"]),
    ("SSN 94S-51-2433", ["94S-51-2433"]),
    ("ID\u00a0Number: 944-44-8144", ["944-44-8144"]),
    ("CPF 529.982.247-25", ["529.982.247-25"]),
    ("NI number: AB 12 34 56 C, AB 12 34 56 C", ["AB 12 34 56 C", "AB 12 34 56 C"]),
    ("NHS number 943 476 5919", ["943 476 5919"]),
    ("Steuer-ID: 86 095 742 719", ["86 095 742 719"]),
    ("1 85 05 78 006 084 91", ["1 85 05 78 006 084 91"]),
    ("DNI 54362315K, X2482300W", ["54362315K", "X2482300W"]),
    ("RCCMNL83S18D969H", ["RCCMNL83S18D969H"]),
    ("BSN 111222333", ["111222333"]),
    ("PESEL 44051401359", ["44051401359"]),
    ("811218-9876, 131052-308T", ["811218-9876", "131052-308T"]),
    ("CPR 211062-5629", ["211062-5629"]),
    ("15108695088; 85.07.30-033.28", ["15108695088", "85.07.30-033.28"]),
    ("BOXW310820HNERXN09", ["BOXW310820HNERXN09"]),
    ("Aadhaar: 2341 2341 2346, PAN ABCPE1234F", ["2341 2341 2346", "ABCPE1234F"]),
    ("11010519491231002X", ["11010519491231002X"]),
    ("SIN 123-456-782; TFN 123 456 782", ["123-456-782", "123 456 782"]),
    ("T.C. Kimlik No 10000000146", ["10000000146"]),
    ("ID number 8001015009087", ["8001015009087"]),
    ("Passport No. A12345678; passport: 533380006", ["A12345678", "533380006"]),
    ("Driver's License: D1234567", ["D1234567"]),
    ("National ID: NID-817791757", ["NID-817791757"]),
    ("S1234567D", ["S1234567D"]),
    ("112-233-445 95", ["112-233-445 95"]),
]
LEFT = [
    "000-12-3456, 666-12-3456, 123-45-6789-0, 1123-45-6789",
    "529.982.247-24, 943 476 5919, 111222333, 44051401359, 10000000146",
    "54362315A, X2482300A, RCCMNL83S18D969A",
    "20240131Z, 20240131-1234, 240131/1234",
    "sin 123-456-782, pan ABCPE1234F",
    "passport control 2024, License: MIT, License: GPL-3.0",
    "811218-9877, 11010519491231002Y",
    "2019-2020, 1700000000123, 3.14159265358979",
    "5f2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b",
]


def finds(text: str) -> list[str]:
    return [text[slice(*span)] for span in find_ids(text)]


@pytest.mark.parametrize(("text", "found"), FOUND)
def test_what_is_one_is_found(text: str, found: list[str]) -> None:
    assert finds(text) == found


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_one_is_left(text: str) -> None:
    assert finds(text) == []


def test_every_format_is_of_this_module() -> None:
    assert len({each.shape for each in SHAPED}) == len(SHAPED)
    assert len({(each.label, each.shape) for each in NAMED}) == len(NAMED)
