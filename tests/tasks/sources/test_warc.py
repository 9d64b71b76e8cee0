"""Archives in every state: what is sound is read, what is broken is reported once, at its offset."""

import gzip
import io
import random
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastwarc.stream_io import Lz4Writer, ZstdWriter

from tasks.sources.warc import Broken, Record, read_records, sha1_digest
from tests.tasks.records import http, members, record, response, warcinfo

A, B, C = (response(f"http://{name}.example/", f"<html>page {name}".encode()) for name in "abc")
LIMIT = 1 << 20


def read(data: bytes, limit: int = LIMIT, verify: bool = True) -> list[Record | Broken]:
    return list(read_records(io.BytesIO(data), limit, verify))


def urls(found: list[Record | Broken]) -> list[str | None]:
    return [each.header("WARC-Target-URI") for each in found if isinstance(each, Record)]


def broken(found: list[Record | Broken]) -> list[tuple[int, str]]:
    return [(each.offset, each.reason) for each in found if isinstance(each, Broken)]


def test_every_record_is_read_with_the_offset_of_its_member() -> None:
    found = read(members(warcinfo(), A, B))
    assert [each.offset for each in found] == [0, len(members(warcinfo())), len(members(warcinfo(), A))]
    assert urls(found)[1:] == ["http://a.example/", "http://b.example/"]
    assert isinstance(found[1], Record)
    assert found[1].block == http(b"<html>page a")


@pytest.mark.parametrize("place", [12, 40, 100])
def test_a_corrupt_member_costs_itself_alone(place: int) -> None:
    data = bytearray(members(A, B, C))
    data[len(members(A)) + place] ^= 0xFF
    found = read(bytes(data))
    assert urls(found) == ["http://a.example/", "http://c.example/"]
    assert broken(found) == [(len(members(A)), "gzip_corrupt")]
    assert found[2].offset == len(members(A, B))


def test_a_wrong_checksum_of_a_member_is_noticed() -> None:
    data = bytearray(members(A, B))
    data[len(members(A)) - 6] ^= 0xFF
    assert broken(read(bytes(data))) == [(0, "gzip_corrupt")]
    assert urls(read(bytes(data))) == ["http://b.example/"]


def test_bytes_missing_in_the_middle_cost_one_member() -> None:
    whole = members(A, B, C)
    start = len(members(A)) + 50
    found = read(whole[:start] + whole[start + 30 :])
    assert urls(found) == ["http://a.example/", "http://c.example/"]
    assert broken(found) == [(len(members(A)), "gzip_corrupt")]


def test_a_truncated_last_member_is_reported_and_the_others_are_read() -> None:
    found = read(members(A, B, C)[:-20])
    assert urls(found) == ["http://a.example/", "http://b.example/"]
    assert broken(found) == [(len(members(A, B)), "gzip_truncated")]


@pytest.mark.parametrize(
    "data",
    [b"", b"\x1f", b"\x1f\x8b\x08", b"no archive at all", gzip.compress(b"no record", mtime=0)],
)
def test_a_file_without_records_is_one_broken_place(data: bytes) -> None:
    found = read(data)
    assert urls(found) == []
    assert [offset for offset, _ in broken(found)] == [0]


def test_a_wrong_digest_is_a_broken_record_unless_digests_are_not_verified() -> None:
    wrong = record("response", "http://w.example/", http(b"other"), WARC_Payload_Digest=sha1_digest(b"one"))
    found = read(members(A, wrong, C))
    assert broken(found) == [(len(members(A)), "digest_mismatch")]
    assert urls(found) == ["http://a.example/", "http://c.example/"]
    assert urls(read(members(A, wrong, C), verify=False))[1] == "http://w.example/"


@pytest.mark.parametrize(
    "stated",
    ["sha256:" + "0" * 64, "md5:" + "0" * 32, "sha1:???", "sha1:" + "A" * 32],
)
def test_digests_of_other_kinds_are_checked_too(stated: str) -> None:
    found = read(members(record("response", "http://w.example/", http(b"x"), WARC_Block_Digest=stated)))
    assert broken(found) == [(0, "digest_mismatch")]


def test_a_digest_of_an_unknown_algorithm_proves_nothing() -> None:
    found = read(members(record("response", "http://w.example/", http(b"x"), WARC_Block_Digest="crc99:0")))
    assert urls(found) == ["http://w.example/"]


@pytest.mark.parametrize(
    ("length", "reason"),
    [(None, "invalid_record"), ("-5", "invalid_record"), ("many", "invalid_record"), ("5000", "record_truncated")],
)
def test_a_record_without_a_true_length_is_broken_once(length: str | None, reason: str) -> None:
    bad = record("response", "http://n.example/", http(b"x"), Content_Length=length)
    found = read(members(A, bad, C))
    assert broken(found) == [(len(members(A)), reason)]
    assert urls(found) == ["http://a.example/", "http://c.example/"]
    assert [each.url for each in found if isinstance(each, Broken)] == ["http://n.example/"]


