"""Dedup, end to end: who goes, in whose favour, and that neither workers nor memory settings change a byte."""

import gzip
import json
import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from infra.cluster import Cluster, open_cluster
from infra.environment import Environment
from infra.manifest import StageManifest
from infra.store import Store
from tasks.duplicates.candidates import CandidateSettings
from tasks.duplicates.dedup import DedupResult, DedupSettings, SourceLoss, alarming_sources, dedup
from tasks.duplicates.signatures import SignatureSettings
from tasks.duplicates.verification import VerificationSettings
from tasks.stage import StageRunner
from tests.tasks.documents import DATE, Row, dropped_rows, kept_ids, prose, stage_of

DEFAULT = DedupSettings()


def changed(text: str, share: float, seed: int = 1) -> str:
    """A text with a share of its words replaced, each by one that occurs nowhere else."""
    generator, words = random.Random(seed), text.split()
    for at in generator.sample(range(len(words)), round(share * len(words))):
        words[at] = f"word{seed}x{at}"
    return " ".join(words)


def deduplicated(
    root: Path, cluster: Cluster, shards: Sequence[Sequence[Row]], settings: DedupSettings = DEFAULT
) -> tuple[Store, DedupResult]:
    store = Store(str(root))
    return store, dedup(StageRunner(store, cluster), stage_of(store, shards), settings)


def lost(store: Store, unique: StageManifest) -> dict[str, tuple[str, str]]:
    return {name: (row["reason"], row["detail"]) for name, row in dropped_rows(store, unique).items()}


@pytest.fixture(scope="module")
def long_text() -> str:
    return " ".join(prose()[:6])


def test_exact_near_and_url_duplicates_go_across_shards(tmp_path: Path, cluster: Cluster, long_text: str) -> None:
    other, shorter = prose()[20], " ".join(prose()[21].split()[:50])
    shards: list[list[Row]] = [
        [{"id": "a", "text": long_text}, {"id": "b", "text": other, "url": "http://x.org/p"}],
        [{"id": "c", "text": f"{long_text} more"}, {"id": "d", "text": ""}, {"id": "e", "text": "..."}],
        [{"id": "f", "text": shorter, "url": "https://www.x.org/p#top"}, {"id": "g", "text": other}],
        [{"id": "h", "text": ""}],
    ]
    store, result = deduplicated(tmp_path, cluster, shards)
    assert lost(store, result.unique) == {
        "a": ("near_duplicate", "c"),
        "f": ("url_duplicate", "b"),
        "g": ("exact_duplicate", "b"),
        "h": ("exact_duplicate", "d"),
    }
    rows = dropped_rows(store, result.unique)
    assert rows["a"]["value"] > 0.99
    assert rows["f"]["value"] < 0.1
    assert rows["g"]["value"] == rows["h"]["value"] == 1.0
    assert kept_ids(store, result.unique) == ["b", "c", "d", "e"]


def test_no_two_survivors_have_one_text(tmp_path: Path, cluster: Cluster) -> None:
    """Copies of a text whose best copy goes by its URL: another copy stays, and only one."""
    text, *others = prose()[:4]
    rows: list[Row] = [
        {"id": f"{n:02}", "text": text, "url": f"http://x.org/{n}", "quality": 1 - n / 100} for n in range(40)
    ]
    rows += [{"id": f"z{n}", "text": each, "url": f"http://x.org/{n}", "quality": 2.0} for n, each in enumerate(others)]
    store, result = deduplicated(tmp_path, cluster, [rows[:20], rows[20:]])
    assert kept_ids(store, result.unique) == ["03", "z0", "z1", "z2"]
    found = lost(store, result.unique)
    assert {found[f"{n:02}"] for n in range(3)} == {("url_duplicate", f"z{n}") for n in range(3)}
    assert {found[f"{n:02}"] for n in range(4, 40)} == {("exact_duplicate", "03")}
    store, result = deduplicated(tmp_path, cluster, [rows], DedupSettings(candidates=CandidateSettings(urls=False)))
    assert kept_ids(store, result.unique) == ["00", "z0", "z1", "z2"]


def test_nothing_goes_because_of_a_chain(tmp_path: Path, cluster: Cluster, long_text: str) -> None:
    """b is like a and c is like b, but c is not like a: b goes for a, and c stays."""
    words = long_text.split()
    cut = round(len(words) * 0.14)
    chain: list[Row] = [
        {"id": "a", "text": " ".join(words[: -2 * cut]), "quality": 3.0},
        {"id": "b", "text": " ".join(words[cut:-cut]), "quality": 2.0},
        {"id": "c", "text": " ".join(words[2 * cut :]), "quality": 1.0},
    ]
    settings = DedupSettings(
        signature=SignatureSettings(bands=200, rows=2), verification=VerificationSettings(min_similarity=0.6)
    )
    store, result = deduplicated(tmp_path, cluster, [chain], settings)
    assert lost(store, result.unique) == {"b": ("near_duplicate", "a")}


