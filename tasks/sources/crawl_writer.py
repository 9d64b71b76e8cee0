"""Captures written as Common Crawl publishes its crawls: listing, segments, WARC shards, one gzip member a record.

Everything that the format would date or draw at random is fixed, so that the same captures give the same bytes (for
one zlib). Source: WARC 1.0 (ISO 28500).
"""

import gzip
import json
import uuid
from typing import NamedTuple

from infra.manifest import FileRecord
from infra.store import Store
from tasks.sources.warc import sha1_digest

SEGMENT = "1736899200.00"
CAPTURED = "2025-01-15T00:00:00Z"
SHARD_NAME = "CC-SAMPLE-20250115000000-20250115010000-{:05}.warc.gz"


class Capture(NamedTuple):
    """What a crawler would have received for one address."""

    url: str
    content_type: str
    body: bytes


def write_crawl(store: Store, crawl: str, count: int, captures: list[Capture]) -> tuple[FileRecord, ...]:
    """Write shards, their list and collinfo.json; captures go round the shards in turn, so that shards are alike."""
    folder = f"crawl-data/{crawl}"
    shards = tuple(
        _write_shard(store, f"{folder}/segments/{SEGMENT}/warc/{SHARD_NAME.format(i)}", captures[i::count])
        for i in range(count)
    )
    listing = "".join(f"{shard.path}\n" for shard in shards)
    store.write_bytes(f"{folder}/warc.paths.gz", gzip.compress(listing.encode(), mtime=0))
    crawls = [{"id": crawl, "name": "Sample of pages from Python source distributions"}]
    store.write_bytes("collinfo.json", json.dumps(crawls, indent=1).encode() + b"\n")
    return shards


def _write_shard(store: Store, path: str, captures: list[Capture]) -> FileRecord:
    filename = path.rsplit("/", 1)[-1]
    with store.create(path) as out:
        out.write(_warcinfo(filename))
        for capture in captures:
            out.write(_response(capture, _record_id(filename)))
    return FileRecord(path=path, rows=len(captures), bytes=out.size, sha256=out.sha256)


def _warcinfo(filename: str) -> bytes:
    body = b"software: gristmill\r\nformat: WARC File Format 1.0\r\nisPartOf: sample\r\n"
    fields = {
        "WARC-Type": "warcinfo",
        "WARC-Date": CAPTURED,
        "WARC-Record-ID": _record_id(filename),
        "WARC-Filename": filename,
        "Content-Type": "application/warc-fields",
    }
    return _member(fields, body)


def _response(capture: Capture, warcinfo_id: str) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {capture.content_type}\r\nContent-Length: {len(capture.body)}\r\n\r\n"
    block = head.encode() + capture.body
    fields = {
        "WARC-Type": "response",
        "WARC-Date": CAPTURED,
        "WARC-Record-ID": _record_id(capture.url),
        "Content-Type": "application/http; msgtype=response",
        "WARC-Warcinfo-ID": warcinfo_id,
        "WARC-Target-URI": capture.url,
        "WARC-Payload-Digest": sha1_digest(capture.body),
        "WARC-Block-Digest": sha1_digest(block),
        "WARC-Identified-Payload-Type": capture.content_type,
    }
    return _member(fields, block)


def _member(fields: dict[str, str], block: bytes) -> bytes:
    """One WARC record as a gzip member of its own, without a time in its header."""
    lines = [f"{name}: {value}\r\n" for name, value in (fields | {"Content-Length": str(len(block))}).items()]
    return gzip.compress("".join(["WARC/1.0\r\n", *lines, "\r\n"]).encode() + block + b"\r\n\r\n", mtime=0)


def _record_id(name: str) -> str:
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, name)}>"
