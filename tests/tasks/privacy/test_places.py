"""Street-level coordinates; tables of decimals stay."""

import pytest

from tasks.privacy.places import find_coordinates

FOUND = [
    ("at 40.7128, -74.0060.", ["40.7128, -74.0060"]),
    ("48.85837° N, 2.294481° E", ["48.85837° N, 2.294481° E"]),
    ("lat: 48.85837, lng: 2.294481", ["48.85837", "2.294481"]),
    ('{"lat": 48.8583, "lon": -2.2944}', ["48.8583", "-2.2944"]),
    ("Latitude: -48.8583\nLongitude: 2.2944", ["-48.8583", "2.2944"]),
    ("?q=48.85837,2.294481", ["48.85837,2.294481"]),
    ("/@48.85837,2.294481,17z", ["48.85837,2.294481"]),
    ("40°42'46\"N 74°00'22\"W", ["40°42'46\"N 74°00'22\"W"]),
    ("N 40° 42.767' W 74° 00.367'", ["N 40° 42.767' W 74° 00.367'"]),
    ("geo:48.198634,16.371648", ["48.198634,16.371648"]),
    ("GPS 2.3522, 48.8566", ["2.3522, 48.8566"]),
]
LEFT = [
    "(0.1234, 0.5678) 40.7, -74.0 and 40.71, -74.00",
    "[12.3456, 45.6789, 3.1415]",
    "12.3456 45.6789 78.9012",
    "3.14159265, 2.71828182",
    "95.1234, 200.5678",
    "1.23456, 0.98765",
    "40° 12 and 45° N",
    "version 10.1234, 20.123",
]


def finds(text: str) -> list[str]:
    return [text[slice(*span)] for span in find_coordinates(text)]


@pytest.mark.parametrize(("text", "found"), FOUND)
def test_what_is_one_is_found(text: str, found: list[str]) -> None:
    assert finds(text) == found


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_one_is_left(text: str) -> None:
    assert finds(text) == []
