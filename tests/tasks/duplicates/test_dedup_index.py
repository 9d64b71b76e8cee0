"""The index of earlier datasets: a refresh is compared with it, and what it holds can be added once and retired."""

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from infra.cluster import Cluster
from infra.errors import BadInput
from infra.store import Store
from tasks.duplicates.dedup import DedupResult, DedupSettings, dedup
from tasks.duplicates.dedup_index import add_segment, open_index, retire, segments
from tasks.duplicates.signatures import SignatureSettings
from tasks.stage import StageRunner
from tests.tasks.documents import Row, dropped_rows, kept_ids, prose, stage_of, tree

SETTINGS = DedupSettings(index="web")


@pytest.fixture
def runner(tmp_path: Path, cluster: Cluster) -> StageRunner:
    return StageRunner(Store(str(tmp_path)), cluster)


def first_crawl() -> list[list[Row]]:
    rows: list[Row] = [
        {"id": f"{n:02x}", "text": each, "url": f"http://x.org/{n}"} for n, each in enumerate(prose()[:20])
    ]
    rows.append({"id": "c0", "text": prose()[0], "url": "http://x.org/copy"})
    return [rows[:7], rows[7:]]


def build(
    runner: StageRunner,
    shards: Sequence[Sequence[Row]],
    settings: DedupSettings = SETTINGS,
    exclude: tuple[str, str] | None = None,
) -> DedupResult:
    return dedup(runner, stage_of(runner.store, shards), settings, exclude)


def publish(runner: StageRunner, version: str, result: DedupResult) -> None:
    add_segment(runner, "web", "news", version, result.signed, result.unique)


def second_crawl() -> list[list[Row]]:
    """One page unchanged, one lightly edited, one rewritten under its old URL, one new and one new with a copy."""
    texts = prose()
    return [
        [
            {"id": "a1", "text": texts[1], "url": "http://x.org/1"},
            {"id": "a2", "text": f"{texts[2]} and a word", "url": "http://x.org/2", "quality": 9.0},
            {"id": "a3", "text": texts[30], "url": "http://x.org/3"},
        ],
        [
            {"id": "a4", "text": texts[40], "url": "http://x.org/40"},
            {"id": "a5", "text": texts[0].upper(), "url": "http://x.org/50"},
            {"id": "a6", "text": texts[40], "url": "http://x.org/41"},
        ],
    ]


def lost(runner: StageRunner, result: DedupResult) -> dict[str, tuple[str, str]]:
    rows = dropped_rows(runner.store, result.unique)
    return {name: (row["reason"], row["detail"]) for name, row in rows.items()}


def test_a_refresh_drops_what_an_earlier_dataset_has_and_names_it(runner: StageRunner) -> None:
    publish(runner, "1", build(runner, first_crawl()))
    result = build(runner, second_crawl())
    assert lost(runner, result) == {
        "a1": ("exact_duplicate", "news/1:01"),
        "a2": ("near_duplicate", "news/1:02"),
        "a5": ("near_duplicate", "news/1:00"),
        "a6": ("exact_duplicate", "a4"),
    }
    assert kept_ids(runner.store, result.unique) == ["a3", "a4"]
    assert {(each.dataset, each.version) for each in result.report.largest} == {("news", "1"), (None, None)}
    publish(runner, "2", result)
    again = build(runner, [[{"id": "b0", "text": prose()[30]}, {"id": "b1", "text": prose()[1]}]])
    assert lost(runner, again) == {
        "b0": ("exact_duplicate", "news/2:a3"),
        "b1": ("exact_duplicate", "news/1:01"),
    }
    assert [each.rows for each in segments(runner.store, "web")] == [20, 2]


def test_a_dataset_made_again_is_not_compared_with_itself_or_with_later_ones(runner: StageRunner) -> None:
    first = build(runner, first_crawl())
    publish(runner, "1", first)
    second = build(runner, second_crawl())
    publish(runner, "2", second)
    assert build(runner, first_crawl()) == first
    assert build(runner, second_crawl()) == second
    more = [*second_crawl(), [{"id": "ff", "text": prose()[30]}]]
    assert lost(runner, build(runner, more))["ff"] == ("exact_duplicate", "news/2:a3")
    assert lost(runner, build(runner, more, exclude=("news", "2")))["ff"] == ("exact_duplicate", "a3")


def test_an_index_without_segments_changes_nothing(runner: StageRunner) -> None:
    alone = build(runner, first_crawl(), DedupSettings())
    assert build(runner, first_crawl()).duplicates == alone.duplicates


