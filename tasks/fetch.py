"""Fetch: archive files of a crawl become Arrow batches of HTML responses, with nothing unaccounted for.

Every response record of a shard ends in one of three places: kept; dropped as `http_status` (not 200) or `not_html`;
or quarantined with what was wrong with it. A shard that cannot be read to its end is quarantined from the byte where
it broke, marked incomplete if the cause may pass, and tried again by the next run.
"""

import gzip
import hashlib
import json
import logging
import re
import zlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from fastwarc.warc import WarcRecord, WarcRecordType

from infra.errors import BadInput, RunFailed
from infra.manifest import StageManifest, fingerprint
from infra.schema import DROPPED, QUARANTINE, RESPONSES
from infra.store import Store
from tasks.stage import Split, Stage, StageRunner, drop
from tasks.transport import (
    SourceMissingError,
    SourceSettings,
    SourceUnavailableError,
    join_url,
    open_source,
    read_source,
)
from tasks.warc import Broken, Record, read_records, sha1_digest

logger = logging.getLogger(__name__)
HTML_TYPES = ("text/html", "application/xhtml+xml")
# Possessive and atomic, so that no page of comments or blanks makes the search go back over them.
HTML_OPENING = re.compile(
    rb"(?>\s++|<\?xml[^>]*>|(?><!--.*?-->))*+<(!doctype html|html|head|body|title)\b", re.I | re.S
)

FETCH = Stage("fetch", 1, RESPONSES, {"quarantined": QUARANTINE}, ("pyarrow", "fastwarc"))


def fetch(runner: StageRunner, settings: SourceSettings) -> StageManifest:
    """Fetch the selected shards of a crawl.

    BadInput if the crawl does not exist or the selection is empty; RunFailed if too many shards cannot be read.
    """
    paths = shard_paths(settings)
    manifest = runner.run(FETCH, fetch_shard, paths, settings, {"paths": fingerprint(paths=paths)})
    lost = [shard.source for shard in manifest.shards if shard.counters.get("lost_shards")]
    if len(lost) > settings.max_lost_shards * len(paths):
        raise RunFailed(
            f"{len(lost)} of {len(paths)} shards could not be read, {lost[0]} among them",
            f"source.max_lost_shards allows a share of {settings.max_lost_shards}",
            f"Look into {runner.store.full_path(manifest.folder)}/quarantined, then run the same command again",
        )
    if lost:
        logger.warning("fetch: %d shards were lost and quarantined, such as %s", len(lost), lost[0])
    return manifest


def shard_paths(settings: SourceSettings) -> list[str]:
    """The archive paths that the settings select, in the listing's order."""
    listing = join_url(settings.base_url, f"crawl-data/{settings.crawl}/{settings.archive}.paths.gz")
    try:
        lines = gzip.decompress(read_source(listing, settings.transport)).decode().split()
    except SourceMissingError as error:
        raise BadInput(
            f"source.crawl={settings.crawl} ({error})",
            f"a crawl must have a listing at {listing}",
            f"Known there: {_known_crawls(settings)}",
        ) from error
    except SourceUnavailableError as error:
        raise RunFailed(str(error), "the listing must be readable", "Run the same command again later") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BadInput(f"{listing} ({error})", "a listing is gzipped text", "Check source.base_url") from error
    end = None if settings.shards is None else settings.first_shard + settings.shards
    chosen = lines[settings.first_shard : end]
    if not chosen:
        raise BadInput(
            f"source.first_shard={settings.first_shard}",
            f"{settings.crawl} has {len(lines)} shards",
            f"Choose a first_shard below {len(lines)}",
        )
    return chosen


def _known_crawls(settings: SourceSettings) -> str:
    """Crawl names for an error message; the list is a courtesy, so its absence is no error of its own."""
    index = settings.base_url.replace("//data.commoncrawl.org", "//index.commoncrawl.org")
    try:
        collections = json.loads(read_source(join_url(index, "collinfo.json"), settings.transport))
        return ", ".join(each["id"] for each in collections[:10])
    except (SourceMissingError, SourceUnavailableError, ValueError, KeyError, TypeError):
        return "no collinfo.json there to say"


def fetch_shard(store: Store, path: str, settings: SourceSettings) -> Iterator[Split]:
    """Read one archive file into batches of responses. The store is not used: sources lie outside it."""
    batch = ResponseBatch(settings, path)
    try:
        with open_source(join_url(settings.base_url, path), settings.transport) as stream:
            for record in read_records(stream, settings.max_record_bytes, settings.verify_digests):
                batch.add(record)
                if batch.full:
                    yield batch.take()
                if settings.max_records is not None and batch.responses >= settings.max_records:
                    break
    except (SourceMissingError, ValueError) as error:
        batch.lose("shard_missing", str(error), passing=False)
    except SourceUnavailableError as error:
        batch.lose("shard_unavailable", str(error), passing=True)
    yield batch.take()


