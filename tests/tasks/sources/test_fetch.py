"""Fetch: every response is kept, dropped or quarantined, whatever state the shard is in."""

import gzip
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest
from fastwarc.stream_io import BrotliWriter, GzipWriter, ZstdWriter

from infra.cluster import Cluster
from infra.errors import BadInput, RunFailed
from infra.manifest import StageManifest
from infra.schema import RESPONSES
from infra.store import Store
from tasks.sources.archive import sniff
from tasks.sources.collection_reader import read_collection
from tasks.sources.collections import CollectionSettings, list_collections
from tasks.sources.fetch import fetch, fetch_shard, shard_paths
from tasks.sources.transport import SourceSettings
from tasks.stage import StageRunner
from tests.conftest import REPOSITORY
from tests.tasks.records import CRAWL, http, members, page, record, response, warcinfo, write_crawl

HTML = page("Some words.")
A, B, C = (response(f"http://{name}.example/", HTML + name.encode()) for name in "abc")


def source(root: Path | str, **settings: Any) -> SourceSettings:
    return SourceSettings(base_url=str(root), crawl=CRAWL, **settings)


class Outcome:
    """What became of one shard."""

    def __init__(self, root: Path, shard: bytes, **settings: Any) -> None:
        [path] = write_crawl(root, [shard], settings.get("archive", "warc"))
        splits = list(fetch_shard(Store(str(root)), path, source(root, **settings)))
        self.batches = [split.kept.num_rows for split in splits]
        self.kept = pa.concat_tables([split.kept for split in splits])
        self.dropped = pa.concat_tables([split.dropped for split in splits]).to_pylist()
        self.quarantined = pa.concat_tables([split.others["quarantined"] for split in splits]).to_pylist()
        self.incomplete = any(split.incomplete for split in splits)

    @property
    def payloads(self) -> list[bytes]:
        return self.kept["payload"].to_pylist()

    @property
    def reasons(self) -> list[str]:
        return [row["reason"] for row in self.quarantined]


def raw(message: bytes, url: str = "http://n.example/", **headers: str | None) -> bytes:
    return record("response", url, message, **headers)


def test_a_page_is_kept_with_where_it_came_from(tmp_path: Path) -> None:
    found = Outcome(
        tmp_path, members(warcinfo(), A, record("request", "http://a.example/", b"GET / HTTP/1.1\r\n\r\n"), B)
    )
    assert found.kept.schema == RESPONSES
    first, second = found.kept.to_pylist()
    assert first["payload"] == HTML + b"a"
    assert (first["url"], first["source"], first["charset"]) == ("http://a.example/", CRAWL, "utf-8")
    assert first["offset"] == len(members(warcinfo()))
    assert first["record_digest"].startswith("sha1:")
    assert first["fetched_at"].isoformat() == "2026-02-14T03:04:05+00:00"
    assert len(first["id"]) == 32 != second["id"]
    assert (found.dropped, found.quarantined) == ([], [])


def test_other_statuses_and_types_are_dropped_with_the_reason(tmp_path: Path) -> None:
    found = Outcome(
        tmp_path,
        members(
            response("http://n/", b"gone", "404 Not Found"),
            response("http://n/", b"%PDF", content_type="application/pdf"),
            response("http://n/", HTML, content_type="TEXT/HTML; charset=x"),
            response("http://n/", HTML, content_type="application/xhtml+xml"),
        ),
    )
    assert found.kept.num_rows == 2
    assert [(row["reason"], row["value"], row["detail"]) for row in found.dropped] == [
        ("http_status", 404.0, "text/html"),
        ("not_html", None, "application/pdf"),
    ]


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        (http(gzip.compress(HTML), Content_Encoding="gzip"), HTML),
        (http(HTML, Content_Encoding="gzip"), HTML),
        (http(HTML, Content_Encoding="br"), HTML),
        (http(HTML, Content_Encoding="nonsense"), HTML),
        (http(b"%x\r\n%s\r\n0\r\n\r\n" % (len(HTML), HTML), Transfer_Encoding="chunked"), HTML),
        (http(HTML, Transfer_Encoding="chunked"), HTML),
    ],
)
def test_encodings_are_removed_and_wrong_headers_ignored(tmp_path: Path, message: bytes, payload: bytes) -> None:
    found = Outcome(tmp_path, members(raw(message), C))
    assert found.payloads == [payload, HTML + b"c"]


