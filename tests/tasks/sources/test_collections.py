"""Corpora that users have become responses, each with its place; what is damaged or dangerous costs itself alone."""

import bz2
import gzip
import json
import lzma
import os
import random
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastwarc.stream_io import ZstdWriter

from infra.errors import BadInput
from infra.schema import RESPONSES
from infra.store import Store
from tasks.sources.collection_reader import read_collection
from tasks.sources.collections import CollectionSettings, collection_of, list_collections
from tasks.sources.transport import SourceSettings
from tests.tasks.records import http, members, record, response

LICENSE = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software,
to deal in the Software without restriction, including without limitation the rights to use"""


class Read:
    """What became of a collection."""

    def __init__(self, root: Path, source: dict[str, Any] | None = None, **settings: Any) -> None:
        limits = SourceSettings(crawl=None, **(source or {}))
        self.settings = CollectionSettings(name="mine", **settings)
        store = Store(str(root / "root"))
        self.listing = list_collections(store, [self.settings], limits)
        splits = [
            split
            for shard in self.listing.shards
            for split in read_collection(store, self.listing.path, shard, self.settings, limits)
        ]
        table = pa.concat_tables([split.kept for split in splits])
        assert table.schema == RESPONSES
        self.batches = [split.kept.num_rows for split in splits]
        self.rows = table.to_pylist()
        self.dropped = [row for split in splits for row in split.dropped.to_pylist()]
        self.quarantined = [row for split in splits for row in split.others["quarantined"].to_pylist()]

    @property
    def payloads(self) -> list[bytes]:
        return [row["payload"] for row in self.rows]

    @property
    def broken(self) -> list[tuple[str, int | None, str]]:
        return [(row["file"], row["offset"], row["reason"]) for row in self.quarantined]


def lines(*rows: Any) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def zstd(data: bytes, folder: Path) -> bytes:
    writer = ZstdWriter(str(folder / "packed"))
    writer.write(data)
    writer.close()
    return (folder / "packed").read_bytes()


def test_lines_of_json_with_their_columns_and_places(tmp_path: Path) -> None:
    first = {"body": "Grüße", "meta": {"url": "http://a/", "when": "2024-05-06T07:08:09+02:00"}, "lic": "http://l/"}
    second = {"body": "two", "meta": {"url": None, "when": 1714979289}}
    (tmp_path / "a.jsonl").write_bytes(lines(first, b"", second))
    columns = {"text": "body", "url": "meta.url", "date": "meta.when", "license": "lic"}
    read = Read(tmp_path, paths=[str(tmp_path / "a.jsonl")], columns=columns, license="http://default/")
    one, two = read.rows
    assert (one["payload"].decode(), one["content_type"], one["charset"]) == ("Grüße", "text/plain", "utf-8")
    assert (one["source"], one["file"], one["offset"], one["url"]) == ("mine", "a.jsonl", 0, "http://a/")
    assert two["offset"] == len(lines(first, b""))
    assert one["fetched_at"] == datetime(2024, 5, 6, 5, 8, 9, tzinfo=UTC)
    assert two["fetched_at"] == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert (one["license"], two["license"]) == ("http://l/", "http://default/")
    assert one["record_digest"].startswith("sha1:")
    assert len(one["id"]) == 32 != two["id"]


def test_a_document_without_a_date_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines({"text": "x", "date": "yesterday"}, {"text": "y", "date": 1e300}))
    (tmp_path / "b.txt").write_bytes(b"z")
    assert {row["fetched_at"] for row in Read(tmp_path, paths=[str(tmp_path)], columns={"date": "date"}).rows} == {None}
    assert [row["fetched_at"] for row in Read(tmp_path, paths=[str(tmp_path)], format="text").rows] == [None]


def test_every_wrong_line_is_quarantined_alone(tmp_path: Path) -> None:
    bad = [b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"text": null}', b'{"text": 5}', b"{}", b"\x00"]
    good = [b'{"text": "\\ud800 lone \\u0000"}', b'\xef\xbb\xbf{"text": "bom"}']
    (tmp_path / "a.jsonl").write_bytes(lines({"text": "1"}, *bad, *good, {"text": "2"}))
    read = Read(tmp_path, paths=[str(tmp_path)])
    assert read.payloads == [b"1", b"? lone \x00", b"bom", b"2"]
    assert [reason for _, _, reason in read.broken] == [
        *["invalid_json"] * 4,
        *("no_text", "wrong_type", "no_text", "invalid_json"),
    ]
    assert read.broken[1][1] == len(lines({"text": "1"}, b"{"))


def test_a_line_longer_than_allowed_costs_itself_alone(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines({"text": "1"}, {"text": "x" * 3_000_000}, {"text": "2"}))
    read = Read(tmp_path, {"max_record_bytes": 1 << 20}, paths=[str(tmp_path)])
    assert (read.payloads, read.broken) == ([b"1", b"2"], [("a.jsonl", len(lines({"text": "1"})), "record_too_large")])


def test_every_compression_by_its_ending(tmp_path: Path) -> None:
    data = lines({"text": "x"}, {"text": "y"})
    (tmp_path / "in").mkdir()
    for name, packed in {
        "a.jsonl": data,
        "b.jsonl.gz": gzip.compress(data[:15]) + gzip.compress(data[15:]),
        "c.jsonl.bz2": bz2.compress(data),
        "d.jsonl.xz": lzma.compress(data),
        "e.jsonl.zst": zstd(data, tmp_path),
    }.items():
        (tmp_path / "in" / name).write_bytes(packed)
    read = Read(tmp_path, paths=[str(tmp_path / "in")])
    assert read.payloads == [b"x", b"y"] * 5
    assert [row["offset"] for row in read.rows] == [0, 14] * 5
    assert read.broken == []


@pytest.mark.parametrize(
    ("ending", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", partial(lzma.compress, preset=0))]
)
def test_a_damaged_file_is_read_as_far_as_it_goes(tmp_path: Path, ending: str, pack: Any) -> None:
    noise = random.Random(5)
    rows = [{"text": f"{n} " + noise.randbytes(100).hex()} for n in range(12_000)]
    packed = pack(lines(*rows))
    (tmp_path / f"a.jsonl.{ending}").write_bytes(packed[: len(packed) * 2 // 3])
    (tmp_path / f"b.jsonl.{ending}").write_bytes(packed[: len(packed) // 2] + b"\xff" * 1000)
    (tmp_path / f"c.jsonl.{ending}").write_bytes(pack(lines({"text": "sound"})))
    read = Read(tmp_path, paths=[str(tmp_path)])
    reasons = {name: [reason for file, _, reason in read.broken if file.startswith(name)] for name in "abc"}
    assert (reasons["a"], reasons["c"]) == ([f"{ending}_truncated"], [])
    assert reasons["b"][-1] in (f"{ending}_corrupt", f"{ending}_truncated")  # noise may come before it is noticed
    for name, least in (("a", 4000), ("b", 2000)):
        kept = [row["payload"].decode() for row in read.rows if row["file"].startswith(name)]
        assert len(kept) >= least
        assert kept[:-1] == [row["text"] for row in rows[: len(kept) - 1]]  # noise can end the last as JSON would
    assert [row["payload"] for row in read.rows if row["file"].startswith("c")] == [b"sound"]


def test_a_missing_column_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines({"content": "x", "n": 1}))
    with pytest.raises(BadInput, match=r"a\.jsonl has no column text.*There are: content, n"):
        Read(tmp_path, paths=[str(tmp_path)])
    pq.write_table(pa.table({"content": ["x"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match=r"a\.parquet has no column text.*There are: content, n"):
        Read(tmp_path, paths=[str(tmp_path)], format="parquet")
    with pytest.raises(BadInput, match="n is int64"):
        Read(tmp_path, paths=[str(tmp_path)], format="parquet", columns={"text": "n"})


def test_rows_of_parquet_with_nested_and_odd_columns(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(["a", None, "ü"]).dictionary_encode(),
            "meta": pa.array([{"url": "http://1/"}, {"url": "http://2/"}, None], pa.struct([("url", pa.string())])),
            "date": pa.array([1_700_000_000_123_456_789, None, 0], pa.timestamp("ns")),
            "key": ["k1", "k2", "k3"],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    columns = {"url": "meta.url", "date": "date", "id": "key"}
    read = Read(tmp_path, paths=[str(tmp_path)], format="parquet", columns=columns)
    assert [(row["payload"].decode(), row["url"], row["offset"]) for row in read.rows] == [
        ("a", "http://1/", 0),
        ("ü", None, 2),
    ]
    assert read.rows[0]["fetched_at"] == datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
    assert read.broken == [("a.parquet", 1, "no_text")]
    (tmp_path / "a.parquet").rename(tmp_path / "moved.parquet")
    again = Read(tmp_path, paths=[str(tmp_path)], format="parquet", columns=columns)
    assert [row["id"] for row in again.rows] == [row["id"] for row in read.rows]  # the key decides, not the place


def test_damaged_parquet_costs_its_row_group(tmp_path: Path) -> None:
    table = pa.table({"text": [f"{n} " + random.Random(n).randbytes(200).hex() for n in range(3000)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1000, compression="zstd", use_dictionary=False)
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 100] = bytes(100)
    (tmp_path / "a.parquet").write_bytes(data)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no table")
    pq.write_table(pa.table({"text": ["sound"]}), tmp_path / "c.parquet")
    read = Read(tmp_path, paths=[str(tmp_path)], format="parquet")
    assert [(file, reason) for file, _, reason in read.broken] == [
        ("a.parquet", "parquet_corrupt"),
        ("b.parquet", "parquet_corrupt"),
    ]
    assert {row["offset"] for row in read.rows if row["file"] == "a.parquet"} >= {*range(1000), *range(2000, 3000)}
    assert read.payloads[-1] == b"sound"


def test_pages_in_a_column_and_in_files(tmp_path: Path) -> None:
    page = "<html><head><meta name=robots content=noai></head><body><a rel=license href=/l>x</a></body></html>"
    (tmp_path / "a.jsonl").write_bytes(lines({"text": page, "url": "http://a.example/"}))
    [row] = Read(tmp_path, paths=[str(tmp_path)], content="text/html", columns={"url": "url"}).rows
    assert (row["content_type"], row["opt_out"], row["license"]) == ("text/html", "noai", "http://a.example/l")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/b.html").write_bytes(page.encode("utf-16"))
    [row] = Read(tmp_path, paths=[str(tmp_path)], format="html").rows
    assert (row["file"], row["content_type"], row["charset"], row["opt_out"]) == (
        "deep/b.html",
        "text/html",
        None,
        "noai",
    )


def test_archives_of_this_machine(tmp_path: Path) -> None:
    page = b"<html><title>x</title></html>"
    missing = response("http://n/", page, "404 Not Found")
    (tmp_path / "a.warc.gz").write_bytes(members(response("http://a/", page), missing))
    text = record("conversion", "http://n/", b"text", Content_Type="text/plain")
    (tmp_path / "a.warc.wet.gz").write_bytes(members(text))
    read = Read(tmp_path, paths=[str(tmp_path / "a.warc.gz")], format="warc")
    assert (read.payloads, [row["reason"] for row in read.dropped]) == ([page], ["http_status"])
    assert Read(tmp_path, paths=[str(tmp_path)], format="wet").payloads == [b"text"]
    assert http(page) not in read.payloads


def test_links_out_of_the_folder_and_odd_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (folder / "a.txt").write_bytes(b"inside")
    (folder / "b.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "c.txt").symlink_to(folder / "a.txt")
    (folder / "d.txt").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "e.txt")
    (folder / "f").symlink_to(tmp_path)
    (folder / "g.txt").symlink_to(folder / "g.txt")
    read = Read(tmp_path, paths=[str(folder)], format="text")
    assert read.payloads == [b"inside", b"inside"]
    assert [(file, reason) for file, _, reason in read.broken] == [(f"{n}.txt", "file_refused") for n in "bdeg"]
    assert b"secret" in Read(tmp_path, paths=[str(folder)], format="text", follow_links=True).payloads


def test_file_names_of_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with open(os.fsencode(tmp_path / "in") + b"/\xff\xfe.txt", "wb") as out:
        out.write(b"x")
    [row] = Read(tmp_path, paths=[str(tmp_path / "in")], format="text").rows
    assert (row["payload"], row["file"]) == (b"x", "\\xff\\xfe.txt")


def test_small_files_share_shards_and_the_order_is_that_of_their_names(tmp_path: Path) -> None:
    for n in range(7):
        (tmp_path / f"{n}.txt").write_bytes(b"%d" % n)
    read = Read(tmp_path, paths=[str(tmp_path)], format="text", files_per_shard=3)
    assert read.listing.shards == ["mine:0.txt", "mine:3.txt", "mine:6.txt"]
    assert read.payloads == [b"%d" % n for n in range(7)]
    assert collection_of("mine:0.txt", [read.settings]) is read.settings
    assert collection_of("crawl-data/x.warc.gz", [read.settings]) is None


def test_the_listing_is_identified_by_what_files_hold(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_bytes(lines({"text": "x"}))
    one, two = (Read(tmp_path, paths=[str(tmp_path / name)]) for name in ("one", "two"))
    assert (one.listing.digest, one.rows) == (two.listing.digest, two.rows)
    assert one.settings.identity() == two.settings.identity()
    (tmp_path / "two/a.jsonl").write_bytes(lines({"text": "y"}))
    assert Read(tmp_path, paths=[str(tmp_path / "two")]).listing.digest != one.listing.digest


def test_patterns_and_other_file_systems(tmp_path: Path) -> None:
    for name in ("a/x.data", "b/x.data", "b/y.other"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(lines({"text": name}))
    assert [row["file"] for row in Read(tmp_path, paths=[str(tmp_path / "*/*.data")]).rows] == ["a/x.data", "b/x.data"]
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/corpus/z.jsonl", lines({"text": "remote"}))
    [row] = Read(tmp_path, paths=["memory://corpus"]).rows
    assert (row["payload"], row["file"]) == (b"remote", "z.jsonl")
    both = Read(tmp_path, paths=[str(tmp_path / "a/*"), str(tmp_path / "b/x*")])
    assert [row["file"] for row in both.rows] == ["0/x.data", "1/x.data"]
    assert len({row["id"] for row in both.rows}) == 2


@pytest.mark.parametrize("path", ["nowhere", "empty", "https://host.example/a.jsonl"])
def test_a_path_that_holds_nothing_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput):
        Read(tmp_path, paths=[path if "://" in path else str(tmp_path / path)])


def test_two_collections_of_one_name_are_refused(tmp_path: Path) -> None:
    settings = CollectionSettings(name="mine", paths=(str(tmp_path),))
    with pytest.raises(BadInput, match="two collections are named mine"):
        list_collections(Store(str(tmp_path)), [settings, settings], SourceSettings())


def test_batches_are_bounded_and_max_records_counts_from_the_head(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(*({"text": f"{n}"} for n in range(7))))
    assert Read(tmp_path, {"batch_documents": 3}, paths=[str(tmp_path)]).batches == [3, 3, 1]
    assert Read(tmp_path, {"max_records": 2}, paths=[str(tmp_path)]).payloads == [b"0", b"1"]


def test_code_files_that_people_wrote_with_their_licenses(tmp_path: Path) -> None:
    files: dict[str, bytes] = {
        "repo/LICENSE": LICENSE.encode(),
        "repo/main.py": b"x = 1\n",
        "repo/deep/er/spdx.c": b"// SPDX-License-Identifier: GPL-2.0-only\nint x;\n",
        "repo/deep/COPYING": b"GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007",
        "repo/deep/er/plain.c": b"int y;\n",
        "repo/.git/config": b"[core]",
        "repo/node_modules/m/index.js": b"x",
        "repo/package-lock.json": b"{}",
        "repo/app.min.js": b"x",
        "repo/packed.js": b"x" * 5000,
        "repo/api_pb2.py": b"# Generated by the protocol buffer compiler.  DO NOT EDIT!\n",
        "repo/logo.png": b"\x89PNG\0",
        "repo/latin.py": b"# caf\xe9\n",
        "repo/large.sql": b"insert 1;\n" * 200_000,
        "bare/x.go": b"package x\n",
    }
    for name, data in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    read = Read(tmp_path, paths=[str(tmp_path / "in")], format="code")
    assert {row["file"]: row["license"] for row in read.rows} == {
        "bare/x.go": None,
        "repo/LICENSE": "https://spdx.org/licenses/MIT",
        "repo/deep/COPYING": "https://spdx.org/licenses/GPL-3.0",
        "repo/deep/er/plain.c": "https://spdx.org/licenses/GPL-3.0",
        "repo/deep/er/spdx.c": "https://spdx.org/licenses/GPL-2.0-only",
        "repo/main.py": "https://spdx.org/licenses/MIT",
    }
    assert {row["file"].removeprefix("repo/"): row["reason"] for row in read.dropped} == {
        "node_modules/m/index.js": "vendored",
        "package-lock.json": "lockfile",
        "app.min.js": "minified",
        "packed.js": "minified",
        "api_pb2.py": "generated",
        "logo.png": "binary",
        "latin.py": "binary",
        "large.sql": "file_too_large",
    }


def test_a_file_that_vanishes_is_quarantined(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x")
    settings, source = CollectionSettings(name="c", paths=(str(tmp_path),), format="text"), SourceSettings()
    store = Store(str(tmp_path / "root"))
    listing = list_collections(store, [settings], source)
    (tmp_path / "a.txt").unlink()
    [split] = read_collection(store, listing.path, listing.shards[0], settings, source)
    assert split.others["quarantined"]["reason"].to_pylist() == ["file_missing"]
    assert (split.counters, split.incomplete) == ({"lost_shards": 1}, False)
