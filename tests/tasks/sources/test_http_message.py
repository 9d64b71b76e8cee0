"""HTTP responses as servers send them: parsed leniently, decoded within a limit."""

import gzip
import time
import zlib
from pathlib import Path

import pytest
from fastwarc.stream_io import BrotliWriter, ZstdWriter

from tasks.sources.http_message import BodyTooLargeError, decoded_body, parse_message
from tests.tasks.records import http

BODY = b"<html>hello</html>" * 50


def packed(kind: type, folder: Path, data: bytes) -> bytes:
    writer = kind(str(folder / "packed"))
    writer.write(data)
    writer.close()
    return (folder / "packed").read_bytes()


def decode(body: bytes, limit: int = 1 << 20, **headers: str) -> bytes:
    message = parse_message(http(body, **headers))
    assert message is not None
    return decoded_body(message, limit)


def test_status_headers_and_body() -> None:
    message = parse_message(
        b"HTTP/1.1 404 Not Found\r\nX-A: 1\r\nx-a: 2\r\nFolded: a\r\n b\r\nno colon\r\n\r\nbody\r\n\r\n"
    )
    assert message is not None
    assert (message.status, message.headers) == (404, {"x-a": ["1", "2"], "folded": ["a b"]})
    assert message.body == b"body\r\n\r\n"
    assert message.header("x-none") is None


@pytest.mark.parametrize(
    ("stated", "content_type", "charset"),
    [
        ("text/html; charset=utf-8", "text/html", "utf-8"),
        ("TEXT/HTML;CHARSET = 'Latin-1'; x=y", "text/html", "Latin-1"),
        ("; charset=", "", None),
        ("text/html;;charset=\xff", "text/html", "\xff"),
    ],
)
def test_types_and_charsets(stated: str, content_type: str, charset: str | None) -> None:
    message = parse_message(f"HTTP/1.0 200\r\nContent-Type: {stated}\r\n\r\n".encode("latin-1"))
    assert message is not None
    assert (message.content_type, message.charset) == (content_type, charset)


@pytest.mark.parametrize("block", [b"HTTP/1.1 200 OK\nA: b\n\nbody", b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody"])
def test_lines_may_end_either_way(block: bytes) -> None:
    message = parse_message(block)
    assert message is not None
    assert (message.headers, message.body) == ({"a": ["b"]}, b"body")


@pytest.mark.parametrize(
    "block", [b"", b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n"]
)
def test_what_is_no_response(block: bytes) -> None:
    assert parse_message(block) is None


def test_a_response_of_headers_alone_has_an_empty_body() -> None:
    message = parse_message(b"HTTP/1.1 200 OK\r\nA: b")
    assert message is not None
    assert (message.headers, message.body) == ({"a": ["b"]}, b"")
    assert parse_message(b"HTTP/1.1 200 OK\r\nA: " + b"x" * 2_000_000) is None


def test_every_encoding_is_removed(tmp_path: Path) -> None:
    bodies = {
        "gzip": gzip.compress(BODY),
        "x-gzip": gzip.compress(BODY[:100]) + gzip.compress(BODY[100:]),
        "deflate": zlib.compress(BODY),
        "DEFLATE": zlib.compress(BODY)[2:-4],
        "br": packed(BrotliWriter, tmp_path, BODY),
        "zstd": packed(ZstdWriter, tmp_path, BODY),
        "gzip, gzip": gzip.compress(gzip.compress(BODY)),
        "identity": BODY,
    }
    for encoding, body in bodies.items():
        assert decode(body, Content_Encoding=encoding) == BODY, encoding


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "nonsense"])
def test_an_encoding_that_was_not_applied_is_ignored(encoding: str) -> None:
    assert decode(BODY, Content_Encoding=encoding) == BODY
    assert decode(b"", Content_Encoding=encoding) == b""


def test_a_body_that_breaks_off_keeps_what_was_decoded() -> None:
    whole = zlib.compressobj(wbits=31)
    body = whole.compress(BODY) + whole.flush(zlib.Z_SYNC_FLUSH)
    assert decode(body, Content_Encoding="gzip") == BODY


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"5\r\nhello\r\n3;x=1\r\nabc\r\n0\r\n\r\n", b"helloabc"),
        (b"5\r\nhello\r\n3\r\na", b"helloa"),
        (b"5\nhello\n0\n\n", b"hello"),
        (b"<html>", b"<html>"),
        (b"0\r\n\r\n", b""),
        (b"ffffffffffffff\r\nx", b"x"),
    ],
)
def test_chunks(body: bytes, expected: bytes) -> None:
    assert decode(body, Transfer_Encoding="chunked") == expected


def test_a_chunked_body_that_is_compressed() -> None:
    inner = gzip.compress(BODY)
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)
    assert decode(body, Transfer_Encoding="chunked", Content_Encoding="gzip") == BODY


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_bomb_is_refused_at_the_limit(layers: int) -> None:
    body = bytes(30_000_000)
    for _ in range(layers):
        body = gzip.compress(body, 1)
    with pytest.raises(BodyTooLargeError):
        decode(body, Content_Encoding=", ".join(["gzip"] * layers))
    assert decode(body, 30_000_000, Content_Encoding=", ".join(["gzip"] * layers)) == bytes(30_000_000)


def test_hostile_bodies_take_no_time() -> None:
    started = time.process_time()
    decode(b"1\r\nx\r\n" * 200_000, 1 << 30, Transfer_Encoding="chunked")
    decode(gzip.compress(b"x") * 20_000, Content_Encoding="gzip")
    decode(b"9" * 5_000_000, 1 << 30, Transfer_Encoding="chunked")
    assert time.process_time() - started < 2
