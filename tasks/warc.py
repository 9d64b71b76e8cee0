"""WARC records out of a byte stream, whatever state the file is in.

Common Crawl writes each record as a gzip member of its own. Members are cut with zlib here rather than inside the
WARC parser, so that a corrupt member costs itself alone: reading goes on at the next member, and the damage is
reported with its offset. Records inside a member are parsed by fastwarc. Uncompressed, LZ4 and Zstandard files go to
fastwarc whole.

Sources: WARC 1.0/1.1 (ISO 28500), RFC 1952 (gzip), and Common Crawl's "Get Started" page on its layout.
"""

import base64
import binascii
import hashlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from fastwarc.warc import ArchiveIterator, WarcRecordType

GZIP_MAGIC = b"\x1f\x8b\x08"
BLOCK_BYTES = 1 << 18
_OUTPUT_BYTES = 1 << 22


@dataclass(frozen=True)
class Broken:
    """A place in an archive that could not be read, with a reason code."""

    offset: int
    reason: str
    detail: str
    url: str | None = None


@dataclass(frozen=True)
class Record:
    """A whole, verified record. `offset` is where its gzip member starts; `position` is where it stands within."""

    offset: int
    position: int
    warc: Any
    block: bytes

    @property
    def kind(self) -> Any:
        """Fastwarc's record type."""
        return self.warc.record_type

    def header(self, name: str) -> str | None:
        """A WARC header, or None."""
        return self.warc.headers.get(name)


@dataclass(frozen=True)
class Member:
    """One decompressed gzip member and the file offset at which it starts."""

    offset: int
    data: bytes


def read_records(stream: BinaryIO, max_record_bytes: int, verify_digests: bool) -> Iterator[Record | Broken]:
    """Yield every record of an archive, or what is broken in its place.

    Errors of the stream itself (SourceUnavailableError and the like) pass through.
    """
    reader = io.BufferedReader(stream, BLOCK_BYTES) if isinstance(stream, io.RawIOBase) else stream
    head = reader.read(8)  # enough for any compression's magic number
    if not head:
        yield Broken(0, "empty_file", "the file has no bytes")
        return
    whole = _Rejoined(head, reader)
    if not head.startswith(GZIP_MAGIC):
        yield from _parse(whole, None, max_record_bytes, verify_digests)
        return
    for member in read_members(whole, max_record_bytes):
        if isinstance(member, Broken):
            yield member
        else:
            yield from _parse(io.BytesIO(member.data), member.offset, max_record_bytes, verify_digests)


def read_members(stream: Any, max_bytes: int) -> Iterator[Member | Broken]:
    """Cut a stream into gzip members; a damaged stretch yields one `Broken` and ends at the next sound member."""
    window = _Window(stream)
    damaged = False
    while window.fill(len(GZIP_MAGIC)):
        start = window.offset
        outcome = _inflate(window, max_bytes)
        if isinstance(outcome, Member):
            damaged = False
            yield outcome
            continue
        if outcome.reason == "record_too_large":
            yield outcome
            continue
        if not damaged:
            yield outcome
        damaged = True
        window.seek_magic(start + 1)


def _inflate(window: "_Window", max_bytes: int) -> Member | Broken:
    """Decompress the member at the window's start; on success or oversize the window stands behind it."""
    start, inflater = window.offset, zlib.decompressobj(wbits=31)
    parts: list[bytes] = []
    size = cursor = 0
    while not inflater.eof:
        block = inflater.unconsumed_tail or window.at(cursor)
        if not block:
            return Broken(start, "gzip_truncated", f"the file ends inside a member that starts at byte {start:,}")
        fresh = not inflater.unconsumed_tail
        try:
            part = inflater.decompress(block, _OUTPUT_BYTES)
        except zlib.error as error:
            return Broken(start, "gzip_corrupt", str(error))
        cursor += len(block) if fresh else 0
        size += len(part)
        if size <= max_bytes:
            parts.append(part)
        else:  # too large: keep no output, and of the input only what is not yet consumed
            parts.clear()
            held = len(inflater.unconsumed_tail) + len(inflater.unused_data)
            window.forget(cursor - held)
            cursor = held
    window.forget(cursor - len(inflater.unused_data))
    if size > max_bytes:
        return Broken(start, "record_too_large", f"{size:,} bytes uncompressed, {max_bytes:,} allowed")
    return Member(start, b"".join(parts))


