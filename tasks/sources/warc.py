"""WARC records out of a byte stream, whatever state the file is in.

Sound files are read by fastwarc in one pass. Where it fails, and at the end of every compressed file (it takes an
empty member for the end), reading goes on from the last sound member, member by member: Common Crawl writes each
record as a gzip member of its own, so a corrupt member costs itself alone. Within uncompressed bytes reading goes on
at the next line that opens a record. Each stretch of damage is reported once, with its offset. No record is held in
memory beyond the limit of its size, however small it was compressed.

Sources: WARC 1.0/1.1 (ISO 28500), RFC 1952 (gzip), and Common Crawl's "Get Started" page on its layout.
"""

import base64
import hashlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from fastwarc.warc import ArchiveIterator, WarcRecordType

from tasks.sources.tape import BLOCK_BYTES, KEPT_BYTES, Tape

GZIP_MAGIC = b"\x1f\x8b\x08"
FRAME_MAGICS = (b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd")
"""LZ4 and Zstandard."""
DIGEST_HEADERS = ("WARC-Block-Digest", "WARC-Payload-Digest")
RECORD_OPENING = b"\nWARC/1."
_BASE32 = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz234567+-_ ",
    "0123456789abcdefghijklmnop" * 2 + "qrstuv" + "****",
)
"""Digits of base 32 as RFC 4648 and as Python write them; what int() takes beside digits is none."""
_UNKNOWN = int(WarcRecordType.unknown)


@dataclass(frozen=True)
class Broken:
    """A place in an archive that could not be read, with a reason code."""

    offset: int
    reason: str
    detail: str
    url: str | None = None


@dataclass(frozen=True)
class Record:
    """A whole, verified record: `offset` is where its member starts, `position` how many stand before it therein."""

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
class Limits:
    """What is read of each record, and whether it is checked."""

    max_bytes: int
    verify_digests: bool
    kinds: int


def read_records(
    stream: BinaryIO, max_record_bytes: int, verify_digests: bool, kinds: int = int(WarcRecordType.any_type)
) -> Iterator[Record | Broken]:
    """Yield every record of the wanted kinds, or what is broken in its place.

    Errors of the stream itself (SourceUnavailableError and the like) pass through.
    """
    tape, limits = Tape(stream), Limits(max_record_bytes, verify_digests, int(kinds))
    head = tape.read(len(FRAME_MAGICS[0]))
    tape.seek(0)
    if not head:
        yield Broken(0, "empty_file", "the file has no bytes")
    elif head.startswith((GZIP_MAGIC, *FRAME_MAGICS)):
        yield from _framed(tape, limits, GZIP_MAGIC if head.startswith(GZIP_MAGIC) else head)
    elif not head.startswith(b"WARC") and (member := _first_member(tape)) is not None:
        yield Broken(0, "gzip_corrupt", "the file does not begin with a gzip member")
        yield from _members(tape, member, 0, limits)
    else:
        yield from _plain(tape, None, limits)


