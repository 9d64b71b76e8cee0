"""Telephone numbers: after a + or a word for telephone anywhere, otherwise as the chosen regions write them.

libphonenumber knows every region's numbers and groupings; North America's single grouping (3-3-4) is recognised
without it, whatever the area code. A bare run of digits is a number of some other kind far more often and counts only
after a +, a word for telephone or `tel:`.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import phonenumbers
from phonenumbers import Leniency, PhoneNumberMatcher

from tasks.privacy.spans import Detector, Span, in_order, labelled

# Digits as they are typed: ASCII, Arabic, Persian, Devanagari, full width.
_D = "[0-9\u0660-\u0669\u06f0-\u06f9\u0966-\u096f\uff10-\uff19]"
_S = "[ \\t\u00a0\u202f\u2009()./\\[\\]\u2010-\u2015\u00ad\uff0d\u2212-]"
PHONE_GATE = f"(?:{_D}{_S}{{0,3}}){{6}}{_D}"
_NUMBER = re.compile(rf"{_D}(?:{_S}{{0,3}}{_D}){{6,}}+")
_PLUS = re.compile(rf"[+\uff0b](?<![\w+][+\uff0b])[ (]{{0,2}}{_D}(?:{_S}{{0,3}}{_D}){{6,17}}+")
_LONGEST = 60
"""Characters of one number with its separators; a longer run is a table, and only its labelled begin is read."""

_NANP = re.compile(
    r"(?<![\w.,/+$€£-])(?:1[ .-]?)?(?:\([0-9]{3}\) ?-?[0-9]{3}[ .-][0-9]{4}"
    r"|[2-9][0-9]{2}(?P<s>[.-])[0-9]{3}(?P=s)[0-9]{4}|(?P<loose>[2-9][0-9]{2}[ /][2-9][0-9]{2}[ -][0-9]{4}))"
    r"(?![\w-]|[.,/][0-9])"
)
_NANP_AFTER_PLUS = re.compile(r"[+\uff0b] ?1[ .-]?(?:\([0-9]{3}\)|[0-9]{3})[ .-]?[0-9]{3}[ .-]?[0-9]{4}(?!\d)")
_THOUSANDS = re.compile(r"[+\uff0b][0-9]{1,3}(?:([ .\u00a0\u202f])[0-9]{3})(?:\1[0-9]{3})*")
_LABEL = re.compile(
    r"(?:(?:(?<![\w-])(?:tel|telephone|phone|phones|ph|mobile|mob|cell ?phone|fax|telefax|facsimile|whatsapp|hotline|"
    r"toll[- ]free|telefon|telefonnummer|telefoon|telefono|teléfono|telefone|téléphone|tél|tlf|puh|puhelin|"
    r"handy|mobil|mobiltelefon|móvil|celular|cellulare|gsm|sms|viber|telegram|rufnummer|fon|"
    r"тел|телефон|моб|факс|τηλ|טלפון|هاتف|جوال|फोन|फ़ोन|điện thoại)|โทร|電話|电话|手机|传真|전화|휴대폰)"
    r"(?: ?(?:no|nr|num|number|nummer|numéro|número|n[°º]))?[.)\]]{0,2}\s{0,2}(?:[:=：#]|is\b|at\b|-)?[\"']?\s{0,2}|"  # noqa: RUF001
    r"\btel:|&phone=)[(+]?$",
    re.IGNORECASE,
)
_OTHER_LABEL = re.compile(
    r"(?:isbn(?:-1[03])?|issn|ean|upc|gtin|doi|arxiv|pmid|pmc|oclc|lccn|asin|sku|version|ver\.?|v|release|build|isin|"
    r"imei|serial|s/n|part|model|patent|ref|order|invoice|ticket|bug|issue|rfc|iso|iec|din|article|art\.?|id|no\.|"
    r"nhs(?: number)?|ssn|vat|tin|tax|account|acct|konto|kto|blz|swift|bic|uid|hrb|reg|case|docket)[\s:#=.(-]{0,3}$|"
    r"[$€£¥₹#§]\s?$|[\w/_=&%-]$|[0-9][,.:]$",
    re.IGNORECASE,
)
_UNIT_AFTER = re.compile(
    r"\s?(?:%|°|€|\$|£|¥|₹|[kKMGT]?i?[BW]h?\b|[mck]?m[²³]?\b|kg\b|g\b|[ap]\.?m\b|px\b|euro|usd|eur|dollar|people|"
    r"million|million|years?\b)|[\w/=%-]|[.,:][0-9]"
)
_PLAIN = re.compile(rf"{_D}+(?:[.,]{_D}+)?|{_D}{{1,3}}(?:([., ]){_D}{{3}})(?:\\1{_D}{{3}})*")
"""Bare digits, a decimal, or a number in thousands."""
_VERSION = re.compile(r"[0-9]\.[0-9]{1,2}\.")
_DATE = re.compile(
    r"(?<![0-9])(?:(?:1[5-9]|20)[0-9]{2}([-./ ])(?:0?[1-9]|1[0-2])\1(?:0?[1-9]|[12][0-9]|3[01])|"
    r"(?:0?[1-9]|[12][0-9]|3[01])([-./ ])(?:0?[1-9]|[12][0-9]|3[01])\2(?:1[5-9]|20)[0-9]{2}|"
    r"(?:1[5-9]|20)[0-9]{2} ?[-\u2013/] ?(?:1[5-9]|20)[0-9]{2})(?![0-9])"
)


def find_phones(text: str, regions: Sequence[str]) -> list[Span]:
    """Spans of telephone numbers.

    Args:
        text: the text.
        regions: regions (ISO 3166) whose numbers are found without a country code.

    """
    spans = [span for match in _PLUS.finditer(text) if (span := _after_plus(text, match))]
    others = [region for region in regions if phonenumbers.country_code_for_region(region) != 1]
    for match in _NUMBER.finditer(text):
        start = match.start() - (text[match.start() - 1 : match.start()] in ("(", "["))
        american = _american(text, start, match.end()) if len(others) < len(regions) else []
        spans += american or _grouped(text, start, match.end(), others)
    return in_order(spans)


def _american(text: str, start: int, end: int) -> list[Span]:
    """Numbers as North America groups them; those with spaces alone must be in use, and none may be named otherwise."""
    return [
        match.span()
        for match in _NANP.finditer(text, start, min(len(text), end + 2))
        if (match["loose"] is None or _matches(match["loose"], "US", Leniency.VALID))
        and not labelled(_OTHER_LABEL, text, match.start(), 16)
    ]


def _after_plus(text: str, match: re.Match[str]) -> Span | None:
    """An international number; one that reads as a sum of money in thousands must be in use somewhere."""
    start, end = match.span()
    if found := _NANP_AFTER_PLUS.match(text, start):
        return found.span()
    number = _first(match.group(), None, Leniency.POSSIBLE)
    if number is None or number[0] > 0:
        return None
    end = start + number[1]
    if _THOUSANDS.fullmatch(text, start, end) or _UNIT_AFTER.match(text, end):
        return (start, end) if _first(match.group(), None, Leniency.VALID) == number else None
    return start, end


def _grouped(text: str, start: int, stop: int, regions: Sequence[str]) -> list[Span]:
    """Numbers of some regions, or of any kind after a word for telephone, in a run of digits and separators."""
    end = min(stop, start + _LONGEST)
    if labelled(_LABEL, text, start, 32):
        labelled_number = _labelled_number(text, start, end, regions)
        if labelled_number:
            return [labelled_number]
    if stop > end or not regions or _PLAIN.fullmatch(text, start, end):
        return []
    if labelled(_OTHER_LABEL, text, start, 16) or _UNIT_AFTER.match(text, end) or _DATE.search(text, start, end):
        return []
    return [
        (start + first, start + last)
        for region in regions
        for first, last in _matches(text[start:end], region, Leniency.STRICT_GROUPING)
        if not text[start + first : start + last].isdecimal()
    ]


def _labelled_number(text: str, start: int, end: int, regions: Sequence[str]) -> Span | None:
    """What a word for telephone names: a number of the regions, or seven to fifteen digits that are no date."""
    for region, leniency in [*((region, Leniency.VALID) for region in regions), ("US", Leniency.VALID)]:
        number = _first(text[start:end], region, leniency)
        if number and number[0] <= 1:
            return start, start + number[1]
    if (
        _DATE.match(text, start)
        or _VERSION.match(text, start)
        or sum(map(str.isdecimal, text[start:end])) > 15
        or _UNIT_AFTER.match(text, end)
    ):
        return None
    return start, end


def _first(window: str, region: str | None, leniency: int) -> Span | None:
    return next(iter(_matches(window, region, leniency)), None)


def _matches(window: str, region: str | None, leniency: int) -> list[Span]:
    matcher = PhoneNumberMatcher(window, cast("Any", region), cast("Any", leniency), 64)
    return [(match.start, match.end) for match in matcher]


def phone_detector(regions: Sequence[str]) -> Detector:
    """The detector of numbers that are written with a country code or as some regions do."""
    return Detector("phone", PHONE_GATE, partial(find_phones, regions=tuple(regions)))
