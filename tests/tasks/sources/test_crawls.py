"""Lists of crawls: their order, which are newer, and lists that are none."""

import json
from pathlib import Path

import pytest

from infra.errors import BadInput
from tasks.sources.crawls import MOST_BYTES, between, collinfo_url, list_crawls, newer_than, parse_crawls
from tasks.sources.transport import SourceSettings

LISTED = [
    {"id": "CC-MAIN-2026-10"},
    {"id": "CC-MAIN-2025-51"},
    {"id": "CC-MAIN-2026-05", "from": "2019-01-01T00:00:00"},
    {"id": "CC-MAIN-2012"},
    {"id": "CC-MAIN-2009-2010"},
    {"id": "VILLAGE-CRAWL", "from": "2026-02-20T10:00:00"},
    {"id": "CC-MAIN-2013-20"},
]
ORDERED = [
    *("CC-MAIN-2009-2010", "CC-MAIN-2012", "CC-MAIN-2013-20", "CC-MAIN-2025-51", "CC-MAIN-2026-05"),
    *("VILLAGE-CRAWL", "CC-MAIN-2026-10"),
]


def names(crawls) -> list[str]:
    return [each.name for each in crawls]


def listed(entries: object):
    return parse_crawls(json.dumps(entries).encode(), "there")


def test_crawls_are_ordered_by_when_they_were_made():
    assert names(listed(LISTED)) == ORDERED


def test_newer_crawls_are_those_behind_one_listed_or_not():
    crawls = listed(LISTED)
    assert names(newer_than(crawls, "CC-MAIN-2026-05")) == ["VILLAGE-CRAWL", "CC-MAIN-2026-10"]
    assert names(newer_than(crawls, "CC-MAIN-2026-06")) == ["VILLAGE-CRAWL", "CC-MAIN-2026-10"]
    assert newer_than(crawls, "CC-MAIN-2026-10") == []
    with pytest.raises(BadInput, match="crawl HAMLET is not listed"):
        newer_than(crawls, "HAMLET")


def test_a_range_of_crawls_holds_both_ends():
    crawls = listed(LISTED)
    assert names(between(crawls, "CC-MAIN-2012", "CC-MAIN-2025-51")) == ORDERED[1:4]
    with pytest.raises(BadInput, match="no crawl from CC-MAIN-2026-10 to CC-MAIN-2012"):
        between(crawls, "CC-MAIN-2026-10", "CC-MAIN-2012")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is not JSON"),
        (b"<html>Slow down</html>", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b'{"id": "CC-MAIN-2026-05"}', "is dict, no list"),
        (b'["CC-MAIN-2026-05"]', "without a crawl's id: CC-MAIN-2026-05"),
        (b'[{"name": "x"}]', "without a crawl's id"),
        (b'[{"id": 5}]', "without a crawl's id"),
        (b'[{"id": "../../etc/passwd"}]', "without a crawl's id"),
        (b'[{"id": "CC-MAIN-2026-05\\n"}]', "without a crawl's id"),
        (b'[{"id": "HAMLET"}]', "when HAMLET was made"),
        (b'[{"id": "HAMLET", "from": "yesterday"}]', "when HAMLET was made"),
        (b'[{"id": "HAMLET", "from": 7}]', "when HAMLET was made"),
        (b'[{"id": "CC-MAIN-2026-05"}, {"id": "CC-MAIN-2026-05"}]', "has CC-MAIN-2026-05 more than once"),
        (b" " * (MOST_BYTES + 1), "has more than"),
    ],
)
def test_what_is_no_list_of_crawls_is_refused(data: bytes, why: str):
    with pytest.raises(BadInput, match=why) as caught:
        parse_crawls(data, "there")
    assert caught.value.value.startswith("there ")


def test_a_list_is_read_beside_the_crawls_or_where_it_is_said_to_be(tmp_path: Path):
    source = SourceSettings(base_url=str(tmp_path))
    with pytest.raises(BadInput, match=r"collinfo\.json"):
        list_crawls(source)
    (tmp_path / "crawls.json").write_text(json.dumps(LISTED))
    assert names(list_crawls(source, str(tmp_path / "crawls.json"))) == ORDERED
    (tmp_path / "collinfo.json").write_text("[]")
    assert list_crawls(source) == []


def test_common_crawl_lists_its_crawls_on_another_server():
    wanted = "https://index.commoncrawl.org/collinfo.json"
    assert {collinfo_url(each) for each in ("https://data.commoncrawl.org/", "s3://commoncrawl")} == {wanted}
    assert collinfo_url("http://127.0.0.1:80/mirror") == "http://127.0.0.1:80/mirror/collinfo.json"


def test_the_mirror_has_two_crawls(shared_data: Path):
    crawls = list_crawls(SourceSettings(base_url=str(shared_data / "commoncrawl")))
    assert names(crawls) == ["CC-MAIN-2026-91", "CC-MAIN-2026-92"]