def _first_member(tape: Tape) -> int | None:
    """Where a compressed file whose beginning is damaged has its first member; None for what is none."""
    beginning = b"".join(iter(lambda: tape.read(BLOCK_BYTES) if tape.tell() < KEPT_BYTES // 2 else b"", b""))
    member, record = beginning.find(GZIP_MAGIC), beginning.find(RECORD_OPENING)
    tape.seek(0)
    return member if member >= 0 and (record < 0 or member < record) else None


def _framed(tape: Tape, limits: Limits, magic: bytes) -> Iterator[Record | Broken]:
    """Records of a compressed file, each in a frame (a gzip member) of its own or several in one.

    For all but the first record of a frame fastwarc gives the start of the next frame; so a record opens a frame if
    the one behind it stands farther on.
    """
    frame = count = 0
    waiting: tuple[int, Any] | None = None
    damaged = False
    while True:
        error = ""
        try:
            for warc in ArchiveIterator(cast("Any", tape), record_types=WarcRecordType.any_type, parse_http=False):
                place = warc.stream_pos
                if waiting is not None:
                    frame, count = (waiting[0], 0) if place > waiting[0] else (frame, count)
                    yield from _placed(waiting[1], frame, count)
                    damaged, count = False, count + 1
                    tape.keep(frame)
                outcome = _outcome(warc, limits)
                if isinstance(outcome, Broken) and outcome.reason not in ("record_too_large", "digest_mismatch"):
                    error, waiting = outcome.detail, None if magic == GZIP_MAGIC else (place, outcome)
                    break
                waiting = place, outcome
        except OSError as failure:
            error = str(failure)
        except Exception:  # the stream broke off, not the archive: hand on what was read
            if waiting is not None:
                yield from _placed(waiting[1], waiting[0], 0)
            raise
        if magic == GZIP_MAGIC:  # from here on member by member, beginning with the last that was handed on
            lost = tape.start > frame
            if lost and waiting is not None:
                yield from _placed(waiting[1], waiting[0], 0)
            if lost and error:
                yield Broken(frame, "gzip_corrupt", error)
            if not lost or error:
                yield from _members(tape, frame, count, limits)
            return
        if waiting is not None:
            frame, count = (waiting[0], 0) if _opens_frame(tape, waiting[0], magic) else (frame, count)
            yield from _placed(waiting[1], frame, count)
            damaged = isinstance(waiting[1], Broken)
        if not error:
            return
        if not damaged:
            yield Broken(frame, "invalid_record", error)
        damaged, waiting = True, None
        restart = tape.find(magic, max(frame + 1, tape.start))
        if restart is None:
            return
        frame, count = restart, 0


def _opens_frame(tape: Tape, offset: int, magic: bytes) -> bool:
    if not tape.start <= offset < tape.end:
        return False
    tape.seek(offset)
    return tape.read(len(magic)) == magic


def _placed(outcome: "Outcome", offset: int, position: int) -> Iterator[Record | Broken]:
    if isinstance(outcome, Broken):
        yield Broken(offset, outcome.reason, outcome.detail, outcome.url)
    elif outcome is not None:
        yield Record(offset, position, *outcome)


class DamagedMemberError(Exception):
    """A gzip member that cannot be read to its end."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Member(io.RawIOBase):
    """The decompressed bytes of the gzip member at a tape's position; DamagedMemberError where they end too early."""

    def __init__(self, tape: Tape) -> None:
        self._tape, self._inflater = tape, zlib.decompressobj(wbits=31)

    def readable(self) -> bool:
        """Say yes."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Some bytes, at most `size`; none at the member's end only."""
        while not self._inflater.eof:
            block = self._inflater.unconsumed_tail or self._tape.read(BLOCK_BYTES)
            if not block:
                raise DamagedMemberError("gzip_truncated", "the file ends inside a member")
            try:
                data = self._inflater.decompress(block, max(0, size))
            except zlib.error as error:
                raise DamagedMemberError("gzip_corrupt", str(error)) from error
            if data:
                return data
        return b""

    def finish(self) -> None:
        """Read what is left, and put the tape at the byte behind the member."""
        while self.read(BLOCK_BYTES):
            pass
        self._tape.seek(self._tape.tell() - len(self._inflater.unused_data))


def _members(tape: Tape, offset: int, known: int, limits: Limits) -> Iterator[Record | Broken]:
    """Records of the gzip members from an offset on, but the first `known`; damage ends at the next sound member."""
    start: int | None = tape.find(GZIP_MAGIC, offset)
    damaged = start != offset
    while start is not None:
        tape.keep(start)
        member = Member(tape)
        try:
            yield from _plain(Tape(member), start, limits, known if start == offset else 0)
            member.finish()
        except DamagedMemberError as error:
            if not damaged:
                yield Broken(start, error.reason, error.detail)
            damaged = True
            start = tape.find(GZIP_MAGIC, max(start + 1, tape.start))
            continue
        damaged, start = False, tape.tell()
        if not tape.read(1):
            return
        tape.seek(start)


def _plain(tape: Tape, member: int | None, limits: Limits, known: int = 0) -> Iterator[Record | Broken]:
    """Records of uncompressed bytes, from the tape's position on: of a whole file, or of the member at an offset.

    The first `known` are passed over.
    """
    count, damaged, bare = 0, False, _has_bare_line_ends(tape)
    while True:
        begin, error = tape.tell(), "no WARC header"
        waiting: tuple[int, Any] | None = None
        try:
            for warc in ArchiveIterator(
                cast("Any", tape),
                record_types=WarcRecordType.any_type,
                parse_http=False,
                stream_detect=False,
                quirks_mode=bare,
            ):
                if waiting is not None:
                    if count >= known:
                        yield from _placed(waiting[1], *_place(waiting[0], member, count))
                    count += 1
                tape.keep(warc.stream_pos)
                waiting = warc.stream_pos, _outcome(warc, limits)
                damaged = False
            error = "" if waiting is not None else error
        except OSError as failure:
            error = str(failure)
        if waiting is None:
            resume = begin
            if not damaged:
                yield Broken(begin if member is None else member, "invalid_record", error)
        else:
            outcome, resume = _judge_last(tape, *waiting, bool(error))
            if count >= known:
                yield from _placed(outcome, *_place(waiting[0], member, count))
            count += 1
            if error and not isinstance(outcome, Broken):
                yield Broken(resume if member is None else member, "invalid_record", error)
            if not error and not isinstance(outcome, Broken):
                return
        damaged = True
        found = tape.find(RECORD_OPENING, max(resume, tape.start))
        if found is None:
            return
        tape.seek(found + 1)


def _has_bare_line_ends(tape: Tape) -> bool:
    """Whether header lines end in a newline alone, against the standard. Fastwarc's mode for them skips all garbage."""
    start = tape.tell()
    head = tape.read(512)
    tape.seek(start)
    line, newline, _ = head.partition(b"\n")
    return bool(newline) and line.startswith(b"WARC/") and not line.endswith(b"\r")


def _place(start: int, member: int | None, count: int) -> tuple[int, int]:
    """Offset and position of a record: an uncompressed file has an offset for each."""
    return (start, 0) if member is None else (member, count)


def _judge_last(tape: Tape, start: int, outcome: "Outcome", lost: bool) -> tuple["Outcome", int]:
    """What the record was, behind which reading lost its way or ended, and where to look for the next one."""
    head = tape.find(b"\r\n\r\n", start)
    body = start + 1 if head is None else head + 4
    if isinstance(outcome, tuple):
        block = outcome[1]
        if lost and RECORD_OPENING in b"\n" + block and not _states_digest(outcome[0].headers):
            url = outcome[0].headers.get("WARC-Target-URI")
            return Broken(start, "invalid_record", "its Content-Length reaches over the next record", url), body
        return outcome, body + len(block)
    return outcome, body


Outcome = tuple[Any, bytes] | Broken | None
"""A record and its block, or what is wrong with it, or nothing if its kind is not wanted."""


def _outcome(warc: Any, limits: Limits) -> Outcome:
    """Read and check a record; the place of what is broken is not known yet."""
    kind = int(warc.record_type)
    if not kind & (limits.kinds | _UNKNOWN):
        return None
    header = warc.headers.get
    url, declared = header("WARC-Target-URI"), header("Content-Length") or ""
    if not (declared.isascii() and declared.isdigit()) or header("WARC-Type") is None:
        detail = f"WARC-Type {header('WARC-Type')!r}, Content-Length {declared[:40]!r}"
        return Broken(0, "invalid_record", detail, url)
    if not kind & limits.kinds:
        return None
    length = int(declared)
    if length > limits.max_bytes:
        return Broken(0, "record_too_large", f"{length:,} bytes, {limits.max_bytes:,} allowed", url)
    block = warc.reader.read(length)
    if len(block) != length:
        return Broken(0, "record_truncated", f"{len(block):,} bytes of {length:,}", url)
    wrong = wrong_digest(warc.headers, block) if limits.verify_digests else None
    return (warc, block) if wrong is None else Broken(0, "digest_mismatch", wrong, url)


def _states_digest(headers: Any) -> bool:
    return any(headers.get(name) for name in DIGEST_HEADERS)


def wrong_digest(headers: Any, block: bytes) -> str | None:
    """What contradicts the record's digest, or None. Block digests are checked, payload digests in their absence."""
    for name in DIGEST_HEADERS:
        stated = headers.get(name)
        if stated is None:
            continue
        algorithm, _, value = stated.partition(":")
        if algorithm.lower() not in hashlib.algorithms_available or algorithm.lower().startswith("shake"):
            return None
        data = block if name == "WARC-Block-Digest" else http_body(block)
        actual = hashlib.new(algorithm.lower(), data, usedforsecurity=False).digest()
        return None if _number(value, len(actual)) == int.from_bytes(actual, "big") else f"{name} says {stated}"
    return None


def sha1_digest(data: bytes | memoryview) -> str:
    """A digest as Common Crawl writes it: sha1, base32."""
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


def http_body(block: bytes) -> memoryview:
    """The body of an HTTP message, encodings left on; the whole block if it is none."""
    end = block.find(b"\r\n\r\n") if block.startswith(b"HTTP/") else -1
    return memoryview(block)[end + 4 if end >= 0 else 0 :]


def _number(value: str, size: int) -> int | None:
    """A digest of so many bytes, written in base 16 or 32, as a number: decoding base32 takes longer than hashing."""
    try:
        return int(value, 16) if len(value) == 2 * size else int(value.rstrip("=").translate(_BASE32), 32)
    except ValueError:
        return None