class ResponseBatch:
    """Rows of the current batch: responses to keep, records to skip, places that are broken."""

    def __init__(self, settings: SourceSettings, path: str) -> None:
        self._settings, self._path = settings, path
        self.responses = 0
        self._clear()

    def _clear(self) -> None:
        self._kept: list[dict[str, Any]] = []
        self._skipped: list[dict[str, Any]] = []
        self._broken: list[dict[str, Any]] = []
        self._counters: dict[str, int] = {}
        self._bytes = 0
        self._incomplete = False

    @property
    def full(self) -> bool:
        """Whether the batch has reached its limit of documents or bytes."""
        rows = len(self._kept) + len(self._skipped)
        return rows >= self._settings.batch_documents or self._bytes >= self._settings.batch_bytes

    def add(self, record: Record | Broken) -> None:
        """Sort one record into its place; requests, metadata and the like are passed over."""
        wanted = WarcRecordType.response if self._settings.archive == "warc" else WarcRecordType.conversion
        if isinstance(record, Broken):
            self._quarantine(record)
        elif record.kind == wanted:
            self.responses += 1
            self._add_response(record)

    def _add_response(self, record: Record) -> None:
        row = _provenance(record, self._settings.crawl, self._path)
        if self._settings.archive == "wet":
            return self._keep(row | {"content_type": "text/plain", "charset": "utf-8", "payload": record.block})
        message = http_message(record.block)
        if message is None:
            detail = "the record holds no HTTP response that can be decoded"
            return self._quarantine(Broken(record.offset, "invalid_http", detail, row["url"]))
        payload = message.reader.read(self._settings.max_record_bytes + 1)
        if len(payload) > self._settings.max_record_bytes:  # a small body that its Content-Encoding blows up
            detail = f"its body decodes to more than {self._settings.max_record_bytes:,} bytes"
            return self._quarantine(Broken(record.offset, "record_too_large", detail, row["url"]))
        content_type = message.http_content_type or record.header("WARC-Identified-Payload-Type") or sniff(payload)
        if message.http_headers.status_code != 200:
            return self._skip(row, "http_status", message.http_headers.status_code, content_type)
        if content_type.lower() not in HTML_TYPES:
            return self._skip(row, "not_html", None, content_type)
        body = {"content_type": content_type, "charset": message.http_charset, "payload": payload}
        return self._keep(row | body)

    def _keep(self, row: dict[str, Any]) -> None:
        self._bytes += len(row["payload"])
        self._kept.append(row)

    def _skip(self, row: dict[str, Any], reason: str, value: float | None, detail: str) -> None:
        self._skipped.append(row | {"reason": reason, "value": value, "detail": detail})

    def _quarantine(self, broken: Broken) -> None:
        row = {"offset": broken.offset, "url": broken.url, "reason": broken.reason, "detail": broken.detail}
        self._broken.append(row | {"source": self._settings.crawl, "file": self._path})

    def lose(self, reason: str, detail: str, passing: bool) -> None:
        """Quarantine the rest of the shard; a passing cause leaves it to the next run."""
        row = {"offset": None, "url": None, "reason": reason, "detail": detail}
        self._broken.append(row | {"source": self._settings.crawl, "file": self._path})
        self._counters["lost_shards"] = 1
        self._incomplete = passing

    def take(self) -> Split:
        """The batch as tables; a new one begins."""
        skipped = pa.Table.from_pylist(self._skipped, schema=_SKIPPED)
        split = Split(
            pa.Table.from_pylist(self._kept, schema=RESPONSES),
            drop(skipped, "fetch", skipped["reason"], skipped["value"], skipped["detail"]),
            {"quarantined": pa.Table.from_pylist(self._broken, schema=QUARANTINE)},
            self._counters,
            self._incomplete,
        )
        self._clear()
        return split


_SKIPPED = pa.schema([each for each in DROPPED if each.name != "stage"])


def http_message(block: bytes) -> Any:
    """A parsed HTTP message with its encodings removed, or None. Wrong encoding headers are ignored."""
    for decode in ("all", "none"):
        record: Any = WarcRecord()
        record.is_http = True
        record.set_bytes_content(block)
        try:
            record.parse_http(auto_decode=decode)
        except (OSError, ValueError):
            continue
        if record.http_headers is not None and record.http_headers.status_code is not None:
            return record
    return None


def sniff(payload: bytes) -> str:
    """The type of a body that came without one: text/html if it opens as HTML does (WHATWG MIME sniffing)."""
    return "text/html" if HTML_OPENING.match(payload) else ""


def _provenance(record: Record, crawl: str, path: str) -> dict[str, Any]:
    place = f"{path}:{record.offset}" + (f":{record.position}" if record.position else "")
    return {
        "id": hashlib.sha256(place.encode()).hexdigest()[:32],
        "url": record.header("WARC-Target-URI"),
        "source": crawl,
        "file": path,
        "offset": record.offset,
        "record_digest": record.header("WARC-Payload-Digest") or sha1_digest(record.block),
        "fetched_at": record.warc.record_date,
    }
