"""What versions have of crawls, by their records, and what versions are called."""

from pathlib import Path

import pytest

from flows.refreshes.history import (
    RefreshRecord,
    Taken,
    is_done,
    last_crawl,
    new_version,
    next_shard,
    record_path,
    taken,
)
from infra.errors import BadInput
from infra.store import Store
from tests.model.findings.contenders import DATASET

CRAWL = "CC-MAIN-2026-42"


def part(version: str, first: int, shards: int, crawl: str = CRAWL, end: int = 10) -> Taken:
    return Taken(version, crawl, RefreshRecord(crawl=crawl, first_shard=first, shards=shards, end=end))


def by_hand(version: str, crawl: str = CRAWL) -> Taken:
    return Taken(version, crawl, None)


def test_only_published_versions_count(tmp_path: Path):
    store = Store(str(tmp_path))
    records = {"2026.42": (0, 4, False), "2026.42-2": (4, 4, True), "2026.42-3": (8, 2, False)}
    for version, (first, shards, empty) in records.items():
        record = RefreshRecord(crawl=CRAWL, first_shard=first, shards=shards, end=10, empty=empty)
        record.save(store, record_path("small", version))
    for version, crawl in (("2026.42", CRAWL), ("2026.1", "CC-MAIN-2026-01"), ("2026.2", None)):
        manifest = DATASET.model_copy(update={"version": version, "settings": {"source": {"crawl": crawl}}})
        manifest.save(store, f"{manifest.folder}/manifest.json")
    found = taken(store, "small")
    assert [(each.version, each.crawl) for each in found] == [
        *(("2026.1", "CC-MAIN-2026-01"), ("2026.42", CRAWL), ("2026.42-2", CRAWL))
    ]
    assert [each.published for each in found] == [True, True, False]
    assert next_shard(found, CRAWL, 0) == 8
    assert not is_done(found, CRAWL)
    assert is_done(found, "CC-MAIN-2026-01"), "what was made by hand took what was wanted"


def test_what_is_made_of_pages_that_are_there_takes_nothing(tmp_path: Path):
    store = Store(str(tmp_path))
    RefreshRecord(crawl=CRAWL, first_shard=0, shards=1, end=2).save(store, record_path("small", "2026.42"))
    made = [("2026.42", "one"), ("2026.11.23", "one"), ("2026.42-2026.11.24", "one"), ("2026.42-2026.11.25", "two")]
    for version, pages in made:
        changes = {"version": version, "settings": {"source": {"crawl": CRAWL}}, "stages": {"fetch": pages}}
        manifest = DATASET.model_copy(update=changes)
        manifest.save(store, f"{manifest.folder}/manifest.json")
    assert [each.version for each in taken(store, "small")] == ["2026.42", "2026.42-2026.11.25"]
    store.remove("datasets/small/2026.42-2026.11.25")
    assert not is_done(taken(store, "small"), CRAWL), "the crawl's other shard is still to be taken"


def test_a_crawl_is_done_when_its_last_shard_is_taken():
    assert is_done([part("1", 0, 5), part("2", 5, 5)], CRAWL)
    assert not is_done([part("1", 0, 9)], CRAWL)
    assert is_done([part("1", 0, 9)], CRAWL, 9), "fewer are wanted than then"
    assert not is_done([part("1", 0, 9)], CRAWL, 11)
    assert next_shard([part("1", 3, 4)], "CC-MAIN-2026-47", 3) == 3


def test_the_last_crawl_may_not_be_listed_any_more():
    found = last_crawl([by_hand("1"), by_hand("2", "CC-MAIN-2025-51")], [])
    assert found is not None
    assert found.name == CRAWL
    assert last_crawl([], []) is None
    with pytest.raises(BadInput, match="HAMLET is not listed"):
        last_crawl([by_hand("1", "HAMLET")], [])


@pytest.mark.parametrize(
    ("parts", "names", "newest", "expected"),
    [
        ([], [], True, "2026.42"),
        ([part("2026.42", 0, 1)], ["2026.42"], True, "2026.42-2"),
        ([part("2026.42", 0, 1), part("2026.42-2", 1, 1)], ["2026.42", "2026.42-2"], True, "2026.42-3"),
        ([by_hand("2026.11.22")], ["2026.11.22"], True, "2026.42"),
        ([by_hand("2026.50.1", "X")], ["2026.50.1"], True, "2026.50.1-2026.42"),
        ([by_hand("2026.50.1", "X")], ["2026.50.1", "2026.50.1-2026.40"], True, "2026.50.1-2026.42"),
        ([by_hand("2026.50", "X")], ["2026.50"], False, "2026.42"),
        ([by_hand("2026.42", "X")], ["2026.42"], False, "2026.42-2"),
    ],
)
def test_versions_are_named_after_their_crawl_and_the_newest_is_so_by_name(parts, names, newest, expected):
    assert new_version(parts, names, CRAWL, newest=newest) == expected
