"""Numbers that move money: payment cards, IBANs and Bitcoin addresses, each with its checksum."""

import re
from itertools import accumulate

from stdnum import bitcoin, iban, luhn

from tasks.privacy.spans import Detector, Span, compact, in_order, labelled

_CARD_GATE = r"[0-9](?:[ \x{a0}-]?[0-9]){12}"
_CARD = re.compile(r"[0-9](?<![\d.,][0-9])(?:[ \u00a0-]?[0-9]){12,}(?!\d|[.,]\d)")
_CARD_GROUPS = ((4, 4, 4, 4), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4), (4, 4, 4, 1), (4, 3, 3, 3))
"""How the digits of a card are written in groups."""
_CARD_LABEL = re.compile(
    r"card|\bcc\b|visa|master|amex|american express|maestro|diners|discover|\bjcb\b|unionpay|\bpan\b|"
    r"kart|carte|tarjeta|cart[aã]o|carta|карт|卡|カード|카드",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"[0-9]+")
_CARDS = (
    (4, 4, (16,)),  # Visa
    (51, 55, (16,)),  # Mastercard
    (2221, 2720, (16,)),  # Mastercard
    (34, 34, (15,)),  # American Express
    (37, 37, (15,)),  # American Express
    (300, 305, (14,)),  # Diners Club
    (309, 309, (14,)),  # Diners Club
    (36, 36, (14,)),  # Diners Club
    (38, 39, (14,)),  # Diners Club
    (6011, 6011, (16, 19)),  # Discover
    (644, 659, (16, 19)),  # Discover
    (3528, 3589, (16,)),  # JCB
    (62, 62, (16, 17, 18, 19)),  # UnionPay
    (2200, 2204, (16,)),  # Mir
    (60, 60, (16,)),  # RuPay
    (81, 82, (16,)),  # RuPay
    (508, 508, (16,)),  # RuPay
    (9792, 9792, (16,)),  # Troy
)
"""Payment cards: lowest and highest prefix, lengths (ISO/IEC 7812 issuer ranges in use)."""
_LABELLED_CARDS = (
    (4, 4, (13, 19)),  # Visa's oldest, which begin as German article numbers do, and newest
    (50, 50, (12, 13, 14, 15, 16, 17, 18, 19)),  # Maestro
    (56, 69, (12, 13, 14, 15, 16, 17, 18, 19)),  # Maestro
    (3528, 3589, (17, 18, 19)),  # JCB
)
"""Ranges that many other numbers share: a word for a card must stand before."""

_IBAN_GATE = r"\b(?i:[A-Z]{2})[0-9]{2}[ \x{a0}-]?(?:(?i:[A-Z0-9])[ \x{a0}-]?){11}"
_IBAN = re.compile(r"[0-9](?<=[A-Za-z]{2}[0-9])(?<![A-Za-z0-9][A-Za-z]{2}[0-9])[0-9](?:[ \u00a0-]?[A-Za-z0-9]){11,30}")
_IBAN_LABEL = re.compile(r"\biban\b", re.IGNORECASE)
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20,
    "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29,
    "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
    "YE": 30,
}  # fmt: skip
"""IBAN length by country (SWIFT IBAN registry)."""

_WALLET_GATE = r"\b(?:[13][1-9A-HJ-NP-Za-km-z]{25,34}|(?i:bc1)[0-9A-Za-z]{11,71})\b"
_WALLET = re.compile(
    r"[13b](?<![\w/][13b])(?:[1-9A-HJ-NP-Za-km-z]{25,34}+|c1[02-9ac-hj-np-z]{11,71}+)(?!\w)"
    r"|(?<!\w)BC1[02-9AC-HJ-NP-Z]{11,71}+(?!\w)"
)


def find_cards(text: str) -> list[Span]:
    """Spans of payment card numbers: 12 to 19 digits with an issuer's prefix and a right check digit.

    Among further numbers (an expiry date, a security code) a card stands in one piece or in its usual groups.
    """
    spans: list[Span] = []
    for match in _CARD.finditer(text):
        start, end = match.span()
        named = labelled(_CARD_LABEL, text, start)
        whole = end - start <= 37 and _is_card(text, start, end, named)
        spans += [(start, end)] if whole else _cards_among(text, start, end, named)
    return spans


