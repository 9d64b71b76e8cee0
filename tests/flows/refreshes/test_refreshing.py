"""Refreshes over small crawls, without Prefect: what is taken when, what is known again, and what a stop leaves.

More of them, with kills, are in tests/e2e/test_refresh.py.
"""

from pathlib import Path

import pytest

from flows.deployments import REFRESH_CORPUS
from flows.refreshes.history import RefreshRecord, record_path
from flows.refreshes.refreshing import upcoming
from flows.refreshes.settings import RefreshSettings
from infra.cluster import Cluster
from infra.errors import BadInput
from infra.manifest import dataset_versions, load_dataset
from infra.store import Store
from tests.flows.small_crawls import Builder, Stopped, settings, write_crawls
from tests.model.findings.contenders import DATASET

A, B, C = "CC-MAIN-2026-05", "CC-MAIN-2026-10", "CC-MAIN-2026-14"
FIRST = [list(range(12))]
SECOND = [[*range(6, 12), *range(12, 21)], list(range(21, 30))]
NOT_HELD_OUT = 30
"""A text that falls to training."""


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    (tmp_path / "mirror").mkdir()
    write_crawls(tmp_path / "mirror", {A: FIRST})
    return tmp_path / "mirror"


@pytest.fixture
def builder(tmp_path: Path, cluster: Cluster) -> Builder:
    return Builder(Store(str(tmp_path / "root")), cluster)


def test_what_is_new_becomes_a_version_and_what_is_known_is_dropped(mirror: Path, builder: Builder):
    refresh = settings(mirror)
    (first,) = builder.run(refresh)
    assert (first.version, first.documents, first.added, first.known) == ("2026.05", 12, 12, 0)
    assert builder.run(refresh) == []
    assert builder.built == ["2026.05"]

    write_crawls(mirror, {A: FIRST, B: SECOND})
    (second,) = builder.run(refresh)
    assert (second.version, second.documents, second.added, second.known) == ("2026.10", 24, 18, 6)
    assert (second.first_shard, second.shards, second.end) == (0, 2, 2)
    assert "2026.10  shards 0 to 1 of 2 of CC-MAIN-2026-10: 24 documents, 18 added, 6 known" in second.text()
    one, other = (load_dataset(builder.store, "news", each) for each in dataset_versions(builder.store, "news"))
    assert second.tokens == other.tokens("train") + other.tokens("heldout")
    assert one.tokenizer.sha256 == other.tokenizer.sha256, "a champion can go on"

    write_crawls(mirror, {A: FIRST, B: SECOND, C: [[*range(12), NOT_HELD_OUT]]})
    (third,) = builder.run(refresh)
    assert (third.version, third.tokens) == ("2026.14", 0)
    assert builder.indexed[-2:] == ["2026.05", "2026.10"], "what any earlier version has is known"
    assert "too little is new for a version" in third.text(), "one document leaves nothing to hold out"
    assert builder.run(refresh) == [], "it is done all the same"
    assert dataset_versions(builder.store, "news") == ["2026.05", "2026.10"]


def test_a_refresh_that_was_stopped_keeps_to_its_budget_and_the_next_takes_the_rest(mirror: Path, builder: Builder):
    write_crawls(mirror, {A: FIRST, B: SECOND})
    refresh = settings(mirror, first_crawl=A, budget={"shards": 2})
    builder.stop_at = "report"
    with pytest.raises(Stopped):
        builder.run(refresh)
    assert dataset_versions(builder.store, "news") == ["2026.05"]
    builder.stop_at = ""
    steps = builder.refreshing(refresh)
    for _ in range(2):  # the second after a stop in what comes after it
        made = [(each.version, each.first_shard, each.shards) for each in steps.run()]
        assert made == [("2026.05", 0, 1), ("2026.10", 0, 1)]
    assert [each.name for each in steps.pending()] == [B]
    steps.end()
    assert [(each.version, each.first_shard, each.shards) for each in builder.run(refresh)] == [("2026.10-2", 1, 1)]
    assert steps.pending() == []


