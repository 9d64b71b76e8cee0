"""Dedup: signatures are datasketch's, clusters span shards, and the survivor does not depend on order."""

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from datasketch import MinHash

from infra.cluster import Cluster
from infra.manifest import FileRecord, ShardRecord, StageManifest
from infra.schema import DOCUMENTS
from infra.store import Store
from tasks.dedup import DedupSettings, dedup, duplicates, shingles, sign, signatures
from tasks.stage import StageRunner
from tests.tasks.archives import prose

SETTINGS = DedupSettings()


def documents(texts: dict[str, str]) -> pa.Table:
    rows = [{"id": i, "source": "c", "file": "w", "offset": 0, "text": t} for i, t in texts.items()]
    return pa.Table.from_pylist(rows, schema=DOCUMENTS)


def lost(texts: dict[str, str], settings: DedupSettings = SETTINGS) -> dict[str, str]:
    """Survivor by removed id."""
    table = duplicates(signatures(documents(texts), settings).kept, settings)
    return dict(zip(table["id"].to_pylist(), table["survivor"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    "text", ["", "one", "One two, three four five!", "a b c d e f g a b c d e f g " * 40, "水車 小屋"]
)
@pytest.mark.parametrize("seed", [1, 42])
def test_a_signature_is_the_one_that_datasketch_makes(text: str, seed: int) -> None:
    expected = MinHash(num_perm=112, seed=seed, hashfunc=xxhash.xxh32_intdigest)
    words = text.lower().replace(",", "").replace("!", "").split()
    for start in range(max(len(words) - 4, 1)):
        expected.update(" ".join(words[start : start + 5]).encode())
    count, values = sign(text, DedupSettings(seed=seed))
    assert count == len(words)
    assert np.array_equal(values, expected.hashvalues)


def test_a_long_text_is_signed_in_parts_with_the_same_result() -> None:
    text = " ".join(str(number) for number in range(20_000))
    expected = MinHash(num_perm=112, seed=1, hashfunc=xxhash.xxh32_intdigest)
    expected.update_batch(shingles(text.split(), 5))
    assert np.array_equal(sign(text, SETTINGS)[1], expected.hashvalues)


def test_shingles_are_distinct_word_ngrams() -> None:
    assert shingles(["a", "b", "c"], 2) == [b"a b", b"b c"]
    assert shingles(["a", "a", "a"], 2) == [b"a a"]
    assert shingles(["a"], 2) == [b"a"]


def test_copies_are_found_and_different_texts_left() -> None:
    first, second = prose()[:2]
    assert lost({"a": first, "b": second, "c": first.upper(), "d": first.replace(" ", "  ")}) == {"c": "a", "d": "a"}
    assert lost({"a": first, "b": second}) == {}


def test_the_longest_survives_and_the_smallest_id_among_equals() -> None:
    text = prose()[0]
    assert lost({"a": text, "b": f"{text} more", "c": text}) == {"a": "b", "c": "b"}
    assert lost({"c": text, "b": text, "d": text}) == {"c": "b", "d": "b"}


def test_the_survivor_does_not_depend_on_order() -> None:
    texts = {f"{n:02}": prose()[n % 5] + " more" * (n % 3) for n in range(30)}
    expected = lost(texts)
    assert len(expected) == 25
    for seed in range(3):
        items = list(texts.items())
        random.Random(seed).shuffle(items)
        assert lost(dict(items)) == expected


def test_a_chain_of_neighbours_is_one_cluster() -> None:
    words = " ".join(prose()[0:3]).split()
    texts = {str(n): " ".join(words[n * 8 : n * 8 + 250]) for n in range(6)}
    table = duplicates(signatures(documents(texts), SETTINGS).kept, DedupSettings(bands=112, rows=1))
    assert set(table["cluster_size"].to_pylist()) == {6}
    assert min(table["similarity"].to_pylist()) < 0.9


def test_nothing_in_nothing_out() -> None:
    assert lost({}) == {}


def parent_of(store: Store, shards: list[dict[str, str]]) -> StageManifest:
    records = []
    for index, texts in enumerate(shards):
        written = store.write_table(f"stages/given/x/{index}.arrow", documents(texts))
        file = FileRecord(path=f"{index}.arrow", rows=len(texts), bytes=written.size, sha256=written.sha256)
        records.append(ShardRecord(index=index, source=str(index), rows_in=len(texts), kept=file, dropped=file))
    return StageManifest(
        stage="given",
        version=1,
        fingerprint="x",
        settings={},
        libraries={},
        parents={},
        shards=tuple(records),
        digest="d",
    )


def test_duplicates_are_removed_across_shards(tmp_path: Path, cluster: Cluster) -> None:
    store = Store(str(tmp_path))
    one, two, three = prose()[:3]
    parent = parent_of(store, [{"a": one, "b": two}, {"c": f"{one} more"}, {"d": three, "e": two}])
    signed, clusters, unique = dedup(StageRunner(store, cluster), parent, SETTINGS)
    assert (signed.kept, clusters.kept, unique.kept) == (5, 2, 3)
    left = [each for path in unique.kept_paths for each in store.read_table(path)["id"].to_pylist()]
    assert left == ["b", "c", "d"]
    dropped = [
        row for shard in unique.shards for row in store.read_table(f"{unique.folder}/{shard.dropped.path}").to_pylist()
    ]
    assert [(row["id"], row["reason"], row["detail"]) for row in dropped] == [
        ("a", "near_duplicate", "c"),
        ("e", "near_duplicate", "b"),
    ]
    assert dropped[0]["value"] > 0.9
    assert dropped[1]["value"] == 1.0


def test_real_pairs_are_caught_as_the_curve_of_14_bands_of_8_rows_says(shared_data: Path) -> None:
    lines = gzip.decompress((shared_data / "neardup/pairs.jsonl.gz").read_bytes()).decode().strip().split("\n")
    close: list[bool] = []
    far: list[bool] = []
    for pair in map(json.loads, lines):
        group = close if pair["jaccard5"] >= 0.9 else far if pair["jaccard5"] < 0.3 else None
        if group is not None:
            group.append(bool(lost({"a": pair["text_a"], "b": pair["text_b"]})))
    assert min(len(close), len(far)) >= 30
    assert sum(close) / len(close) >= 0.95
    assert sum(far) / len(far) <= 0.05
