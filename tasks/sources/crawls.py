"""Which crawls there are, and in what order they were made: collinfo.json, as Common Crawl publishes it.

    [{"id": "CC-MAIN-2026-42", "name": "...", "from": "2026-10-05T00:00:00", "to": "..."}, ...]

A crawl's identifier says when it was made: year and week, or year alone for the oldest. Where it does not, the day
counts on which the crawl began, `from`. Nothing is guessed: a crawl of which neither is known is refused, because
nobody can say whether it is new.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from infra.errors import BadInput, RunFailed
from tasks.sources.transport import (
    SourceMissingError,
    SourceSettings,
    SourceUnavailableError,
    join_url,
    open_source,
)

COLLINFO = "collinfo.json"
MOST_BYTES = 8 << 20
"""Of a list of crawls; Common Crawl's has about 50 KB."""
_IDENTIFIER = re.compile(r"[A-Z0-9][A-Za-z0-9._-]{0,99}")
_NUMBERED = re.compile(r"[A-Z][A-Z0-9]*(?:-[A-Z][A-Z0-9]*)*-([0-9]{4})(?:-([0-9]{2}|[0-9]{4}))?")


@dataclass(frozen=True, order=True)
class Crawl:
    """A crawl; earlier ones are less."""

    year: int
    week: int
    """0 where only the year is known."""
    name: str
    """Its identifier."""


def list_crawls(source: SourceSettings, address: str | None = None) -> list[Crawl]:
    """The crawls of a source, oldest first, by its collinfo.json or by the one at another address.

    BadInput if it is missing or is not such a list; RunFailed if it cannot be read now.
    """
    url = address or collinfo_url(source.base_url)
    try:
        with open_source(url, source.transport) as file:
            data = file.read(MOST_BYTES + 1)
    except SourceMissingError as error:
        raise BadInput(
            str(error),
            f"a source tells its crawls in {COLLINFO}",
            "Check source.base_url, or say where the list is (refresh.collinfo)",
        ) from error
    except SourceUnavailableError as error:
        raise RunFailed(str(error), "the list of crawls must be readable", "Run the same again later") from error
    return parse_crawls(data, url)


def collinfo_url(base_url: str) -> str:
    """Where the list of crawls of a source is; Common Crawl has it on its index server."""
    if base_url.rstrip("/") == "s3://commoncrawl":
        base_url = "https://index.commoncrawl.org"
    return join_url(base_url.replace("//data.commoncrawl.org", "//index.commoncrawl.org"), COLLINFO)


def parse_crawls(data: bytes, where: str) -> list[Crawl]:
    """The crawls in a collinfo.json, oldest first; BadInput says what is wrong with it."""
    if len(data) > MOST_BYTES:
        raise _wrong(where, f"has more than {MOST_BYTES:,} bytes")
    try:
        entries = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _wrong(where, f"is not JSON: {error}") from error
    if not isinstance(entries, list):
        raise _wrong(where, f"is {type(entries).__name__}, no list")
    crawls = sorted(_entry(each, where) for each in entries)
    names = [each.name for each in crawls]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _wrong(where, f"has {', '.join(twice)} more than once")
    return crawls


def _entry(entry: Any, where: str) -> Crawl:
    name = entry.get("id") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not _IDENTIFIER.fullmatch(name):
        raise _wrong(where, f"has an entry without a crawl's id: {str(entry)[:100]}")
    if (numbered := _by_name(name)) is not None:
        return numbered
    try:
        year, week, _ = datetime.fromisoformat(entry["from"]).isocalendar()
    except (KeyError, TypeError, ValueError):
        raise _wrong(where, f"says neither by id nor by `from` when {name} was made") from None
    return Crawl(year, week, name)


def _by_name(name: str) -> Crawl | None:
    """CC-MAIN-2026-42 is of 2026, week 42; CC-MAIN-2012 of 2012; CC-MAIN-2009-2010 of 2010."""
    found = _NUMBERED.fullmatch(name)
    if found is None:
        return None
    year, second = found[1], found[2] or ""
    return Crawl(int(second), 0, name) if len(second) == 4 else Crawl(int(year), int(second or 0), name)


def _wrong(where: str, why: str) -> BadInput:
    return BadInput(
        f"{where} {why}", "a list of crawls has an object with an id for each, and no id twice", "Mend or replace it"
    )


def find_crawl(crawls: Sequence[Crawl], name: str) -> Crawl:
    """A crawl by its identifier, listed or not; BadInput where it cannot be said when it was made."""
    found = next((each for each in crawls if each.name == name), None) or _by_name(name)
    if found is None:
        listed = ", ".join(each.name for each in crawls[-10:]) or "none"
        raise BadInput(
            f"crawl {name} is not listed",
            f"its place among the others must be known; the newest listed are {listed}",
            "Name a listed crawl, or add it to the list",
        )
    return found


def newer_than(crawls: Sequence[Crawl], name: str) -> list[Crawl]:
    """The listed crawls that were made after one, oldest first."""
    last = find_crawl(crawls, name)
    return [each for each in crawls if each > last]


def between(crawls: Sequence[Crawl], first: str, last: str) -> list[Crawl]:
    """The listed crawls from one to another, both included, oldest first; BadInput where there is none."""
    start, end = find_crawl(crawls, first), find_crawl(crawls, last)
    found = [each for each in crawls if start <= each <= end]
    if not found:
        raise BadInput(
            f"no crawl from {first} to {last}",
            f"there are {len(crawls)}: {', '.join(each.name for each in crawls[-10:]) or 'none'}",
            "Name an earlier and a later crawl",
        )
    return found