def test_what_is_to_come_is_what_is_built(mirror: Path, builder: Builder):
    write_crawls(mirror, {A: FIRST, B: SECOND})
    refresh = settings(mirror, first_crawl=A, budget={"shards": 2})
    planned = upcoming(builder.store, refresh)
    assert [(each.source.crawl, each.source.shards) for each in planned] == [(A, 1), (B, 1)]
    assert not builder.store.exists("datasets")
    assert not builder.store.exists("refreshes")
    builder.stop_at = "build"
    with pytest.raises(Stopped):
        builder.run(refresh)
    assert upcoming(builder.store, refresh) == planned, "what was stopped before anything was published is to come"
    builder.stop_at = ""
    builder.run(refresh)
    assert [(each.source.crawl, each.source.first_shard) for each in upcoming(builder.store, refresh)] == [(B, 1)]


def test_where_a_dataset_begins(mirror: Path, builder: Builder):
    write_crawls(mirror, {A: FIRST, B: FIRST, C: FIRST})

    def pending(**changes: object) -> list[str]:
        return [each.name for each in builder.refreshing(settings(mirror, **changes)).pending()]

    assert pending() == [C]
    assert pending(first_crawls=2) == [B, C]
    assert pending(first_crawl=A) == [A, B, C]
    assert pending(backfill={"first": A, "last": B}) == [A, B]
    with pytest.raises(BadInput, match="no crawl from"):
        pending(backfill={"first": C, "last": A})
    with pytest.raises(BadInput, match=r"collinfo\.json"):
        pending(collinfo=str(mirror / "nowhere"))


def test_a_budget_that_holds_nothing_is_refused_before_anything_is_made(mirror: Path, builder: Builder):
    with pytest.raises(BadInput, match="must hold one shard at least"):
        builder.run(settings(mirror, budget={"bytes": 10}))
    with pytest.raises(BadInput, match="for a dataset without a version"):
        builder.run(settings(mirror, budget={"tokens": 10}))
    assert dataset_versions(builder.store, "news") == []


def test_what_was_brought_here_without_its_stages_is_said_to_be_so(mirror: Path, tmp_path: Path):
    store, given = Store(str(tmp_path / "root")), {"source": {"crawl": A}, "tokenizer": {}}
    changes = {"name": "news", "version": "2026.1", "stages": {"fetch": "0123456789ab"}, "settings": given}
    brought = DATASET.model_copy(update=changes)
    brought.save(store, f"{brought.folder}/manifest.json")
    write_crawls(mirror, {A: FIRST, B: SECOND})
    assert [each.source.crawl for each in upcoming(store, settings(mirror))] == [B]
    with pytest.raises(BadInput, match=r"the stages of news/2026\.1 are gone"):
        upcoming(store, settings(mirror, budget={"tokens": 10}))


def test_a_crawl_of_which_fewer_shards_are_wanted_than_once_is_done(mirror: Path, builder: Builder):
    write_crawls(mirror, {A: [[1], [2], [3]]})
    RefreshRecord(crawl=A, first_shard=0, shards=2, end=3, empty=True).save(
        builder.store, record_path("news", "2026.05")
    )
    refresh = settings(mirror)
    assert [each.name for each in builder.refreshing(refresh).pending()] == [A]
    assert builder.refreshing(of_source(refresh, shards=2)).pending() == []


def test_the_schedule_comes_to_each_new_crawl(mirror: Path, tmp_path: Path):
    store, given = Store(str(tmp_path / "root")), REFRESH_CORPUS.parameters["refresh"]
    write_crawls(mirror, {A: [[text] for text in range(12)], B: FIRST})
    RefreshRecord(crawl=A, first_shard=0, shards=10, end=12, empty=True).save(store, record_path("news", "2026.05"))
    refresh = settings(mirror, budget=given.get("budget", {}))
    refresh = of_source(refresh, **given.get("corpus", {}).get("source", {}))
    assert [(each.source.crawl, each.source.shards) for each in upcoming(store, refresh)] == [(B, 1)]


def of_source(refresh: RefreshSettings, **changes: object) -> RefreshSettings:
    source = refresh.corpus.source.model_copy(update=changes)
    return refresh.model_copy(update={"corpus": refresh.corpus.model_copy(update={"source": source})})
