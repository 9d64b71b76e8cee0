"""What a page says on its use is found wherever it says it, and nowhere else; hostile pages cost no time."""

import time
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from tasks.sources.opt_out import refusals_and_licenses

FETCHED = datetime(2026, 2, 14, tzinfo=UTC)
CC_BY = "https://creativecommons.org/licenses/by/4.0/"


def found(
    page: bytes | str = b"",
    url: str | None = "https://a.example/b/",
    agents: tuple[str, ...] = ("CCBot",),
    **headers: str,
) -> tuple[str | None, str | None]:
    """Opt-outs and licence of one page."""
    payload = page.encode() if isinstance(page, str) else page
    fields = {name.replace("_", "-"): [value] for name, value in headers.items()}
    column = pa.array([payload], pa.large_binary())
    [refusal], [address] = refusals_and_licenses([fields], [payload], column, [url], [FETCHED], agents)
    return refusal, address


def head(element: str) -> str:
    return f"<!DOCTYPE html><html><head><title>x</title>{element}</head><body>x</body></html>"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("noindex", "noindex"),
        ("NOAI, noimageai", "noai,noimageai"),
        ("nofollow, max-snippet:-1", None),
        ("none", "none"),
        ("googlebot: noindex", None),
        ("ccbot: noindex, nofollow", "noindex"),
        ("googlebot: nofollow, ccbot: noai", "noai"),
        ("*: noai", "noai"),
        ("max-snippet:5, noindex", "noindex"),
        ("unavailable_after: 25 Jun 2025 15:00:00 GMT", "unavailable_after"),
        ("unavailable_after: Wednesday, 25-Jun-25 15:00:00 GMT, noarchive", "noarchive,unavailable_after"),
        ("noai, unavailable_after: 2025-06-25", "noai,unavailable_after"),
        ("unavailable_after: 25 Jun 2027 15:00:00 GMT", None),
        ("unavailable_after: soon", None),
        ("", None),
        (",:,::,", None),
    ],
)
def test_robots_headers(value: str, expected: str | None) -> None:
    assert found(x_robots_tag=value)[0] == expected


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        ('<meta name="robots" content="noindex, nofollow">', "noindex"),
        ("<META CONTENT='NoAI,NoImageAI' NAME='ROBOTS' />", "noai,noimageai"),
        ("<meta name=robots content=noindex>", "noindex"),
        ('<meta name="googlebot" content="noindex">', None),
        ('<meta name="ccbot" content="noindex">', "noindex"),
        ('<meta name="description" content="robots noindex">', None),
        ('<meta property="x" content="all about robots"><meta name="robots" content="noai">', "noai"),
        ('<!-- <meta name="robots" content="noindex"> -->', None),
        ('<script>var m = \'<meta name="robots" content="noindex">\';</script>', None),
        ('<meta name="tdm-reservation" content="1">', "tdm-reservation"),
        ('<meta name="tdm-reservation" content="0">', None),
        ('<meta name="robots" content="noindex', None),
        ('<noscript><meta name="robots" content="noai"></noscript>', "noai"),
    ],
)
def test_meta_elements(element: str, expected: str | None) -> None:
    assert found(head(element))[0] == expected


def test_other_headers_and_the_sum_of_all() -> None:
    assert found(tdm_reservation="1")[0] == "tdm-reservation"
    assert found(tdm_reservation="0")[0] is None
    assert found(content_usage="train-ai=n, search=y")[0] == "train-ai=n"
    assert found(content_usage="train-ai=y")[0] is None
    assert found(head('<meta name="robots" content="noai">'), x_robots_tag="noindex")[0] == "noai,noindex"


def test_named_agents_are_the_settings() -> None:
    page = head('<meta name="MyBot" content="noai">')
    assert found(page)[0] is None
    assert found(page, agents=("mybot",))[0] == "noai"


def test_pages_in_utf16_and_broken_bytes() -> None:
    page = head('<meta name="robots" content="noai">')
    assert found(page.encode("utf-16"))[0] == "noai"
    assert found(b"\xff\xfe\x00" + b"\xd8" * 9)[0] is None
    assert found(b"<meta \xff\xfe name=robots content=noai>")[0] == "noai"


@pytest.mark.parametrize(
    "element",
    [
        '<link rel="license" href="https://creativecommons.org/licenses/by/4.0/">',
        '<a rel="license" href="http://www.creativecommons.org/licenses/BY/4.0/deed.de">x</a>',
        "<a href=https://creativecommons.org/licenses/by/4.0 rel='nofollow license'>x</a>",
        '<meta name="DC.rights" content="https://creativecommons.org/licenses/by/4.0/legalcode">',
        '<a itemprop="license" href="//creativecommons.org/licenses/by/4.0/?ref=x#y">x</a>',
        '<script type="application/ld+json">{"license" : "https://creativecommons.org/licenses/by/4.0/"}</script>',
        '<a href="https://creativecommons.org/licenses/by/4.0/">CC BY</a>',
    ],
)
def test_licenses_are_found_and_spelt_alike(element: str) -> None:
    assert found(f"<body>{element}</body>")[1] == CC_BY


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ('<a rel="license" href="/terms#x">x</a>', "https://a.example/terms"),
        ('<a rel="license" href="javascript:alert(1)">x</a>', None),
        ('<a rel="license" href="http://[">x</a>', None),
        ('<a rel="nolicense" href="/x">x</a>', None),
        ("driving license <a href='/license'>x</a>", None),
        ('<meta name="copyright" content="license by us">', None),
        (
            '<a href="https://creativecommons.org/licenses/by/4.0/">a</a>'
            '<a href="https://creativecommons.org/licenses/by-sa/3.0/">b</a>',
            None,
        ),
        (
            '<a href="https://creativecommons.org/licenses/by/4.0/">photo</a>'
            '<a rel="license" href="https://creativecommons.org/licenses/by-sa/3.0/nl/">b</a>',
            "https://creativecommons.org/licenses/by-sa/3.0/nl/",
        ),
        (
            '<a rel=license href="https://creativecommons.org/publicdomain/zero/1.0/">',
            "https://creativecommons.org/publicdomain/zero/1.0/",
        ),
    ],
)
def test_what_is_a_license_and_what_is_none(page: str, expected: str | None) -> None:
    assert found(page)[1] == expected


def test_the_link_header_states_a_license() -> None:
    assert found(link=f'<https://x.example/a>; rel=next, <{CC_BY}>; rel="license"')[1] == CC_BY
    assert found(link="</feed>; rel=alternate")[1] is None


@pytest.mark.parametrize(
    "part",
    [
        b"<meta name=robots ",
        b"<meta name='robots' content='",
        b"<!-- robots ",
        b"<script robots",
        b"robots tdm-reservation license ",
        b"<a license ",
        b"a" * 50 + b' license="',
        b"<a rel=license href=",
        b"< license >",
        b'"license": "https:',
        b"\x00license",
    ],
)
def test_hostile_pages_take_no_time(part: bytes) -> None:
    page = part * (4_000_000 // len(part))
    started = time.process_time()
    found(page, x_robots_tag="noai," * 2000, link="<a>;" * 2000)
    assert time.process_time() - started < 1