@pytest.mark.parametrize(
    ("prefer", "stays"),
    [
        (("quality", "length", "older"), "good"),
        (("length", "quality"), "long"),
        (("older",), "old"),
        (("newer", "quality"), "new"),
        ((), "0"),
    ],
)
def test_the_survivor_is_the_one_that_is_preferred(
    tmp_path: Path, cluster: Cluster, long_text: str, prefer: tuple, stays: str
) -> None:
    rows: list[Row] = [
        {"id": "0", "text": f"{long_text} x", "quality": None, "fetched_at": None},
        {"id": "good", "text": f"{long_text} y", "quality": 0.5},
        {"id": "long", "text": f"{long_text} y z", "quality": -0.5},
        {"id": "new", "text": f"{long_text} w", "quality": -1.5, "fetched_at": DATE + timedelta(days=1)},
        {"id": "old", "text": f"{long_text} v", "quality": 0.0, "fetched_at": DATE - timedelta(days=1)},
    ]
    random.Random(len(prefer)).shuffle(rows)
    settings = DedupSettings(signature=SignatureSettings(prefer=prefer))
    store, result = deduplicated(tmp_path, cluster, [rows[:2], rows[2:]], settings)
    assert kept_ids(store, result.unique) == [stays]


def corpus() -> list[list[Row]]:
    """Texts with copies and changed copies all over five shards, of two sources."""
    rows: list[Row] = []
    for number, text in enumerate(prose()):
        versions = [text, text, changed(text, 0.005), changed(text, 0.01, 2), changed(text, 0.2, 3)]
        for version, each in enumerate(versions[: number % 6]):
            source = "whole" if version == 0 else "copied"
            rows.append(
                {"id": f"{version}{number:03}", "text": each, "source": source, "url": f"http://h/{number}/{version}"}
            )
    random.Random(3).shuffle(rows)
    return [rows[start::5] for start in range(5)]


def files(store: Store, manifest: StageManifest) -> list[bytes]:
    outputs = [each for shard in manifest.shards for each in (shard.kept, shard.dropped, *shard.others.values())]
    return [store.read_bytes(f"{manifest.folder}/{each.path}") for each in outputs]


def test_neither_workers_nor_memory_change_a_byte(tmp_path: Path, cluster: Cluster) -> None:
    given = corpus()
    store, result = deduplicated(tmp_path / "a", cluster, given)
    assert len(result.unique.total("reasons")) == 2
    small = DedupSettings(memory_bytes=1 << 16)
    other, cut = deduplicated(tmp_path / "b", cluster, given, small)
    assert [len(each.shards) for each in result.helpers] != [len(each.shards) for each in cut.helpers]
    assert (cut.unique, cut.report) == (result.unique, result.report)
    assert cut.duplicates.digest == result.duplicates.digest
    with open_cluster(Environment(workers=1)) as one:
        third, alone = deduplicated(tmp_path / "c", one, given, small)
    assert alone == cut
    for manifest, again in zip((*cut.helpers, cut.unique), (*alone.helpers, alone.unique), strict=True):
        assert files(other, manifest) == files(third, again)
    assert files(store, result.unique) == files(other, cut.unique)


def test_a_report_counts_clusters_and_raises_alarms(tmp_path: Path, cluster: Cluster) -> None:
    _, result = deduplicated(tmp_path, cluster, corpus())
    report = result.report
    assert sum(report.kinds.values()) == sum(each.lost for each in report.sources)
    assert sum(report.cluster_sizes.values()) == report.clusters
    assert report.largest[0].cluster_size == max(each.cluster_size for each in report.largest) >= 4
    assert str(report.largest[0].url).startswith("http://h/")
    assert [each.source for each in report.sources] == ["copied", "whole"]
    assert [each.source for each in report.alarms] == ["copied"]
    assert alarming_sources(result.unique, 1.0) == ()
    assert SourceLoss(source="s", documents=4, lost=1).share == 0.25


def test_empty_shards_and_empty_stages(tmp_path: Path, cluster: Cluster) -> None:
    for shards in ([[]], [[], [{"id": "a", "text": "one"}], []], []):
        _, result = deduplicated(tmp_path, cluster, shards)
        assert result.unique.kept == sum(map(len, shards))


def test_real_pairs_are_caught_and_dissimilar_ones_never(shared_data: Path, tmp_path: Path, cluster: Cluster) -> None:
    lines = gzip.decompress((shared_data / "neardup/pairs.jsonl.gz").read_bytes()).decode().strip().split("\n")
    pairs = [json.loads(line) for line in lines]
    # One id for each text: pages of different pairs may be alike too, and are judged with all others.
    texts = sorted({pair[side] for pair in pairs for side in ("text_a", "text_b")})
    shards: list[list[Row]] = [
        [{"id": str(n), "text": texts[n]} for n in range(start, len(texts), 3)] for start in range(3)
    ]
    store, result = deduplicated(tmp_path, cluster, shards)
    rows = dropped_rows(store, result.unique)
    survivors = {name: row["detail"] for name, row in rows.items()}
    number = {text: str(n) for n, text in enumerate(texts)}
    caught: list[bool] = []
    merged = 0
    for pair in pairs:
        one, two = number[pair["text_a"]], number[pair["text_b"]]
        if pair["jaccard5"] >= 0.85:
            caught.append(one == two or not {one, two}.isdisjoint(survivors))
        if pair["jaccard5"] < 0.5:
            merged += survivors.get(one) == two or survivors.get(two) == one
    assert len(caught) >= 60
    assert sum(caught) / len(caught) >= 0.95
    assert merged == 0
