"""Reading a crawl's files from where they are: over HTTP as a polite, stubborn client, or through fsspec.

Common Crawl answers 503 SlowDown under load and breaks off long bodies. A `ResumingStream` waits as Retry-After asks
(or backs off), goes on at the byte where it stopped, and gives up only after several failures in a row without a
byte of progress.
"""

import io
import logging
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import fsspec
import urllib3
from pydantic import Field
from urllib3.exceptions import HTTPError, NameResolutionError

from infra.rate_limit import RateLimit
from infra.settings import Settings, operational

logger = logging.getLogger(__name__)
BLOCK_BYTES = 1 << 20
BURST_REQUESTS = 4
_WORTH_RETRYING = {408, 425, 429, 500, 502, 503, 504}


class TransportSettings(Settings):
    """How files are requested. None of it changes what is read."""

    timeout_seconds: float = operational(60.0, gt=0)
    """Longest wait for a connection or for the next bytes of a body."""
    retries: int = operational(8, ge=0)
    """Failures in a row, without a byte of progress, after which a file is given up."""
    backoff_seconds: float = operational(1.0, gt=0)
    """First wait after a failure; doubles each time, with jitter."""
    max_wait_seconds: float = operational(120.0, gt=0)
    """Longest wait between two tries, whatever the server asks for."""
    requests_per_second: float | None = operational(10.0, gt=0)
    """Requests that all workers together send to one server in a second; unset for a server of your own."""
    bytes_per_second: float | None = operational(None, gt=0)
    """Bytes that all workers together read from one server in a second; unset for as many as it gives."""
    user_agent: str = operational("gristmill/0.1 (corpus builder)", min_length=1)
    """How we introduce ourselves to the server; add a contact address for large fetches."""


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


def open_source(url: str, settings: TransportSettings) -> BinaryIO:
    """Open a file for streaming. SourceMissingError or SourceUnavailableError, now or while reading."""
    if is_http(url):
        return cast("BinaryIO", io.BufferedReader(ResumingStream(url, settings), BLOCK_BYTES))
    try:
        return cast("BinaryIO", cast("Any", fsspec.open(url, "rb")).open())
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise SourceMissingError(f"{url}: {error}") from error
    except OSError as error:
        raise SourceUnavailableError(f"{url}: {error}") from error


def read_source(url: str, settings: TransportSettings) -> bytes:
    """Read a small file whole."""
    with open_source(url, settings) as source:
        return source.read()


class ResumingStream(io.RawIOBase):
    """The body of one URL, read forward, reconnecting by Range wherever the connection breaks."""

    def __init__(self, url: str, settings: TransportSettings) -> None:
        self._url, self._settings = url, settings
        # urllib3 follows redirects; all other tries are counted here.
        redirects = urllib3.Retry(None, connect=False, read=False, redirect=5, respect_retry_after_header=False)
        self._pool = urllib3.PoolManager(retries=redirects, timeout=urllib3.Timeout(settings.timeout_seconds))
        self._response: Any = None
        self._etag: str | None = None
        self._position = 0
        self._size: int | None = None
        self._failures = 0
        host = urlsplit(url).netloc
        rate, speed = settings.requests_per_second, settings.bytes_per_second
        self._requests = RateLimit(f"requests {host}", rate, BURST_REQUESTS)
        self._bytes = RateLimit(f"bytes {host}", speed, BLOCK_BYTES)
        self._connect()

    def readable(self) -> bool:
        """Say yes."""
        return True

    def close(self) -> None:
        """Drop the connection."""
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
                data = response.read1(len(buffer))  # what is there: read() loses the part before a break
            except (HTTPError, OSError) as error:
                self._failed(str(error))
                continue
            if data:
                buffer[: len(data)] = data
                self._position += len(data)
                self._failures = 0
                self._bytes.wait(len(data))
                return len(data)
            if self._size is None:
                self._size = self._position  # the server never said how long the body is: this was its end
            elif self._position < self._size:
                self._failed(f"body ended at byte {self._position:,} of {self._size:,}")

    def _connect(self) -> Any:
        while self._response is None:
            headers = {"User-Agent": self._settings.user_agent, "Accept-Encoding": "identity"}
            if self._position:
                headers["Range"] = f"bytes={self._position}-"
                if self._etag:
                    headers["If-Range"] = self._etag
            self._requests.wait()
            try:
                response = self._pool.request("GET", self._url, headers=headers, preload_content=False, redirect=True)
            except NameResolutionError as error:
                raise SourceUnavailableError(f"{self._url}: no such host, or no network ({error})") from error
            except (HTTPError, OSError) as error:
                self._failed(str(error))
                continue
            self._accept(response)
        return self._response

    def _accept(self, response: Any) -> None:
        if response.status in _WORTH_RETRYING:
            response.close()  # released with an unread body, it would spoil the next request
            self._failed(f"HTTP {response.status}", response.headers)
        elif response.status not in (200, 206):
            response.close()  # released with an unread body, it would spoil the next request
            raise SourceMissingError(f"{self._url}: HTTP {response.status}")
        elif self._position and (response.status == 200 or self._changed(response)):
            # Either the file changed under us or the server knows no ranges: what was read no longer counts.
            response.close()  # released with an unread body, it would spoil the next request
            raise SourceUnavailableError(f"{self._url}: changed or not resumable at byte {self._position:,}")
        else:
            length = response.headers.get("Content-Length")
            self._size = None if length is None else self._position + int(length)
            self._etag = response.headers.get("ETag", self._etag)
            self._response = response

    def _changed(self, response: Any) -> bool:
        """Whether a partial answer belongs to another file than the one begun: not every server heeds If-Range."""
        return self._etag is not None and response.headers.get("ETag", self._etag) != self._etag

    def _failed(self, why: str, headers: Mapping[str, str] | None = None) -> None:
        self._disconnect()
        self._failures += 1
        if self._failures > self._settings.retries:
            raise SourceUnavailableError(f"{self._url}: {why}, after {self._failures} tries")
        wait = _wait_seconds(self._failures, headers or {}, self._settings)
        logger.info("%s: %s; again in %.1f s", self._url, why, wait)
        if headers is not None and "Retry-After" in headers:
            self._requests.pause(wait)  # the server is overloaded for all of us
        time.sleep(wait)

    def _disconnect(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None


def _wait_seconds(failures: int, headers: Mapping[str, str], settings: TransportSettings) -> float:
    """What the server asks for, or exponential backoff with full jitter."""
    asked = headers.get("Retry-After", "")
    ceiling = settings.backoff_seconds * 2 ** (failures - 1)
    wait = float(asked) if asked.isdigit() else random.uniform(ceiling / 2, ceiling)  # noqa: S311
    return min(wait, settings.max_wait_seconds)


def local_url(path: Path) -> str:
    """The file:// URL of a folder of this machine."""
    return path.resolve().as_uri()


class SourceSettings(Settings):
    """Which crawl, and how much of it."""

    base_url: str = operational("https://data.commoncrawl.org", min_length=1)
    """Where the crawl lies: an https:// or s3:// address, a file:// URL, a folder or a mirror; or the word sample."""
    crawl: str | None = Field(default="CC-MAIN-2026-42", pattern=r"^[A-Z0-9][A-Za-z0-9._-]*$")
    """Crawl identifier, such as CC-MAIN-2026-42; null reads none, only the collections."""
    archive: str = Field(default="warc", pattern="^(warc|wet)$")
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