def test_adding_twice_is_adding_once(runner: StageRunner, tmp_path: Path) -> None:
    result = build(runner, first_crawl())
    publish(runner, "1", result)
    before = tree(tmp_path / "indexes")
    publish(runner, "1", result)
    assert tree(tmp_path / "indexes") == before
    with pytest.raises(BadInput, match=r"index web has other documents of news/1"):
        publish(runner, "1", build(runner, second_crawl()))
    with pytest.raises(BadInput, match="has 1 shards, the signatures 2"):
        add_segment(runner, "web", "news", "3", result.signed, stage_of(runner.store, [[]]))


def test_a_segment_that_was_not_finished_is_not_seen_and_is_written_again(runner: StageRunner, tmp_path: Path) -> None:
    result = build(runner, first_crawl())
    publish(runner, "1", result)
    before = tree(tmp_path / "indexes")
    folder = tmp_path / "indexes/web/segments/news/1"
    (folder / "manifest.json").unlink()
    (folder / ".part-00000-of-00002.arrow.1.tmp").write_bytes(b"half")
    assert segments(runner.store, "web") == []
    publish(runner, "1", result)
    assert tree(tmp_path / "indexes") == before


def test_what_is_retired_matches_no_more(runner: StageRunner, tmp_path: Path) -> None:
    publish(runner, "1", build(runner, first_crawl()))
    compared = build(runner, second_crawl())
    record = retire(runner.store, "web", ids=["01"], urls=["https://x.org/2#top"])
    assert sum(map(len, record.refs.values())) == 2
    result = build(runner, second_crawl())
    assert lost(runner, result) == {"a5": ("near_duplicate", "news/1:00"), "a6": ("exact_duplicate", "a4")}
    assert result.unique.fingerprint != compared.unique.fingerprint
    retire(runner.store, "web", whole=["news/1"])
    assert lost(runner, build(runner, second_crawl())) == {"a6": ("exact_duplicate", "a4")}
    assert sorted(each.name for each in (tmp_path / "indexes/web/retired").iterdir()) == ["00000.json", "00001.json"]
    with pytest.raises(BadInput, match=r"index web has no segment news/7, zz, http://nowhere"):
        retire(runner.store, "web", ids=["zz", "01"], urls=["http://nowhere"], whole=["news/7"])


def test_documents_signed_otherwise_are_not_compared(runner: StageRunner) -> None:
    publish(runner, "1", build(runner, first_crawl()))
    with pytest.raises(BadInput, match=r"index web: segment news/1 was signed by"):
        open_index(runner.store, "web", SignatureSettings(ngram=4))
    assert open_index(runner.store, "web", SignatureSettings(prefer=("length",))).segments


def crawl(root: Path, name: str) -> list[list[Row]]:
    """The pages of a crawl of the mirror as its WET files have them."""
    listing = gzip.decompress((root / f"crawl-data/{name}/wet.paths.gz").read_bytes()).decode().split()
    shards: list[list[Row]] = []
    for path in listing:
        rows: list[Row] = []
        with (root / path).open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.conversion):
                url = str(record.headers["WARC-Target-URI"])
                digest = hashlib.sha256(f"{name} {url} {len(rows)} {path}".encode()).hexdigest()[:32]
                text = record.reader.read().decode("utf-8", "replace")
                rows.append({"id": digest, "url": url, "text": text, "source": name})
        shards.append(rows)
    return shards


def test_refreshing_the_mirror(shared_data: Path, runner: StageRunner) -> None:
    """Unchanged pages go in favour of what the first crawl kept; edited ones as their verified similarity says."""
    root = shared_data / "commoncrawl"
    first, second = crawl(root, "CC-MAIN-2026-91"), crawl(root, "CC-MAIN-2026-92")
    one = build(runner, first)
    publish(runner, "1", one)
    two = build(runner, second)
    manifest = gzip.decompress((root / "manifest-CC-MAIN-2026-92.jsonl.gz").read_bytes()).decode().splitlines()
    kind = {line["url"]: line["kind"] for line in map(json.loads, manifest)}
    gone = dropped_rows(runner.store, two.unique)
    kept_first = set(kept_ids(runner.store, one.unique))
    unchanged = [row for shard in second for row in shard if kind.get(row["url"]) == "same"]
    assert len(unchanged) > 200
    # A page whose text the first crawl dropped for its URL alone is in no dataset yet.
    by_url = {row["url"] for row in dropped_rows(runner.store, one.unique).values() if row["reason"] == "url_duplicate"}
    for row in unchanged:
        if row["url"] not in by_url:
            dataset, _, survivor = gone[row["id"]]["detail"].partition(":")
            assert dataset == "news/1"
            assert survivor in kept_first
    edited = [
        gone[row["id"]] for shard in second for row in shard if kind.get(row["url"]) == "edit" and row["id"] in gone
    ]
    assert edited
    assert min(row["value"] for row in edited) >= SETTINGS.verification.min_similarity
    fresh = sum(kind.get(row["url"]) == "new" for shard in second for row in shard)
    assert two.unique.kept > 0.9 * fresh