def test_a_body_that_decoding_blows_up_goes_to_quarantine(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(20_000_000), 1)
    found = Outcome(tmp_path, members(raw(http(bomb, Content_Encoding="gzip")), C), max_record_bytes=2_000_000)
    assert found.reasons == ["record_too_large"]
    assert found.payloads == [HTML + b"c"]


@pytest.mark.parametrize("message", [b"", b"no http", b"HTTP/1.1 abc\r\n\r\nx"])
def test_what_is_no_http_goes_to_quarantine(tmp_path: Path, message: bytes) -> None:
    found = Outcome(tmp_path, members(raw(message), C))
    assert (found.reasons, found.payloads) == (["invalid_http"], [HTML + b"c"])
    assert found.quarantined[0]["url"] == "http://n.example/"


@pytest.mark.parametrize("date", ["garbage", "", "2026-13-45T99:00:00Z", None])
def test_a_broken_date_costs_the_date_alone(tmp_path: Path, date: str | None) -> None:
    found = Outcome(tmp_path, members(raw(http(HTML), WARC_Date=date), C))
    assert [row["fetched_at"] is None for row in found.kept.to_pylist()] == [True, False]


def test_bytes_that_are_no_utf8_in_headers_cost_nothing_else(tmp_path: Path) -> None:
    odd = (
        raw(http(HTML, content_type="text/html; charset=@@"))
        .replace(b"@@", b"\xff\xed")
        .replace(b"n.exa", b"n\xff\xed\xa0.exa")
    )
    assert Outcome(tmp_path, members(odd, C)).payloads == [HTML, HTML + b"c"]


@pytest.mark.parametrize(
    ("opening", "expected"),
    [
        (b"\n <!-- a\n --> <?xml version='1.0'?>\n<!DOCTYPE html>", "text/html"),
        (b"<TITLE>x", "text/html"),
        (b"<p>x", ""),
        (b"{}", ""),
        (b"<htmlx>", ""),
        (b"<!---->" * 50_000 + b"x", ""),
        (b" " * 500_000 + b"x", ""),
    ],
    ids=range(7),
)
def test_a_body_without_a_type_is_sniffed_in_linear_time(tmp_path: Path, opening: bytes, expected: str) -> None:
    started = time.process_time()
    assert sniff(opening) == expected
    assert time.process_time() - started < 1  # a search that goes back over its steps would take hours
    assert Outcome(tmp_path, members(raw(http(opening, content_type=None)))).kept.num_rows == bool(expected)


def test_max_records_counts_responses_from_the_head(tmp_path: Path) -> None:
    found = Outcome(tmp_path, members(warcinfo(), A, response("http://n/", b"", "404 Not Found"), B, C), max_records=2)
    assert (found.payloads, len(found.dropped), found.incomplete) == ([HTML + b"a"], 1, False)


def test_batches_are_bounded_by_documents_and_by_bytes(tmp_path: Path) -> None:
    assert Outcome(tmp_path, members(A, B, C), batch_documents=2).batches == [2, 1]
    big = response("http://big/", b"<html>" + b"x" * 70_000)
    assert Outcome(tmp_path, members(big, A, big), batch_bytes=1 << 16).batches == [1, 2, 0]


def test_wet_records_are_kept_as_plain_text(tmp_path: Path) -> None:
    text = record("conversion", "http://n/", "Grüße".encode(), Content_Type="text/plain")
    found = Outcome(tmp_path, members(warcinfo(), text, A), archive="wet")
    [row] = found.kept.to_pylist()
    assert (row["payload"].decode(), row["content_type"], row["charset"]) == ("Grüße", "text/plain", "utf-8")