def test_an_oversized_record_costs_neither_memory_nor_its_neighbours() -> None:
    bomb = record("response", "http://bomb.example/", http(bytes(300_000_000)))
    data = members(A) + gzip.compress(bomb, 1, mtime=0) + members(C)
    del bomb
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = read(data)
    assert broken(found) == [(len(members(A)), "record_too_large")]
    assert urls(found) == ["http://a.example/", "http://c.example/"]
    assert found[2].offset == len(data) - len(members(C))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_a_small_oversized_record_among_others_in_one_block_costs_itself_alone() -> None:
    large = record("response", "http://large.example/", http(b"large " * 400))
    found = read(members(A, large, B, large, C), limit=1500)
    assert urls(found) == ["http://a.example/", "http://b.example/", "http://c.example/"]
    assert broken(found) == [
        (len(members(A)), "record_too_large"),
        (len(members(A, large, B)), "record_too_large"),
    ]


def test_an_uncompressed_file_is_read_and_each_record_has_its_own_offset() -> None:
    found = read(A + B + C)
    assert urls(found) == ["http://a.example/", "http://b.example/", "http://c.example/"]
    assert [each.offset for each in found] == [0, len(A), len(A + B)]


def test_an_oversized_record_of_an_uncompressed_file_is_passed_over() -> None:
    large = record("response", "http://large.example/", http(b"x" * 5000))
    found = read(A + large + C, limit=1500)
    assert broken(found) == [(len(A), "record_too_large")]
    assert urls(found) == ["http://a.example/", "http://c.example/"]


def test_several_records_in_one_member_are_told_apart_by_position() -> None:
    found = read(gzip.compress(A + B) + gzip.compress(C))
    assert urls(found) == ["http://a.example/", "http://b.example/", "http://c.example/"]
    places = [(each.offset, each.position) for each in found if isinstance(each, Record)]
    assert places == [(0, 0), (0, 1), (len(gzip.compress(A + B)), 0)]


def test_garbage_between_records_of_an_uncompressed_file_costs_itself_alone() -> None:
    found = read(A + b"garbage\r\n\r\n" + B + b"\0" * 300 + b"\r\n" + C)
    assert urls(found) == ["http://a.example/", "http://b.example/", "http://c.example/"]
    assert [reason for _, reason in broken(found)] == ["invalid_record", "invalid_record"]
    assert [each.offset for each in found if isinstance(each, Record)][1] == len(A + b"garbage\r\n\r\n")


@pytest.mark.parametrize("length", ["5000", "90", None, "x"])
def test_a_wrong_length_in_an_uncompressed_file_costs_its_record_alone(length: str | None) -> None:
    bad = record("response", "http://n.example/", http(b"x"), Content_Length=length)
    found = read(A + bad + B + C)
    assert urls(found) == ["http://a.example/", "http://b.example/", "http://c.example/"]
    assert [offset for offset, _ in broken(found)] == [len(A)]


def test_a_length_that_reaches_into_the_next_record_is_noticed() -> None:
    bad = record("response", "http://n.example/", http(b"x"), Content_Length=str(len(http(b"x")) + 150))
    assert urls(read(A + bad + B + C)) == ["http://a.example/", "http://b.example/", "http://c.example/"]


def test_a_page_that_quotes_a_record_is_one_record() -> None:
    quoting = response("http://q.example/", b"<html>" + B)
    assert urls(read(A + quoting + C)) == ["http://a.example/", "http://q.example/", "http://c.example/"]
    assert urls(read(A + quoting + b"garbage\r\n" + C)) == [
        "http://a.example/",
        "http://q.example/",
        "http://c.example/",
    ]


def test_records_with_bare_line_ends_are_read() -> None:
    bare = b"".join(each.replace(b"\r\n\r\nHTTP", b"\n\nHTTP").replace(b"\r\nWARC", b"\nWARC") for each in (A, B))
    assert urls(read(bare)) == ["http://a.example/", "http://b.example/"]


def test_an_empty_member_is_not_the_end() -> None:
    data = members(A) + gzip.compress(b"", mtime=0) + members(B)
    assert urls(read(data)) == ["http://a.example/", "http://b.example/"]


def test_a_file_that_is_one_large_member_is_read_record_by_record() -> None:
    found = read(gzip.compress(b"".join([A, B, C] * 50)), limit=4096)
    assert len(urls(found)) == 150
    assert [(each.offset, each.position) for each in found if isinstance(each, Record)] == [(0, n) for n in range(150)]