class _Window:
    """The raw bytes from the start of the current member on, so that a damaged member can be searched again."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._raw = bytearray()
        self.offset = 0

    def fill(self, size: int) -> bool:
        """Hold at least some bytes; False at the end of the file."""
        while len(self._raw) < size and (block := self._stream.read(BLOCK_BYTES)):
            self._raw += block
        return bool(self._raw)

    def at(self, cursor: int) -> bytes:
        """The bytes held beyond a cursor, reading on if there are none; empty at the end of the file."""
        if cursor == len(self._raw):
            self._raw += self._stream.read(BLOCK_BYTES)
        return bytes(self._raw[cursor : cursor + BLOCK_BYTES])

    def forget(self, count: int) -> None:
        """Move the start forward."""
        del self._raw[:count]
        self.offset += count

    def seek_magic(self, offset: int) -> None:
        """Move the start to the next gzip magic at or after an offset, or to the end of the file."""
        self.forget(max(0, offset - self.offset))
        while True:
            found = self._raw.find(GZIP_MAGIC)
            if found >= 0:
                return self.forget(found)
            self.forget(max(0, len(self._raw) - len(GZIP_MAGIC) + 1))
            block = self._stream.read(BLOCK_BYTES)
            if not block:
                return self.forget(len(self._raw))
            self._raw += block


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were read already and are put in front again."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest, self._position = head, rest, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data, self._head = (self._head, b"") if self._head else (self._rest.read(size), b"")
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        # fastwarc asks where it is by seeking nowhere; it never moves.
        if (offset, whence) not in ((0, io.SEEK_CUR), (self._position, io.SEEK_SET)):
            raise io.UnsupportedOperation("a stream cannot be rewound")
        return self._position

    def tell(self) -> int:
        return self._position


def _parse(source: Any, member: int | None, max_bytes: int, verify_digests: bool) -> Iterator[Record | Broken]:
    """Records of the member at an offset, or (None) of a file that is no gzip, where each has an offset of its own."""
    offset, outcome = member or 0, None
    try:
        for warc in ArchiveIterator(source, record_types=WarcRecordType.any_type, parse_http=False):
            offset = warc.stream_pos if member is None else member
            position = 0 if member is None else warc.stream_pos
            block = warc.reader.read(max_bytes + 1)
            outcome = _check(Record(offset, position, warc, block), max_bytes, verify_digests)
            yield outcome
    except OSError as error:
        if not isinstance(outcome, Broken):  # behind a broken record the parser is lost: that is one damage, not two
            yield Broken(offset, "invalid_record", str(error))
        return
    if outcome is None:
        yield Broken(offset, "invalid_record", "no WARC header at the start of the member")


def _check(record: Record, max_bytes: int, verify_digests: bool) -> Record | Broken:
    url = record.header("WARC-Target-URI")
    declared = record.header("Content-Length") or ""
    kind = record.header("WARC-Type")
    if not declared.isdigit() or kind is None:
        return Broken(record.offset, "invalid_record", f"WARC-Type {kind!r}, Content-Length {declared!r}", url)
    if len(record.block) > max_bytes:
        return Broken(record.offset, "record_too_large", f"{int(declared):,} bytes, {max_bytes:,} allowed", url)
    if len(record.block) != int(declared):
        detail = f"{len(record.block):,} bytes of {int(declared):,}"
        return Broken(record.offset, "record_truncated", detail, url)
    wrong = wrong_digest(record) if verify_digests else None
    return record if wrong is None else Broken(record.offset, "digest_mismatch", wrong, url)


def wrong_digest(record: Record) -> str | None:
    """What contradicts the record's digest, or None. Block digests are checked, payload digests in their absence."""
    for header, data in (("WARC-Block-Digest", record.block), ("WARC-Payload-Digest", http_body(record.block))):
        stated = record.header(header)
        if stated is None:
            continue
        algorithm, _, value = stated.partition(":")
        if algorithm.lower() not in hashlib.algorithms_available:
            return None
        actual = hashlib.new(algorithm.lower(), data, usedforsecurity=False).digest()
        return None if _decode_digest(value) == actual else f"{header} says {stated}"
    return None


def sha1_digest(data: bytes) -> str:
    """A digest as Common Crawl writes it: sha1, base32."""
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


def http_body(block: bytes) -> bytes:
    """The body of an HTTP message, encodings left on; the whole block if it is none."""
    head, separator, body = block.partition(b"\r\n\r\n")
    return body if separator and head.startswith(b"HTTP/") else block


def _decode_digest(value: str) -> bytes | None:
    try:
        return base64.b32decode(value.upper()) if len(value) == 32 else bytes.fromhex(value)
    except (binascii.Error, ValueError):
        return None
