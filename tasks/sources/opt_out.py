"""How a page refuses use, and under which licence it stands, as far as its record says.

Read are the HTTP headers X-Robots-Tag, TDM-Reservation, Content-Usage and Link, and of the page's head the elements
meta and link; licences also from links in the body. Only what is meant for everybody or for one of the named crawlers
counts. robots.txt is not part of the record.

Sources: Google's "Robots meta tag, data-nosnippet, and X-Robots-Tag specifications"; DeviantArt's noai and
noimageai; W3C TDM Reservation Protocol (2024); IETF draft aipref-attach (Content-Usage); RFC 8288 (Link); Creative
Commons' CC REL (rel=license).
"""

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import cast
from urllib.parse import urljoin, urlsplit

import pyarrow as pa
import pyarrow.compute as pc

DIRECTIVES = frozenset({"noindex", "none", "noai", "noimageai", "noarchive", "nocache"})
"""Words of robots tags that are kept; `tdm-reservation`, `train-ai=n` and `unavailable_after` come from elsewhere."""
HEAD_BYTES = 1 << 17
_HEAD_END = b"</head"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_ATTRIBUTE = re.compile(
    r"(?<![a-z0-9:._-])([a-z][a-z0-9:._-]*+)\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'>]++))", re.I
)
_RULE_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_TRAIN_AI = re.compile(r"(?:^|,)\s*+train-ai\s*+=\s*+n\s*+(?:,|;|$)", re.I)
_LINK_HEADER = re.compile(r"<([^>]*+)>([^<]*+)")
_LICENSE_RELATION = re.compile(r"(?:^|\s)license(?:\s|$)", re.I)
_META_NAMES = frozenset({"dc.rights", "dcterms.rights", "dcterms.license", "dc.license", "license", "copyright"})
_JSON_LICENSE = re.compile(rb"\"license\"\s*+:\s*+\"(https?:[^\"\s]{4,500}+)\"")
_COMMONS = re.compile(r"/(licenses|publicdomain)/([a-z+-]+)(?:/([0-9.]+))?(?:/([a-z]{2,8}))?(?:/|$)", re.I)
_TAG_BYTES = 2048
_MAX_MENTIONS = 200


def refusals_and_licenses(
    headers: Sequence[Mapping[str, Sequence[str]]],
    pages: Sequence[bytes],
    column: pa.Array,
    urls: Sequence[str | None],
    fetched_at: Sequence[datetime | None],
    agents: Sequence[str],
) -> tuple[list[str | None], list[str | None]]:
    """Columns `opt_out` and `license` of a batch of responses: headers by lower-case name, agents in any case.

    The pages are given twice, as they are and as an Arrow column.

    Which pages hold the words at all is asked for the whole batch at once: few do, and this is the one step that
    reads every byte.
    """
    names = sorted({agent.lower() for agent in agents})
    heads = [page_head(page) for page in pages]
    words: list[list[str]] = [[] for _ in pages]
    head_column = pa.array(heads, pa.large_binary())
    for word in ("robots", "tdm-reservation", *names):
        for row in _mentions(head_column, word):
            words[row].append(word)
    refusals = [
        opt_outs(each, heads[row], words[row], names, fetched_at[row]) if words[row] or each else None
        for row, each in enumerate(headers)
    ]
    licensed = set(_mentions(column, "license"))
    licenses = [
        page_license(each, pages[row] if row in licensed else b"", urls[row])
        if row in licensed or "link" in each
        else None
        for row, each in enumerate(headers)
    ]
    return refusals, licenses


def _mentions(pages: pa.Array, word: str) -> list[int]:
    """Rows that hold a word, in any case."""
    found = pc.call_function("match_substring", [pages], pc.MatchSubstringOptions(word, ignore_case=True))
    return cast("list[int]", pc.call_function("indices_nonzero", [found]).to_pylist())


def opt_outs(
    headers: Mapping[str, Sequence[str]],
    head: bytes,
    words: Sequence[str],
    agents: Sequence[str],
    fetched_at: datetime | None,
) -> str | None:
    """Directives by which a response refuses use, sorted and joined by commas; None if there are none.

    Headers by lower-case name, the page's head as `page_head` gives it, the words of interest in it, agents in lower
    case.
    """
    found: set[str] = set()
    for value in headers.get("x-robots-tag", ()):
        found |= robots_directives(value, agents, fetched_at)
    if any(value.strip() == "1" for value in headers.get("tdm-reservation", ())):
        found.add("tdm-reservation")
    if any(_TRAIN_AI.search(value) for value in headers.get("content-usage", ())):
        found.add("train-ai=n")
    if words:
        found |= _head_directives(head, words, agents, fetched_at)
    return ",".join(sorted(found)) or None


def _head_directives(head: bytes, words: Sequence[str], agents: Sequence[str], fetched_at: datetime | None) -> set[str]:
    found: set[str] = set()
    lower = head.lower()
    for word in words:
        for start, attributes in _tags_that_mention(head, lower, word.encode()):
            if (
                lower.startswith(b"<meta", start)
                and (directives := _meta_directives(attributes, agents, fetched_at)) - found
                and not _is_inert(lower, start)
            ):
                found |= directives
    return found


def _is_inert(head: bytes, place: int) -> bool:
    """Whether a place is within a comment or a script."""
    return any(
        head.rfind(opening, 0, place) > head.rfind(closing, 0, place)
        for opening, closing in ((b"<!--", b"-->"), (b"<script", b"</script"), (b"<style", b"</style"))
    )


def _meta_directives(attributes: Mapping[str, str], agents: Sequence[str], fetched_at: datetime | None) -> set[str]:
    name, content = attributes.get("name", "").strip().lower(), attributes.get("content", "")
    if name == "tdm-reservation":
        return {name} if content.strip() == "1" else set()
    # A meta element's name is its agent: nothing in its content is.
    return _directives(content, fetched_at) if name == "robots" or name in agents else set()


