"""HTTP responses as archives hold them: headers parsed leniently, bodies decoded within a limit of size.

Archives hold what servers sent: header lines of any bytes, encodings that were never applied, bodies that a few bytes
blow up to gigabytes. So an encoding that does not fit its body is ignored, as browsers do, a body that breaks off
keeps what was decoded, and nothing is decoded beyond the limit. Source: RFC 9110 and RFC 9112.
"""

import io
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastwarc.stream_io import BrotliReader, GzipReader, ZstdReader

_STATUS = re.compile(rb"HTTP/\d(?:\.\d)?[ \t]++(\d{3})(?!\d)")
_CHARSET = re.compile(r"charset\s*+=\s*+[\"']?\s*+([^\s\"';,]++)", re.I)
_FOLDED = re.compile(rb"\r?\n[ \t]++")
_CHUNK = re.compile(rb"[ \t]*+([0-9A-Fa-f]{1,15})[ \t]*+(?:;[^\r\n]*+)?\r?\n")
_MAX_HEADER_BYTES = 1 << 20
_MAX_ENCODINGS = 4
_STEP_BYTES = 1 << 18


class BodyTooLargeError(Exception):
    """A body that decodes to more bytes than allowed."""


@dataclass(frozen=True)
class Message:
    """A response: status, values of each header by its lower-case name, and the body as it was sent."""

    status: int
    headers: dict[str, list[str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of a header, given in lower case."""
        values = self.headers.get(name)
        return values[0] if values else None

    @property
    def content_type(self) -> str:
        """The declared media type in lower case, without parameters; empty if none is declared."""
        return (self.header("content-type") or "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str | None:
        """The declared character encoding."""
        found = _CHARSET.search(self.header("content-type") or "")
        return found[1] if found else None


def parse_message(block: bytes) -> Message | None:
    """Parse a response; None for what is none."""
    status = _STATUS.match(block)
    if status is None:
        return None
    end, size = block.find(b"\r\n\r\n", 0, _MAX_HEADER_BYTES), 4
    bare = block.find(b"\n\n", 0, end if end >= 0 else _MAX_HEADER_BYTES)
    if bare >= 0:
        end, size = bare, 2
    if end < 0:
        if len(block) > _MAX_HEADER_BYTES:
            return None
        end = len(block)
    head = block[:end]
    if b"\n " in head or b"\n\t" in head:
        head = _FOLDED.sub(b" ", head)
    headers: dict[str, list[str]] = {}
    for line in head.decode("latin-1").split("\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), []).append(value.strip())
    return Message(int(status[1]), headers, block[end + size :])


def decoded_body(message: Message, limit: int) -> bytes:
    """The body with its transfer and content encodings removed; BodyTooLargeError beyond a limit of bytes."""
    body = message.body
    for name in ("transfer-encoding", "content-encoding"):
        values = message.headers.get(name)
        for encoding in _encodings(values) if values else ():
            decode = _DECODERS.get(encoding)
            body = decode(body, limit) if decode is not None and body else body
    if len(body) > limit:
        raise BodyTooLargeError
    return body


def _encodings(values: list[str]) -> list[str]:
    """Names of encodings in the order in which they are to be removed."""
    names = [name.strip().lower() for value in values for name in value.split(",")]
    return names[::-1][:_MAX_ENCODINGS]


def _unchunk(body: bytes, limit: int) -> bytes:
    """Join the chunks; a body that is not chunked stays as it is, one that breaks off keeps what there is."""
    parts: list[bytes] = []
    place = 0
    while (match := _CHUNK.match(body, place)) is not None:
        start, size = match.end(), int(match[1], 16)
        parts.append(body[start : start + size])
        place = start + size
        place += 2 if body.startswith(b"\r\n", place) else body.startswith(b"\n", place)
        if size == 0:
            break
    return b"".join(parts) if parts else body


def _inflate(body: bytes, limit: int) -> bytes:
    """Zlib's format as RFC 9110 says, or the raw deflate that some servers send."""
    wrapped = body[0] & 0x0F == 8 and len(body) > 1 and int.from_bytes(body[:2], "big") % 31 == 0
    inflater = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)

    def read(size: int) -> bytes:
        nonlocal pending
        if inflater.eof:
            return b""
        data = inflater.decompress(pending, size)
        pending = inflater.unconsumed_tail
        return data

    pending = body
    return _bounded(read, body, limit)


def _reader(reader: Any, magic: bytes = b"") -> Callable[[bytes, int], bytes]:
    def decode(body: bytes, limit: int) -> bytes:
        return _bounded(reader(io.BytesIO(body)).read, body, limit) if body.startswith(magic) else body

    return decode


def _bounded(read: Callable[[int], bytes], body: bytes, limit: int) -> bytes:
    """Everything up to the end or the first error; the body itself if there is nothing."""
    parts: list[bytes] = []
    size = 0
    try:
        while part := read(_STEP_BYTES):
            parts.append(part)
            size += len(part)
            if size > limit:
                raise BodyTooLargeError
    except (OSError, ValueError, zlib.error):
        pass
    return b"".join(parts) or body


_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "chunked": _unchunk,
    "gzip": _reader(GzipReader, b"\x1f\x8b"),
    "x-gzip": _reader(GzipReader, b"\x1f\x8b"),
    "deflate": _inflate,
    "br": _reader(BrotliReader),
    "zstd": _reader(ZstdReader, b"\x28\xb5\x2f\xfd"),
}