def framed(writer: type, folder: Path, *parts: bytes) -> bytes:
    """Each part as a frame of its own."""
    frames = b""
    for part in parts:
        out = writer(str(folder / "frame"))
        out.write(part)
        out.close()
        frames += (folder / "frame").read_bytes()
    return frames


@pytest.mark.parametrize("writer", [Lz4Writer, ZstdWriter])
def test_frames_of_other_compressions(tmp_path: Path, writer: type) -> None:
    first, second = framed(writer, tmp_path, A), framed(writer, tmp_path, B)
    third = framed(writer, tmp_path, C)
    places = [(each.offset, each.position) for each in read(first + second + third) if isinstance(each, Record)]
    assert places == [(0, 0), (len(first), 0), (len(first + second), 0)]
    whole = read(framed(writer, tmp_path, A + B + C))
    assert [(each.offset, each.position) for each in whole if isinstance(each, Record)] == [(0, 0), (0, 1), (0, 2)]
    damaged = bytearray(first + second + third)
    damaged[len(first) + 4 : len(first) + 40] = b"\xff" * 36
    found = read(bytes(damaged))
    assert urls(found) == ["http://a.example/", "http://c.example/"]
    assert [reason for _, reason in broken(found)] == ["invalid_record"]


@pytest.mark.parametrize("form", ["members", "plain", "one member", "pairs"])
def test_damage_anywhere_ends_in_no_error_and_no_false_record(form: str) -> None:
    pages = [response(f"http://{n}.example/", f"<html>page {n}".encode() * (n + 1)) for n in range(9)]
    data = {
        "members": members(*pages),
        "plain": b"".join(pages),
        "one member": gzip.compress(b"".join(pages)),
        "pairs": b"".join(gzip.compress(pages[n] + pages[n + 1]) for n in range(0, 8, 2)),
    }[form]
    blocks = {each.block for each in read(data) if isinstance(each, Record)}
    chance = random.Random(7)
    for _ in range(120):
        place, size = chance.randrange(len(data)), chance.randint(1, 300)
        noise = chance.randbytes(chance.choice([0, size]))
        found = read(data[:place] + noise + data[place + chance.choice([0, size]) :])
        sound = [each for each in found if isinstance(each, Record)]
        assert {
            each.block for each in sound if (each.header("WARC-Payload-Digest") or "").startswith("sha1:")
        } <= blocks
        assert len({(each.offset, each.position) for each in sound}) == len(sound)
        if form != "one member":
            assert len(sound) >= len(blocks) - 5


class Trickle(io.RawIOBase):
    """A stream that hands out a few bytes at a time, as sockets may."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        part, self._rest = self._rest[:7], self._rest[7:]
        buffer[: len(part)] = part
        return len(part)


@pytest.mark.parametrize("data", [members(A, B, C), A + B + C], ids=["gzip", "plain"])
def test_short_reads_change_nothing(data: bytes) -> None:
    found = list(read_records(Trickle(data), LIMIT, True))  # pyright: ignore[reportArgumentType]
    assert [each.offset for each in found] == [each.offset for each in read(data)]
    assert len(urls(found)) == 3


class Unavailable(Exception):
    """As a transport raises it."""


class Breaking(io.BytesIO):
    """A stream that ends in an error."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise Unavailable
        return data


def test_an_error_of_the_stream_itself_passes_through() -> None:
    records: Iterator[Record | Broken] = read_records(Breaking(members(A, B)[:-10]), LIMIT, True)
    assert isinstance(next(records), Record)
    with pytest.raises(Unavailable):
        list(records)


@pytest.fixture
def genuine(shared_data: Path) -> Path:
    return shared_data / "warc-bytes"


@pytest.mark.parametrize("name", ["warcfile.warc.gz", "warcfile.warc.lz4"])
def test_genuine_archives_hold_the_same_responses_in_either_compression(genuine: Path, name: str) -> None:
    found = read((genuine / name).read_bytes(), 64 << 20)
    assert broken(found) == []
    assert len([each for each in found if isinstance(each, Record) and each.header("WARC-Type") == "response"]) == 16
    assert len({(each.offset, each.position) for each in found if isinstance(each, Record)}) == len(found)


def test_a_clipped_genuine_archive_is_read_up_to_where_it_ends(genuine: Path) -> None:
    found = read((genuine / "clipped.warc.gz").read_bytes())
    assert urls(found) == []  # its one member is cut
    assert broken(found) == [(0, "gzip_truncated")]


@pytest.mark.parametrize(
    ("name", "records"),
    [("block-sized-records.warc.gz", 3), ("whirlwind.warc.gz", 4), ("whirlwind.warc.wet.gz", 2)],
)
def test_odd_but_sound_archives_are_read_whole(genuine: Path, name: str, records: int) -> None:
    found = read((genuine / name).read_bytes())
    assert broken(found) == []
    assert len(found) == records