def robots_directives(value: str, agents: Sequence[str], fetched_at: datetime | None) -> set[str]:
    """Directives of an X-Robots-Tag header that are meant for everybody or for one of the agents.

    An agent's name stands before a colon and counts for what follows it, up to the next name.
    """
    ours, rules = True, []
    for part in value.lower().split(","):
        name, colon, rest = part.partition(":")
        name = name.strip()
        if colon and name not in _RULE_WITH_VALUE and not any(character.isdigit() for character in name):
            ours, part = name == "*" or name in agents, rest
        if ours:
            rules.append(part)
    return _directives(",".join(rules), fetched_at)


def _directives(value: str, fetched_at: datetime | None) -> set[str]:
    before, expires, date = value.lower().partition("unavailable_after")
    found = {word for part in before.split(",") if (word := part.strip()) in DIRECTIVES}
    if expires:
        date, _, after = _split_date(date)
        found |= {word for part in after.split(",") if (word := part.strip()) in DIRECTIVES}
        moment = read_date(date)
        if moment is not None and fetched_at is not None and moment < fetched_at:
            found.add("unavailable_after")
    return found


def _split_date(value: str) -> tuple[str, str, str]:
    """The date and what follows it; a date may hold a comma after the day of the week."""
    value = value.lstrip(" :=")
    first, comma, rest = value.partition(",")
    if any(character.isdigit() for character in first):
        return first, comma, rest
    second, comma, rest = rest.partition(",")
    return second, comma, rest


def read_date(value: str) -> datetime | None:
    """A date in the forms of RFC 822, RFC 850 or ISO 8601, UTC where it names no zone; None for anything else."""
    value = value.strip()
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = parse(value.upper())
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None


def page_head(payload: bytes) -> bytes:
    """The head of a page, as bytes of an encoding that holds ASCII."""
    if payload.startswith(_UTF16_MARKS):
        return payload[:HEAD_BYTES].decode("utf-16", "replace").encode().partition(_HEAD_END)[0]
    end = payload.find(_HEAD_END, 0, HEAD_BYTES)
    return payload[: end if end >= 0 else HEAD_BYTES]


def tag_attributes(tag: bytes) -> dict[str, str]:
    """Attributes of a tag by lower-case name; the first counts, as in HTML."""
    found: dict[str, str] = {}
    for name, double, single, bare in _ATTRIBUTE.findall(tag.decode("utf-8", "replace")):
        found.setdefault(name.lower(), html.unescape(double or single or bare))
    return found


def page_license(headers: Mapping[str, Sequence[str]], payload: bytes, url: str | None) -> str | None:
    """The address of the licence that a response states, or None.

    In this order: Link header, elements with rel=license in the head, then in the body, meta elements and microdata,
    JSON-LD, and a link to one Creative Commons licence if the page has no other. A licence that a page states may be
    that of a picture in it: this is what the record says, not legal advice.
    """
    for target in _license_candidates(headers, payload):
        if address := normal_license(target, url):
            return address
    return None


def _license_candidates(headers: Mapping[str, Sequence[str]], payload: bytes) -> Iterator[str]:
    for value in headers.get("link", ()):
        for target, parameters in _LINK_HEADER.findall(value[:4096]):
            if _LICENSE_RELATION.search(tag_attributes(parameters.encode()).get("rel", "")):
                yield target
    tags = [attributes for _, attributes in _tags_that_mention(payload, payload, b"license")]
    yield from (tag["href"] for tag in tags if "href" in tag and _LICENSE_RELATION.search(tag.get("rel", "")))
    stated = [tag.get("content", "") for tag in tags if tag.get("name", tag.get("property", "")).lower() in _META_NAMES]
    stated += [tag.get("href") or tag.get("content", "") for tag in tags if tag.get("itemprop") == "license"]
    place = max(0, payload.find(b'"license"'))
    stated += [match.decode("utf-8", "replace") for match in _JSON_LICENSE.findall(payload[place : place + 4096])[:1]]
    yield from (address for address in stated if address.lower().startswith(("http://", "https://", "//")))
    links = {normal_license(tag["href"], None) for tag in tags if "creativecommons.org/" in tag.get("href", "")}
    if len(links) == 1:
        yield from (address for address in links if address)


def _tags_that_mention(page: bytes, lower: bytes, word: bytes) -> Iterator[tuple[int, dict[str, str]]]:
    """Start and attributes of the tags in which a word stands, in their order. The page as it is and in lower case."""
    place, end = lower.find(word), 0
    for _ in range(_MAX_MENTIONS):
        if place < 0:
            return
        start = lower.rfind(b"<", max(end, place - _TAG_BYTES), place)
        stop = lower.find(b">", place, place + _TAG_BYTES)
        if start >= 0 and stop >= 0 and lower.find(b">", start, place) < 0:
            yield start, tag_attributes(page[start:stop])
            end = stop
        place = lower.find(word, max(end, place + len(word)))


def normal_license(target: str, url: str | None) -> str | None:
    """One spelling for a licence's address; None for what is no web address."""
    try:
        parts = urlsplit(urljoin(url or "", target.strip()))
        host = (parts.hostname or "").removeprefix("www.")
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or "." not in host or len(target) > 500:
        return None
    if host == "creativecommons.org":
        match = _COMMONS.search(parts.path)
        if match is None:
            return None
        kind, name, version, place = (part.lower() if part else "" for part in match.groups())
        place = "" if place in ("", "deed", "legalcode") else f"{place}/"
        return f"https://creativecommons.org/{kind}/{name}/" + (f"{version}/{place}" if version else "")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path}"
