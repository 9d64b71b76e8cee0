"""Dates of birth, where the words before a date say that it is one."""

import re

from tasks.privacy.spans import Detector, Span, in_order

_WORDS = (
    r"date of birth|birth ?date|birthday|d\.?o\.?b\.?|geburtsdatum|geburtstag|geb\.|date de naissance|"
    r"fecha de nacimiento|data di nascita|data de nascimento|geboortedatum|data urodzenia|födelsedatum|fødselsdato|"
    r"syntymäaika|datum narození|születési (?:dátum|idő)|data nașterii|doğum tarihi|дата рождения|дата народження|"
    r"出生日期|出生年月日?|生年月日|생년월일|تاريخ الميلاد|जन्म तिथि"
)
_MONTH = r"[^\W\d_]{3,12}\.?"
_DATE = (
    r"(?:[0-9]{4}[-./][0-9]{1,2}[-./][0-9]{1,2}|[0-9]{1,2}[-./][0-9]{1,2}[-./](?:[0-9]{4}|[0-9]{2})|"
    rf"[0-9]{{1,2}}(?:st|nd|rd|th|\.)? (?:of |de )?{_MONTH},? (?:de )?[0-9]{{4}}|"
    rf"{_MONTH} [0-9]{{1,2}}(?:st|nd|rd|th)?,? [0-9]{{4}}|"
    r"[0-9]{4} ?年 ?[0-9]{1,2} ?月 ?[0-9]{1,2} ?日|[0-9]{4}년 ?[0-9]{1,2}월 ?[0-9]{1,2}일)(?![0-9])"
)
_BIRTH = re.compile(
    rf"(?<![^\W_])(?:{_WORDS})(?:[\s:=?()\"'：-]|\b(?:is|was|on|a|am|ist|est|es|è)\b){{0,12}}+(?P<date>{_DATE})",  # noqa: RUF001
    re.IGNORECASE,
)
_GATE = rf"(?i:{_WORDS})[^0-9]{{0,40}}[0-9]"


def find_births(text: str) -> list[Span]:
    """Spans of dates that are named dates of birth."""
    return in_order([match.span("date") for match in _BIRTH.finditer(text)])


BIRTH_DATE = Detector("birth_date", _GATE, find_births)
