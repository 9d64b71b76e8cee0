"""Packed files are read to the end that is set, and nothing leads out of an archive."""

import bz2
import gzip
import io
import lzma
import zipfile

import pytest

from infra.errors import BadInput
from tasks.benchmarks import files
from tasks.benchmarks.files import json_items, json_lines, read, table_items, unpacked


def packed(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def test_files_are_unpacked_and_named_without_their_packing() -> None:
    inner = packed(
        {"data/b.jsonl": b"{}", "data/a.jsonl.gz": gzip.compress(b"[]"), "__MACOSX/a.jsonl": b"", "README.md": b""}
    )
    assert list(unpacked("x/set.zip", inner)) == [("x/set.zip/data/a.jsonl", b"[]"), ("x/set.zip/data/b.jsonl", b"{}")]
    for name, pack in (("bz2", bz2.compress), ("xz", lzma.compress)):
        assert list(unpacked(f"a.csv.{name}", pack(b"1,2"))) == [("a.csv", b"1,2")]


def test_a_bomb_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 1000)
    bomb = b"\0" * 5000
    for name, data in (
        ("bomb.gz", gzip.compress(bomb, mtime=0)),
        ("bomb.zip", packed({"a.txt": bomb})),
        ("two.zip", packed({"a.txt": bomb[:800], "b.txt": bomb[:800]})),
    ):
        with pytest.raises(BadInput, match="unpacks to more than"):
            list(unpacked(name, data))
    deep = b"x"
    for _ in range(6):
        deep = gzip.compress(deep, mtime=0)
    assert [name for name, _ in unpacked("deep.gz.gz.gz.gz.gz.gz", deep)] == ["deep.gz.gz.gz"]


@pytest.mark.parametrize("member", ["../up.jsonl", "/etc/x.jsonl", "a/../../b.jsonl", "..\\up.jsonl"])
def test_members_stay_in_their_archive(member: str) -> None:
    with pytest.raises(BadInput, match="must lie in the archive"):
        list(unpacked("a.zip", packed({member: b"{}"})))


@pytest.mark.parametrize("name", ["a.gz", "a.bz2", "a.xz", "a.zip"])
def test_damage_is_named(name: str) -> None:
    with pytest.raises(BadInput, match=name):
        list(unpacked(name, b"PK\x03\x04 no archive"))


def test_what_does_not_parse_is_named_with_its_line() -> None:
    with pytest.raises(BadInput, match=r"a\.jsonl \(line 2"):
        read("a.jsonl", b'{"a": 1}\n{"a": \n', json_lines)
    with pytest.raises(BadInput, match=r"a\.json"):
        read("a.json", b"[" * 100_000, json_items)
    with pytest.raises(BadInput, match=r"a\.csv"):
        read("a.csv", b"a,b\n\xff,1\n", table_items)