def test_records_of_one_member_have_ids_of_their_own(tmp_path: Path) -> None:
    found = Outcome(tmp_path, gzip.compress(A + B) + gzip.compress(C))
    assert len(set(found.kept["id"].to_pylist())) == 3


def test_a_truncated_shard_keeps_what_can_be_read(tmp_path: Path) -> None:
    found = Outcome(tmp_path, members(A, B, C)[:-30])
    assert found.payloads == [HTML + b"a", HTML + b"b"]
    assert [(row["reason"], row["offset"]) for row in found.quarantined] == [("gzip_truncated", len(members(A, B)))]


def test_digests_can_be_left_unverified(tmp_path: Path) -> None:
    wrong = members(raw(http(HTML), WARC_Payload_Digest="sha1:" + "A" * 32))
    assert Outcome(tmp_path, wrong).reasons == ["digest_mismatch"]
    assert Outcome(tmp_path, wrong, verify_digests=False).payloads == [HTML]


def run(root: Path, cluster: Cluster, mirror: Path, **settings: Any) -> StageManifest:
    return fetch(StageRunner(Store(str(root)), cluster), source(mirror, **settings))


def test_a_missing_shard_is_quarantined_within_the_share_that_may_be_lost(tmp_path: Path, cluster: Cluster) -> None:
    mirror = tmp_path / "mirror"
    paths = write_crawl(mirror, [members(A), None, members(B, C)])
    manifest = run(tmp_path / "root", cluster, mirror, max_lost_shards=0.4)
    assert (manifest.kept, manifest.rows_of("quarantined")) == (3, 1)
    assert manifest.total("counters") == {"lost_shards": 1}
    store = Store(str(tmp_path / "root"))
    [row] = store.read_table(f"{manifest.folder}/{manifest.shards[1].others['quarantined'].path}").to_pylist()
    assert (row["file"], row["offset"], row["reason"]) == (paths[1], None, "shard_missing")
    with pytest.raises(RunFailed, match=r"1 of 3 shards could not be read.*max_lost_shards allows a share of 0\.1"):
        run(tmp_path / "root", cluster, mirror)


def test_a_listing_that_leads_out_of_the_crawl_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.gz").write_bytes(members(A))
    found = list(fetch_shard(Store(str(tmp_path)), "../secret.gz", source(tmp_path / "mirror")))
    assert [split.kept.num_rows for split in found] == [0]
    assert found[0].others["quarantined"]["reason"].to_pylist() == ["shard_missing"]


def test_an_unknown_crawl_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no collinfo\.json there to say"):
        shard_paths(source(tmp_path))
    (tmp_path / "collinfo.json").write_text('[{"id": "CC-MAIN-2026-05"}, {"id": "CC-MAIN-2026-01"}]')
    with pytest.raises(BadInput, match=f"source.crawl={CRAWL}") as caught:
        shard_paths(source(tmp_path))
    assert caught.value.remedy == "Known there: CC-MAIN-2026-05, CC-MAIN-2026-01"


def test_shards_are_selected_in_the_order_of_the_listing(tmp_path: Path) -> None:
    paths = write_crawl(tmp_path, [b""] * 5)
    assert shard_paths(source(tmp_path)) == paths
    assert shard_paths(source(tmp_path, first_shard=1, shards=2)) == paths[1:3]
    assert shard_paths(source(tmp_path, first_shard=4, shards=9)) == paths[4:]
    with pytest.raises(BadInput, match="has 5 shards"):
        shard_paths(source(tmp_path, first_shard=5))


@pytest.mark.parametrize(
    "listing",
    [b"no gzip", gzip.compress(b"a\nb")[:-9], gzip.compress(b"\xff\xfe")],
    ids=["no gzip", "cut short", "no text"],  # gzip writes the time, of which no test's name may be made
)
def test_a_damaged_listing_is_refused(tmp_path: Path, listing: bytes) -> None:
    write_crawl(tmp_path, [])
    (tmp_path / f"crawl-data/{CRAWL}/warc.paths.gz").write_bytes(listing)
    with pytest.raises(BadInput, match="a listing is gzipped text"):
        shard_paths(source(tmp_path))


