"""Cards, IBANs and Bitcoin addresses by their checksums."""

import pytest

from tasks.privacy.payments import find_cards, find_ibans, find_wallets, valid_card, valid_iban

FOUND = [
    ("IBAN DE89 3704 0044 0532 0130 00.", ["DE89 3704 0044 0532 0130 00"]),
    ("GB82WEST12345698765432 and", ["GB82WEST12345698765432"]),
    ("FR14 2004 1010 0505 0001 3M02 606", ["FR14 2004 1010 0505 0001 3M02 606"]),
    ("iban: gb82west12345698765432", ["gb82west12345698765432"]),
    ("NO93 8601 1117 947 paid", ["NO93 8601 1117 947"]),
    ("4111 1111 1111 1111, 5500-0000-0000-0004", ["4111 1111 1111 1111", "5500-0000-0000-0004"]),
    ("378282246310005 or 3782 822463 10005", ["378282246310005", "3782 822463 10005"]),
    ("card 4111 1111 1111 1111 12/27", ["4111 1111 1111 1111"]),
    ("4111111111111111 123", ["4111111111111111"]),
    ("Order 12 4111 1111 1111 1111 93.5", ["4111 1111 1111 1111"]),
    ("2025 1234 4111 1111 1111 1111 5500 0000 0000 0004", ["4111 1111 1111 1111", "5500 0000 0000 0004"]),
    ("Visa 4222222222222", ["4222222222222"]),
    ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", ["1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"]),
    ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", ["bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"]),
    (
        "bc1p5d7rjq7g6rdk2yhzks9smlaqtedr4dekq08ge8ztwac72sfr9rusxg3297,",
        ["bc1p5d7rjq7g6rdk2yhzks9smlaqtedr4dekq08ge8ztwac72sfr9rusxg3297"],
    ),
]
LEFT = [
    "DE89 3704 0044 0532 0130 01",
    "DE89 3704 0044 0532 0130",
    "ZZ89 3704 0044 0532 0130 00",
    "gb82west12345698765432",
    "4111 1111 1111 1112",
    "1234567890123456",
    "0.4111111111111111 and 4111111111111111.5",
    "4222222222222",
    "/status/4111111111111111",
    "0000 0000 0000 0000",
    "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdp",
    "ISBN 978-3-16-148410-0, 1700000000123, 2026-11-22 12:00:00",
]


def finds(text: str) -> list[str]:
    return [text[slice(*span)] for span in [*find_ibans(text), *find_cards(text), *find_wallets(text)]]


@pytest.mark.parametrize(("text", "found"), FOUND)
def test_what_is_one_is_found(text: str, found: list[str]) -> None:
    assert finds(text) == found


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_one_is_left(text: str) -> None:
    assert finds(text) == []


def test_a_valid_iban_ends_where_its_country_says() -> None:
    assert valid_iban("DE89 3704 0044 0532 0130 00 12") == 27
    assert valid_iban("DE89 3704") is None


def test_ranges_that_other_numbers_share_need_a_name() -> None:
    assert valid_card("4111111111111111")
    assert not valid_card("4222222222222")
    assert valid_card("4222222222222", named=True)
