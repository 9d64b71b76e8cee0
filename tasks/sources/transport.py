"""Reading a crawl's files from where they are: over HTTP as a polite, stubborn client, or through fsspec.

Common Crawl answers 503 SlowDown under load and breaks off long bodies. A `ResumingStream` waits as Retry-After asks
(or backs off), goes on at the byte where it stopped, and gives up only after several failures in a row without a
byte of progress, or very many altogether. All workers of a cluster share one rate for each server, and pause together.

Sources: RFC 9110, sections 10.1.5 (User-Agent), 10.2.3 (Retry-After), 13.1.5 (If-Range), 14 (ranges) and 15.4
(redirections); Common Crawl's advice on 503 SlowDown.
"""

import io
import logging
import math
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast
from urllib.parse import urljoin, urlsplit

import fsspec
import urllib3
from pydantic import Field
from urllib3.exceptions import HTTPError, NameResolutionError

from infra.address import Address
from infra.rate_limit import RateLimit
from infra.settings import Settings, operational

logger = logging.getLogger(__name__)
BLOCK_BYTES = 1 << 20
BURST_REQUESTS = 1
"""Requests after a rest: one, so that no second ever sees more than its rate."""
BYTES_SECONDS = 0.1
"""Bytes are paid for when so many seconds' worth have been read: asking for each read would cost more than reading."""
MOST_REDIRECTS = 5
WORTH_TELLING = {
    "http_503": "requests refused (503)",
    "http_429": "requests refused (429)",
    "http_retries": "retries",
    "http_resumed": "bodies resumed",
}
"""Counts of a stream that a user should hear of, with their words."""
_WORTH_RETRYING = {408, 425, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-")


class TransportSettings(Settings):
    """How files are requested. None of it changes what is read."""

    timeout_seconds: float = operational(60.0, gt=0)
    """Longest wait for a connection or for the next bytes of a body."""
    retries: int = operational(8, ge=0)
    """Failures in a row, without a byte of progress, after which a file is given up."""
    total_retries: int = operational(200, ge=0)
    """Failures altogether after which a file is given up, however much was read between them."""
    backoff_seconds: float = operational(1.0, gt=0)
    """First wait after a failure; doubles each time, with jitter."""
    max_wait_seconds: float = operational(120.0, gt=0)
    """Longest wait between two tries, whatever the server asks for."""
    requests_per_second: float | None = operational(10.0, gt=0)
    """Requests that all workers together send to one server in a second; unset for a server of your own."""
    bytes_per_second: float | None = operational(None, gt=0)
    """Bytes that all workers together read from one server in a second; unset for as many as it gives."""
    user_agent: str = operational("gristmill/0.1 (corpus builder)", pattern=r"^[\x21-\x7e][\x20-\x7e]*$")
    """How we introduce ourselves to the server."""
    contact: str | None = operational(None, pattern=r"^[\x21-\x27\x2a-\x7e]+$")
    """Web or mail address that the server's keepers can turn to; set it for large fetches."""

    @property
    def introduction(self) -> str:
        """The User-Agent header."""
        return self.user_agent if self.contact is None else f"{self.user_agent} (+{self.contact})"


class SourceMissingError(Exception):
    """The file does not exist there, or may not be read: trying again will not help."""


class SourceUnavailableError(Exception):
    """The file could not be read to its end now; another day it may be."""


def is_http(url: str) -> bool:
    """Whether a URL is read by our own client rather than through fsspec."""
    return url.startswith(("http://", "https://"))


def join_url(base: str, path: str) -> str:
    """Append a path from a listing to a base URL or folder. ValueError for a path that leaves the base."""
    if path.startswith("/") or "\\" in path or "://" in path or ".." in path.split("/"):
        raise ValueError(f"{path!r} is not a plain relative path")
    return f"{base.rstrip('/')}/{path}"


def open_source(url: str, settings: TransportSettings, counts: Counter[str] | None = None) -> BinaryIO:
    """Open a file for streaming. SourceMissingError or SourceUnavailableError, now or while reading.

    What a stream over HTTP met with is added to `counts` by the time that it is closed; see `ResumingStream`.
    """
    if is_http(url):
        return cast("BinaryIO", io.BufferedReader(ResumingStream(url, settings, counts), BLOCK_BYTES))
    try:
        return cast("BinaryIO", cast("Any", fsspec.open(url, "rb")).open())
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise SourceMissingError(f"{url}: {error}") from error
    except OSError as error:
        raise SourceUnavailableError(f"{url}: {error}") from error


@contextmanager
def reading(url: str, settings: TransportSettings, counts: Counter[str]) -> Iterator[BinaryIO]:
    """`open_source` for a block, which also counts as `bytes_read` how far into the file its reader got."""
    with open_source(url, settings, counts) as source:
        try:
            yield source
        finally:
            counts["bytes_read"] += 0 if source.closed else source.tell()


def read_source(url: str, settings: TransportSettings) -> bytes:
    """Read a small file whole."""
    with open_source(url, settings) as source:
        return source.read()


def source_size(url: str, settings: TransportSettings) -> int | None:
    """Bytes of a file, which is not read; None if the server does not say. SourceMissingError as `open_source`."""
    if is_http(url):
        with ResumingStream(url, settings, method="HEAD") as head:
            return head.size
    try:
        fs, path = cast("tuple[Any, str]", fsspec.core.url_to_fs(url))
        return cast("int | None", fs.size(path))
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise SourceMissingError(f"{url}: {error}") from error
    except OSError as error:
        raise SourceUnavailableError(f"{url}: {error}") from error


class ResumingStream(io.RawIOBase):
    """The body of one URL, read forward, reconnecting by Range wherever the connection breaks.

    It counts `http_requests`, `http_retries`, refusals by status (`http_503`), bodies gone on with after a break
    (`http_resumed`), `bytes_fetched` and `network_ms`: the time spent on waiting for the server's answers.
    """

    def __init__(
        self, url: str, settings: TransportSettings, counts: Counter[str] | None = None, method: str = "GET"
    ) -> None:
        self._url, self._settings, self._method = url, settings, method
        self._counts = Counter[str]() if counts is None else counts
        # Redirects and other tries are counted and paced here.
        self._pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(settings.timeout_seconds))
        self._response: Any = None
        self._etag: str | None = None
        self._position = 0
        self._size: int | None = None
        self._failures = self._all_failures = 0
        self._network = 0.0
        self._limit = self._limit_of(url)
        self._bytes = RateLimit(f"bytes {urlsplit(url).netloc}", settings.bytes_per_second, BLOCK_BYTES)
        self._unpaid = 0
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int | None:
        """Bytes of the body, if the server says."""
        return self._size

    def readable(self) -> bool:
        """Say yes."""
        return True

    def tell(self) -> int:
        """Bytes read so far."""
        return self._position

    def close(self) -> None:
        """Drop the connection."""
        if not self.closed:
            self._counts["network_ms"] += round(1000 * self._network)
            self._disconnect()
            self._pool.clear()
        super().close()

    def readinto(self, buffer: Any, /) -> int:
        """Read up to a buffer of bytes; 0 only at the true end of the file."""
        while True:
            if self._position == self._size:
                return 0
            response = self._response or self._connect()
            try:
                data = self._timed(response.read1, len(buffer))  # what is there: read() loses the part before a break
            except (HTTPError, OSError) as error:
                self._failed(str(error))
                continue
            if data:
                buffer[: len(data)] = data
                self._passed(len(data))
                return len(data)
            if self._size is None:
                self._size = self._position  # the server never said how long the body is: this was its end
            elif self._position < self._size:
                self._failed(f"body ended at byte {self._position:,} of {self._size:,}")

    def _passed(self, size: int) -> None:
        self._position += size
        self._failures = 0
        self._counts["bytes_fetched"] += size
        self._unpaid += size
        if self._bytes.rate is not None and self._unpaid >= BYTES_SECONDS * self._bytes.rate:
            self._bytes.wait(self._unpaid)
            self._unpaid = 0

    def _connect(self) -> Any:
        while self._response is None:
            headers = {"User-Agent": self._settings.introduction, "Accept-Encoding": "identity"}
            if self._position:
                headers["Range"] = f"bytes={self._position}-"
                if self._etag:
                    headers["If-Range"] = self._etag
            try:
                response = self._request(headers)
            except NameResolutionError as error:
                raise SourceUnavailableError(f"{self._url}: no such host, or no network ({error})") from error
            except (HTTPError, OSError) as error:
                self._failed(str(error))
                continue
            self._accept(response)
        return self._response

    def _request(self, headers: Mapping[str, str]) -> Any:
        """One answer that is no redirection. Each redirection is a request like others, at its own server's rate."""
        url = self._url
        for _ in range(MOST_REDIRECTS + 1):
            self._limit = self._limit_of(url)
            self._limit.wait()
            self._counts["http_requests"] += 1
            response: Any = self._timed(
                self._pool.request, self._method, url, headers=headers, preload_content=False, redirect=False
            )
            if not (location := response.get_redirect_location()):
                return response
            response.close()
            if not is_http(url := urljoin(url, location)):
                break
        raise SourceMissingError(f"{self._url}: redirected to {url}, beyond what is followed")

    def _limit_of(self, url: str) -> RateLimit:
        rate = self._settings.requests_per_second
        return RateLimit(f"requests {urlsplit(url).netloc}", math.inf if rate is None else rate, BURST_REQUESTS)

    def _timed(self, function: Any, *arguments: Any, **named: Any) -> Any:
        started = time.monotonic()
        try:
            return function(*arguments, **named)
        finally:
            self._network += time.monotonic() - started

    def _accept(self, response: Any) -> None:
        if response.status in _WORTH_RETRYING:
            response.close()  # released with an unread body, it would spoil the next request
            self._counts[f"http_{response.status}"] += 1
            self._failed(f"HTTP {response.status}", response.headers)
        elif response.status not in (200, 206):
            response.close()
            raise SourceMissingError(f"{self._url}: HTTP {response.status}")
        elif self._position and self._changed(response):
            # Either the file changed under us or the server knows no ranges: what was read no longer counts.
            response.close()
            raise SourceUnavailableError(f"{self._url}: changed or not resumable at byte {self._position:,}")
        else:
            self._counts["http_resumed"] += self._position > 0
            length = response.headers.get("Content-Length", "")
            self._size = self._position + int(length) if re.fullmatch("[0-9]{1,18}", length) else None
            self._etag = response.headers.get("ETag", self._etag)
            self._response = response

    def _changed(self, response: Any) -> bool:
        """Whether an answer is not the rest of the file that was begun: not every server heeds Range and If-Range."""
        start = _CONTENT_RANGE.match(response.headers.get("Content-Range", f"bytes {self._position}-"))
        return (
            response.status == 200
            or start is None
            or int(start[1]) != self._position
            or (self._etag is not None and response.headers.get("ETag", self._etag) != self._etag)
        )

    def _failed(self, why: str, headers: Mapping[str, str] | None = None) -> None:
        self._disconnect()
        self._failures += 1
        self._all_failures += 1
        if self._failures > self._settings.retries or self._all_failures > self._settings.total_retries:
            raise SourceUnavailableError(f"{self._url}: {why}, after {self._all_failures} tries")
        self._counts["http_retries"] += 1
        asked = retry_after(headers or {})
        wait = _wait_seconds(self._failures, asked, self._settings)
        logger.info("%s: %s; again in %.1f s", self._url, why, wait)
        if asked is not None:
            # The server is overloaded for all of us.
            self._limit.pause(min(asked, self._settings.max_wait_seconds))
        time.sleep(wait)

    def _disconnect(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, given as such or as a date (by its own clock); None for anything else."""
    asked = headers.get("Retry-After", "").strip()
    if re.fullmatch("[0-9]{1,9}", asked):
        return float(asked)
    until, now = _http_date(asked), _http_date(headers.get("Date", ""))
    return None if until is None else max(0.0, (until - (now or datetime.now(UTC))).total_seconds())


def _http_date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _wait_seconds(failures: int, asked: float | None, settings: TransportSettings) -> float:
    """What the server asks for and some jitter, or exponential backoff with jitter."""
    if asked is not None:
        wait = asked + random.uniform(0, settings.backoff_seconds)  # noqa: S311
    else:
        ceiling = settings.backoff_seconds * 2.0 ** min(failures - 1, 100)
        wait = random.uniform(ceiling / 2, ceiling)  # noqa: S311
    return min(wait, settings.max_wait_seconds)


def local_url(path: Path) -> str:
    """The file:// URL of a folder of this machine."""
    return path.resolve().as_uri()


class SourceSettings(Settings):
    """Which crawl, and how much of it."""

    base_url: Address = operational("https://data.commoncrawl.org", min_length=1)
    """Where the crawl lies: an https:// or s3:// address, a file:// URL, a folder or a mirror; or the word sample."""
    crawl: str | None = Field(default="CC-MAIN-2026-42", pattern=r"^[A-Z0-9][A-Za-z0-9._-]*$")
    """Crawl identifier, such as CC-MAIN-2026-42; null reads none, only the collections."""
    archive: Literal["warc", "wet"] = "warc"
    """warc for pages with their HTML; wet for Common Crawl's own text extraction."""
    first_shard: int = Field(default=0, ge=0)
    """Shards of the listing to pass over."""
    shards: int | None = Field(default=None, ge=1)
    """Shards to read; unset means all that are left."""
    max_records: int | None = Field(default=None, ge=1)
    """Response records to read from the head of each shard; unset means all."""
    max_record_bytes: int = Field(default=64 << 20, ge=1 << 10)
    """Larger records, uncompressed, go to quarantine: a decompression bomb must not exhaust memory."""
    batch_documents: int = Field(default=256, ge=1)
    """Documents in an Arrow batch at most; all later stages hold one batch in memory at a time."""
    batch_bytes: int = Field(default=32 << 20, ge=1 << 16)
    """Bytes of pages in an Arrow batch at most."""
    verify_digests: bool = True
    """Check each record against the digest that it carries, and quarantine it if they differ."""
    opt_out_agents: tuple[str, ...] = ("CCBot", "gristmill")
    """Crawlers whose names in robots tags mean this corpus; tags that name no crawler always do."""
    max_lost_shards: float = operational(0.1, ge=0, le=1)
    """Share of shards that may be unreadable; beyond it the run stops instead of making a thin dataset."""
    transport: TransportSettings = operational(TransportSettings())
    """How files are requested."""