def test_what_a_record_says_on_its_use_is_kept(tmp_path: Path) -> None:
    refusing = b"<html><head><meta name='robots' content='noai'></head><a rel='license' href='/l'>x</a></html>"
    found = Outcome(
        tmp_path,
        members(
            raw(http(HTML, X_Robots_Tag="noindex, nofollow", TDM_Reservation="1")),
            raw(http(refusing)),
            raw(http(HTML, X_Robots_Tag="unavailable_after: 1 Jan 2026 00:00:00 GMT")),
            C,
        ),
    )
    assert [(row["opt_out"], row["license"]) for row in found.kept.to_pylist()] == [
        ("noindex,tdm-reservation", None),
        ("noai", "http://n.example/l"),
        ("unavailable_after", None),
        (None, None),
    ]


def test_an_earlier_listing_serves_where_the_crawl_is_out_of_reach(tmp_path: Path, cluster: Cluster) -> None:
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    paths = write_crawl(mirror, [members(A), members(B)])
    first = run(root, cluster, mirror)
    assert run(root, cluster, tmp_path / "gone").fingerprint == first.fingerprint
    assert shard_paths(source(tmp_path / "gone", first_shard=1), Store(str(root))) == paths[1:]
    with pytest.raises(BadInput):
        shard_paths(source(tmp_path / "gone"), Store(str(tmp_path / "other")))


def test_a_crawl_and_collections_are_one_stage(tmp_path: Path, cluster: Cluster) -> None:
    paths = write_crawl(tmp_path / "mirror", [members(A)])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_text(f'{{"text": "of {name}"}}\n')
    collections = [CollectionSettings(name=name, paths=(str(tmp_path / name),)) for name in ("one", "two")]
    store = Store(str(tmp_path / "root"))
    runner = StageRunner(store, cluster)
    both = fetch(runner, source(tmp_path / "mirror"), collections)
    assert [shard.source for shard in both.shards] == [*paths, "one:a.jsonl", "two:a.jsonl"]
    rows = [row for path in both.kept_paths for row in store.read_table(path).to_pylist()]
    assert [(row["source"], row["payload"]) for row in rows] == [
        (CRAWL, HTML + b"a"),
        ("one", b"of one"),
        ("two", b"of two"),
    ]
    local = SourceSettings(crawl=None)
    alone = fetch(runner, local, collections)
    assert alone.kept == 2
    assert fetch(runner, local, collections).digest == alone.digest
    (tmp_path / "two/a.jsonl").write_text('{"text": "changed"}\n')
    assert fetch(runner, local, collections).digest != alone.digest
    with pytest.raises(BadInput, match="there must be something to read"):
        fetch(runner, local)