def _cards_among(text: str, start: int, end: int, named: bool) -> list[Span]:
    groups = [match.span() for match in _DIGITS.finditer(text, start, end)]
    spans: list[Span] = []
    for index, (begin, stop) in enumerate(groups):
        if spans and begin < spans[-1][1]:
            continue
        ends = [stop] if 13 <= stop - begin <= 19 else []
        for shape in _CARD_GROUPS:
            window = groups[index : index + len(shape)]
            if tuple(last - first for first, last in window) == shape:
                ends.append(window[-1][1])
        spans += [(begin, last) for last in ends if _is_card(text, begin, last, named)][:1]
    return spans


def _is_card(text: str, start: int, end: int, named: bool) -> bool:
    digits = "".join(filter(str.isdigit, text[start:end]))
    if not valid_card(digits, named):
        return False
    # A bare run inside a word or a path is a number of some page or file.
    return named or len(digits) < end - start or not re.match(r"[\w/#]", text[start - 1 : start])


def valid_card(digits: str, named: bool = False) -> bool:
    """Whether digits have a card network's prefix and length and Luhn's check digit (ISO/IEC 7812-1).

    With `named` the ranges count too that other numbers share.
    """
    ranges = _CARDS + _LABELLED_CARDS if named else _CARDS
    if not any(len(digits) in lengths and low <= int(digits[: len(str(low))]) <= high for low, high, lengths in ranges):
        return False
    return luhn.is_valid(digits) and len(set(digits)) > 1


def find_ibans(text: str) -> list[Span]:
    """Spans of IBANs with their country's length and shape and a right checksum."""
    spans: list[Span] = []
    for match in _IBAN.finditer(text):
        start = match.start() - 2
        length = valid_iban(text[start : match.end()], labelled(_IBAN_LABEL, text, start))
        after = text[start + (length or 0) :][:1] if length else ""
        if length and not (after.isalnum() and after.isascii()):
            spans.append((start, start + length))
    return spans


def valid_iban(candidate: str, named: bool = False) -> int | None:
    """How many characters of a candidate, spaces counted, are a valid IBAN (ISO 13616); None if they are not.

    Small letters count only where the text names it an IBAN: hexadecimal digests are full of them.
    """
    if not named and not candidate.isupper():
        candidate = re.match(r"[A-Z0-9 \u00a0-]*", candidate)[0]  # pyright: ignore[reportOptionalSubscript]
    wanted = _IBAN_LENGTHS.get(candidate[:2].upper())
    if wanted is None:
        return None
    counts = list(accumulate(character.isalnum() for character in candidate))
    if not counts or counts[-1] < wanted:
        return None
    length = counts.index(wanted) + 1
    return length if iban.is_valid(compact(candidate[:length]), check_country=False) else None


def find_wallets(text: str) -> list[Span]:
    """Spans of Bitcoin addresses (base58 with a double SHA-256, or bech32) whose checksum is right."""
    return in_order([match.span() for match in _WALLET.finditer(text) if _is_wallet(match.group())])


def _is_wallet(candidate: str) -> bool:
    return bitcoin.is_valid(candidate) or _is_taproot(candidate.lower())


def _is_taproot(address: str) -> bool:
    """Whether a bech32m address (BIP 350), which python-stdnum does not know, has a right checksum."""
    letters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    if not address.startswith("bc1p"):
        return False
    checksum = 1
    for value in [3, 3, 0, 2, 3, *map(letters.find, address[3:])]:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            checksum ^= generator if top >> bit & 1 else 0
    return checksum == 0x2BC830A3


CARD = Detector("card", _CARD_GATE, find_cards)
IBAN = Detector("iban", _IBAN_GATE, find_ibans)
WALLET = Detector("wallet", _WALLET_GATE, find_wallets)
