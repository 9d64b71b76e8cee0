"""Coordinates that tell a street or a house: pairs of degrees with four decimals (11 m) or more, or with minutes.

Two decimals side by side are mostly measurements, so a bare pair counts only where nothing else is listed with it, a
comma divides it and both have whole degrees; what is labelled, names hemispheres or stands in a map's link needs less.
"""

import re

from tasks.privacy.spans import Detector, Span, in_order, labelled

_GATE = (
    r"\.[0-9]{4,15}(?:[^0-9.]{1,32}|%2C[+-]?)[0-9]{1,3}\.[0-9]{4}|[0-9] ?[°º˚] ?[0-9]|"
    r"geo:[+-]?[0-9]"
)
_PAIR = re.compile(
    r"[0-9](?<![\w.][0-9])[0-9]{0,2}\.[0-9]{4,15}(?![0-9])[°º]?\s?(?P<north>[NS]\b)?"
    r"(?P<between>\s{0,3}(?:[,;/|&+]|%2C)?\s{0,3}[\"']?(?:\b(?:lon|long|lng|longitude)\b[\"']?\s?[:=]\s?[\"']?)?)"
    r"(?P<second>[-+\u2212]?[0-9]{1,3}\.[0-9]{4,15})(?![0-9])[°º]?(?:\s?(?P<east>[EWO])\b)?",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"\b(?:lat|latitude|latitud|latlng|latlon|lon|lng|longitude|coords?|coordinates?|coordenadas|coordonnées|"
    r"koordinaten|coordinate|gps|geo|location|located|maps?)\b|[?&](?:q|ll|sll|center|loc)=-?$|/@-?$|"
    r"координат|坐标|座標",
    re.IGNORECASE,
)
_LIST_BEFORE = re.compile(r"[0-9]\s{0,2}[,;]\s{0,2}[-+\u2212]?$")
_LIST_AFTER = re.compile(r"\s{0,2}[,;]\s{0,2}[-+\u2212]?[0-9]+\.[0-9]")
_MINUTES = (
    r"\s?[°º˚]\s?[0-9]{1,2}(?:\s?['′’ʹ´]\s?[0-9]{1,2}(?:[.,][0-9]{1,8})?\s?(?:[\"″”“]|['′’ʹ´]{2})?"  # noqa: RUF001
    r"|\.[0-9]{2,8}\s?['′’ʹ´]?)\s?"  # noqa: RUF001
)
_SEXAGESIMAL = re.compile(
    rf"[0-9](?<![\w.][0-9])[0-9]?{_MINUTES}[NS]\b[\s,;/]{{0,3}}[0-9]{{1,3}}{_MINUTES}[EWO]\b"
    rf"|[NS](?<!\w[NS])\s?[0-9]{{1,2}}{_MINUTES}[\s,;/]{{0,3}}[EWO]\s?[0-9]{{1,3}}{_MINUTES}(?<!\s)"
)
_URI = re.compile(r"\bgeo:([-+]?[0-9]{1,2}\.[0-9]{4,15},[-+]?[0-9]{1,3}\.[0-9]{4,15})")
_DECIMAL = re.compile(r"[-+\u2212]?[0-9]+\.[0-9]+")


def find_coordinates(text: str) -> list[Span]:
    """Spans of street-level coordinates, latitude and longitude together."""
    spans = [match.span(1) for match in _URI.finditer(text)]
    spans += [match.span() for match in _SEXAGESIMAL.finditer(text)]
    spans += [span for match in _PAIR.finditer(text) for span in _pair(text, match)]
    return in_order(spans)


def _pair(text: str, match: re.Match[str]) -> list[Span]:
    """The span of a pair of decimals that is a place, with its sign; both alone where the second has its own label."""
    start, end = match.start(), match.end()
    if start and text[start - 1] in "-+\u2212":
        start -= 1
    first, second = (_number(text, where) for where in (start, match.start("second")))
    if max(first, second) > 180 or min(first, second) > 90:
        return []
    if re.search(r"lo?ng?", match["between"], re.IGNORECASE):
        first_end = start + len(text[start : match.start("between")].rstrip())
        return [(start, first_end), (match.start("second"), end)]
    if match["north"] and match["east"]:
        return [(start, end)]
    if _LIST_BEFORE.search(text, max(0, start - 8), start) or _LIST_AFTER.match(text, end):
        return []
    if labelled(_LABEL, text, start, 30):
        return [(start, end)]
    # GeoJSON's order, longitude first, is taken only where a label stands by.
    whole = first <= 90 and min(first, second) >= 1 and max(first, second) >= 10
    return [(start, end)] if whole and match["between"].strip() == "," else []


def _number(text: str, start: int) -> float:
    """The size of the decimal at a place."""
    found = _DECIMAL.match(text, start)
    return abs(float(found.group().replace("\u2212", "-"))) if found else 0.0


COORDINATES = Detector("coordinates", _GATE, find_coordinates)