def peak_bytes(script: str, *arguments: str) -> tuple[int, str]:
    """Peak resident bytes and output of a script in a process of its own."""
    ending = "\nimport resource, sys\nsys.stderr.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))"
    command = [sys.executable, "-c", script + ending, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    return int(done.stderr) << 10, done.stdout


READ_SHARD = """
import sys
from infra.store import Store
from tasks.sources.fetch import fetch_shard
from tasks.sources.transport import SourceSettings
settings = SourceSettings(base_url=sys.argv[1], crawl=sys.argv[2], max_record_bytes=16 << 20)
for path in sys.argv[3:]:
    for split in fetch_shard(Store("."), path, settings):
        print(split.kept.num_rows, *split.others["quarantined"]["reason"].to_pylist())
"""


def packed_zeros(kind: type, folder: Path) -> bytes:
    writer = kind(str(folder / "zeros"))
    for _ in range(400):
        writer.write(bytes(1 << 20))
    writer.close()
    return (folder / "zeros").read_bytes()


def test_bombs_cost_no_memory(tmp_path: Path) -> None:
    """400 MB that a body, a member or a header unpacks to, against the memory of reading one small page."""
    encodings = {"gzip": GzipWriter, "br": BrotliWriter, "zstd": ZstdWriter}
    bodies = {name: packed_zeros(kind, tmp_path) for name, kind in encodings.items()}
    bombs = [members(raw(http(body, Content_Encoding=name)), C) for name, body in bodies.items()]
    bombs.append(bodies["gzip"] + members(C))  # a member that is no record
    large = packed_zeros(GzipWriter, tmp_path)
    head = record("response", "http://n.example/", b"", Content_Length=str(400 << 20)).rstrip(b"\r\n") + b"\r\n\r\n"
    bombs.append(gzip.compress(head) + large + members(C))
    paths = write_crawl(tmp_path, [members(A), *bombs])
    small, _ = peak_bytes(READ_SHARD, str(tmp_path), CRAWL, paths[0])
    peak, output = peak_bytes(READ_SHARD, str(tmp_path), CRAWL, *paths[1:])
    reasons = [line.split()[1:] for line in output.splitlines()]
    assert reasons[:4] == [["record_too_large"]] * 3 + [["invalid_record"]]
    assert [line.split()[0] for line in output.splitlines()] == ["1"] * 5
    assert peak - small < 120 << 20


def test_a_page_of_one_line_of_64_megabytes_is_kept(tmp_path: Path) -> None:
    line = b"<html>" + b"x" * (63 << 20)
    found = Outcome(tmp_path, members(response("http://l.example/", line), C))
    assert found.payloads == [line, HTML + b"c"]


@pytest.mark.parametrize("charset", ["utf-16", "utf-32", "shift_jis", "koi8-r", "utf-7", "cp037"])
def test_pages_of_every_charset_and_with_nuls_are_kept_as_they_are(tmp_path: Path, charset: str) -> None:
    body = "<html><head><title>\x00Ж</title></head></html>".encode(charset, "replace")
    found = Outcome(tmp_path, members(raw(http(body, content_type=f"text/html; charset={charset}")), C))
    assert found.kept.to_pylist()[0]["charset"] == charset
    assert found.payloads == [body, HTML + b"c"]


def shard_counts(shared_data: Path, archive: Literal["warc", "wet"]) -> tuple[int, int]:
    """Kept rows and quarantined rows of the first crawl of the mirror."""
    mirror = shared_data / "commoncrawl"
    settings = SourceSettings(base_url=str(mirror), crawl="CC-MAIN-2026-91", archive=archive)
    splits = [split for path in shard_paths(settings) for split in fetch_shard(Store(str(shared_data)), path, settings)]
    assert all(split.kept["payload"].null_count == 0 for split in splits)
    return sum(split.kept.num_rows for split in splits), sum(split.others["quarantined"].num_rows for split in splits)


@pytest.mark.parametrize(("archive", "documents"), [("warc", 1186), ("wet", 1185)])
def test_the_mirror_is_read_whole(shared_data: Path, archive: Literal["warc", "wet"], documents: int) -> None:
    assert shard_counts(shared_data, archive) == (documents, 0)


def test_genuine_archives_are_read_or_quarantined(shared_data: Path) -> None:
    settings = CollectionSettings(
        name="genuine", paths=(str(shared_data / "warc-bytes/*.warc.*"),), format="warc", identify_by="stat"
    )
    limits = SourceSettings(crawl=None)
    kept: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as root:
        listing = list_collections(Store(root), [settings], limits)
        for shard in listing.shards:
            for split in read_collection(Store(root), listing.path, shard, settings, limits):
                kept[shard.removeprefix("genuine:")] = split.kept.num_rows
                if split.others["quarantined"].num_rows:
                    assert shard == "genuine:clipped.warc.gz"
    assert {name for name, rows in kept.items() if rows == 0} == {
        "block-sized-records.warc.gz",  # records of no known type
        "clipped.warc.gz",
        "whirlwind.warc.wat.gz",
        "whirlwind.warc.wet.gz",
        *(name for name in kept if name.startswith("02-")),  # a redirect
    }
