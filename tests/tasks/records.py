"""Archives and crawls for tests: records written byte by byte, so that each can be wrong in its own way."""

import gzip
import hashlib
import html
from collections.abc import Sequence
from pathlib import Path

from tasks.sources.warc import sha1_digest

CRAWL = "CC-MAIN-2026-07"
DATE = "2026-02-14T03:04:05Z"


def record(kind: str, url: str, block: bytes, **headers: str | None) -> bytes:
    """One WARC record. Headers replace or, with None, remove what stands there by default; _ is read as -."""
    fields: dict[str, str | None] = {
        "WARC-Type": kind,
        "WARC-Date": DATE,
        "WARC-Record-ID": f"<urn:uuid:{hashlib.md5(url.encode() + block).hexdigest()}>",
        "WARC-Target-URI": url,
        "Content-Type": "application/http; msgtype=response",
        "Content-Length": str(len(block)),
    }
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"WARC/1.0\r\n{head}\r\n".encode() + block + b"\r\n\r\n"


def http(
    body: bytes, status: str = "200 OK", content_type: str | None = "text/html; charset=utf-8", **more: str
) -> bytes:
    """An HTTP response message."""
    fields = {} if content_type is None else {"Content-Type": content_type}
    fields |= {name.replace("_", "-"): value for name, value in more.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def response(
    url: str, body: bytes, status: str = "200 OK", content_type: str | None = "text/html; charset=utf-8"
) -> bytes:
    """A response record with a right payload digest."""
    return record("response", url, http(body, status, content_type), WARC_Payload_Digest=sha1_digest(body))


def warcinfo() -> bytes:
    """The record that opens every archive."""
    return record(
        "warcinfo", "urn:info", b"software: none\r\n", WARC_Target_URI=None, Content_Type="application/warc-fields"
    )


def members(*records: bytes) -> bytes:
    """Each record as a gzip member of its own, as Common Crawl writes them."""
    return b"".join(gzip.compress(each, mtime=0) for each in records)


def write_crawl(root: Path, shards: Sequence[bytes | None], archive: str = "warc", crawl: str = CRAWL) -> list[str]:
    """A crawl in Common Crawl's layout. A shard that is None is listed and missing. Returns the listed paths."""
    paths = [f"crawl-data/{crawl}/segments/1.0/{archive}/part-{n:05d}.{archive}.gz" for n in range(len(shards))]
    listing = root / f"crawl-data/{crawl}/{archive}.paths.gz"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_bytes(gzip.compress("".join(f"{path}\n" for path in paths).encode(), mtime=0))
    for path, data in zip(paths, shards, strict=True):
        if data is not None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
    return paths


def page(text: str, title: str = "A page") -> bytes:
    """An HTML page with a text as its main content."""
    body = "".join(f"<p>{html.escape(part)}</p>\n" for part in text.split("\n\n"))
    return f"<!DOCTYPE html><html><head><title>{title}</title></head><body><main>{body}</main></body></html>".encode()
