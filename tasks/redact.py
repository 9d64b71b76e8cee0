"""Redact: personal data becomes a fixed tag, and what looks like it but fails its checksum stays.

E-mail addresses, public IP addresses, telephone numbers (libphonenumber's own validity rules), payment cards
(ISO/IEC 7812 with Luhn's check digit) and IBANs (ISO 13616 with its mod-97 check). Tags are the same for every
match, so a document's bytes never depend on what its worker saw before. Each finder looks for a cheap sign first,
because most documents hold nothing to find.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from typing import Literal

import phonenumbers
import pyarrow as pa

from infra.schema import DOCUMENTS
from infra.settings import Settings
from tasks.stage import Split, Stage, texts

REDACT = Stage("redact", 1, libraries=("pyarrow", "phonenumbers"), private=False)
Kind = Literal["email", "ip", "iban", "card", "phone"]

_EMAIL = re.compile(
    # Letters of any script (RFC 6531), and the @ as it stands in query strings.
    r"(?<![\w.+-])\w(?:[\w.+-]{0,62}[\w+-])?(?:@|%40)(?:\w(?:[\w-]{0,61}\w)?\.)+[^\W\d_]{2,24}(?![\w-])"
)
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:]|\.\d)")
_CARD = re.compile(r"(?<![\d.,])\d(?:[ -]?\d){12,}(?!\d|[.,]\d)")
_CARD_GROUPS = ((4, 4, 4, 4), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4))
"""How the digits of a card are written in groups."""
_DIGITS = re.compile(r"\d+")
_IBAN = re.compile(r"(?<![A-Z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![A-Z0-9])")
_LONG_NUMBER = re.compile(r"\d(?:[\s().+/\[\]\u2010-\u2015\u00ad\uff0d-]{0,3}\d){6,}")
_PHONE_CONTEXT = 40
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15,
    "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24, "SI": 19,
    "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
"""IBAN length by country (SWIFT IBAN registry)."""

_CARDS = (
    (4, 4, (13, 16, 19)),  # Visa
    (51, 55, (16,)),  # Mastercard
    (2221, 2720, (16,)),  # Mastercard
    (34, 34, (15,)),  # American Express
    (37, 37, (15,)),  # American Express
    (300, 305, (14,)),  # Diners Club
    (36, 36, (14,)),  # Diners Club
    (38, 39, (14,)),  # Diners Club
    (6011, 6011, (16, 19)),  # Discover
    (644, 659, (16, 19)),  # Discover
    (3528, 3589, (16, 19)),  # JCB
    (62, 62, (16, 17, 18, 19)),  # UnionPay
)
"""Payment cards: lowest and highest prefix, lengths (ISO/IEC 7812 issuer ranges in use)."""


class RedactSettings(Settings):
    """Which kinds of personal data are replaced."""

    kinds: tuple[Kind, ...] = ("email", "ip", "iban", "card", "phone")
    """Kinds to replace, each by its tag such as <EMAIL>."""
    phone_regions: tuple[str, ...] = ("US",)
    """Regions whose numbers are found without a country code; numbers that start with + are always found."""


def redact(table: pa.Table, settings: RedactSettings) -> Split:
    """Replace personal data in each text; drops nothing. Counters: redacted_<kind> and redacted_documents."""
    counts: Counter[str] = Counter()
    clean_texts: list[str] = []
    for text in texts(table):
        clean, found = redact_text(text, settings)
        clean_texts.append(clean)
        counts.update({f"redacted_{kind}": number for kind, number in found.items()})
        counts["redacted_documents"] += bool(found)
        counts["text_bytes"] += len(clean.encode())
    column = pa.array(clean_texts, pa.large_string())
    return Split(table.set_column(table.column_names.index("text"), DOCUMENTS.field("text"), column), counters=counts)


def redact_text(text: str, settings: RedactSettings) -> tuple[str, dict[str, int]]:
    """A text with tags in place of personal data, and how many of each kind were replaced."""
    found: dict[str, int] = {}
    for kind in settings.kinds:
        spans = FINDERS[kind](text, settings)
        if spans:
            found[kind] = len(spans)
            text = replace(text, spans, f"<{kind.upper()}>")
    return text, found


def replace(text: str, spans: list[tuple[int, int]], tag: str) -> str:
    """Put a tag in place of each span; spans are in order and do not overlap."""
    parts, end = [], 0
    for start, stop in spans:
        parts += [text[end:start], tag]
        end = stop
    return "".join([*parts, text[end:]])


def find_emails(text: str, _: RedactSettings) -> list[tuple[int, int]]:
    """Spans of e-mail addresses."""
    return [match.span() for match in _EMAIL.finditer(text)] if "@" in text or "%40" in text else []


def find_ips(text: str, _: RedactSettings) -> list[tuple[int, int]]:
    """Spans of IPv4 and IPv6 addresses that are public: private, loopback and documentation ranges name nobody.

    Dotted quads of fewer than six digits are taken for the section and version numbers that they mostly are.
    """
    quads = [match for match in _IPV4.finditer(text) if sum(map(str.isdigit, match.group())) >= 6]
    groups = [match for match in _IPV6.finditer(text) if len(match.group().replace(":", " ").split()) >= 3]
    return sorted(match.span() for match in [*quads, *groups] if _is_public(match.group()))


def find_ibans(text: str, _: RedactSettings) -> list[tuple[int, int]]:
    """Spans of IBANs with the length of their country and a right checksum."""
    candidates = ((match.start(), valid_iban(match.group())) for match in _IBAN.finditer(text))
    return [(start, start + length) for start, length in candidates if length]


def valid_iban(candidate: str) -> int | None:
    """How many characters of a candidate, spaces counted, are a valid IBAN (ISO 13616); None if they are not."""
    wanted = _IBAN_LENGTHS.get(candidate[:2])
    if wanted is None:
        return None
    compact, length = "", 0
    for length, character in enumerate(candidate, 1):  # noqa: B007 - the length where the IBAN is complete
        compact += character.strip()
        if len(compact) == wanted:
            break
    if len(compact) != wanted:
        return None
    digits = "".join(str(int(character, 36)) for character in compact[4:] + compact[:4])
    return length if int(digits) % 97 == 1 else None


def find_cards(text: str, _: RedactSettings) -> list[tuple[int, int]]:
    """Spans of payment card numbers: 13 to 19 digits with an issuer's prefix and a right check digit.

    Among further numbers (an expiry date, a security code) a card stands in one piece or in its usual groups.
    """
    spans: list[tuple[int, int]] = []
    for match in _CARD.finditer(text):
        spans += [match.span()] if valid_card(match.group()) else _cards_among(text, match.start(), match.end())
    return spans


def _cards_among(text: str, start: int, end: int) -> list[tuple[int, int]]:
    groups = [match.span() for match in _DIGITS.finditer(text, start, end)]
    spans: list[tuple[int, int]] = []
    for index, (begin, stop) in enumerate(groups):
        if spans and begin < spans[-1][1]:
            continue
        ends = [stop] if 13 <= stop - begin <= 19 else []
        for shape in _CARD_GROUPS:
            window = groups[index : index + len(shape)]
            if tuple(last - first for first, last in window) == shape:
                ends.append(window[-1][1])
        spans += [(begin, last) for last in ends if valid_card(text[begin:last])][:1]
    return spans


def valid_card(candidate: str) -> bool:
    """Whether digits have a card network's prefix and length and Luhn's check digit (ISO/IEC 7812-1)."""
    digits = "".join(filter(str.isdigit, candidate))
    if not any(len(digits) in lengths and low <= int(digits[: len(str(low))]) <= high for low, high, lengths in _CARDS):
        return False
    values = [int(digit) for digit in digits]
    doubled = [sum(divmod(2 * value, 10)) for value in values[-2::-2]]
    return (sum(values[-1::-2]) + sum(doubled)) % 10 == 0


def find_phones(text: str, settings: RedactSettings) -> list[tuple[int, int]]:
    """Spans of telephone numbers: after a +, those of possible length; otherwise those written as a region does.

    libphonenumber reads only the surroundings of long numbers, since it takes longer over a text than all else here.
    """
    spans: set[tuple[int, int]] = set()
    for start, end in _number_windows(text):
        window = text[start:end]
        for region in settings.phone_regions:
            matcher = phonenumbers.PhoneNumberMatcher(window, region, phonenumbers.Leniency.STRICT_GROUPING, 1 << 16)
            # A bare run of digits is a number of some other kind far more often.
            spans |= {(start + m.start, start + m.end) for m in matcher if not m.raw_string.isdigit()}
        if "+" in window or "\uff0b" in window:
            matcher = phonenumbers.PhoneNumberMatcher(window, None, phonenumbers.Leniency.POSSIBLE, 1 << 16)
            spans |= {(start + m.start, start + m.end) for m in matcher}
    return _without_overlaps(sorted(spans))


def _number_windows(text: str) -> list[tuple[int, int]]:
    """Stretches around numbers of seven digits or more that are grouped or follow a +; neighbours are joined."""
    windows: list[tuple[int, int]] = []
    for match in _LONG_NUMBER.finditer(text):
        start, end = max(0, match.start() - _PHONE_CONTEXT), match.end() + _PHONE_CONTEXT
        if match.group().isdigit() and not set("+\uff0b") & set(text[start : match.start()]):
            continue
        if windows and start <= windows[-1][1]:
            start = windows.pop()[0]
        windows.append((start, end))
    return windows


def _without_overlaps(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The first of any spans that overlap."""
    chosen: list[tuple[int, int]] = []
    for span in spans:
        if not chosen or span[0] >= chosen[-1][1]:
            chosen.append(span)
    return chosen


def _is_public(candidate: str) -> bool:
    try:
        return ipaddress.ip_address(candidate).is_global
    except ValueError:
        return False


FINDERS: dict[str, Callable[[str, RedactSettings], list[tuple[int, int]]]] = {
    "email": find_emails,
    "ip": find_ips,
    "iban": find_ibans,
    "card": find_cards,
    "phone": find_phones,
}
