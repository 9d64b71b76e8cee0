"""Fingerprints, and finding datasets by name and version."""

import hashlib
from pathlib import Path

import pytest

from infra.errors import BadInput, DamagedData
from infra.manifest import (
    DatasetManifest,
    FileRecord,
    ShardRecord,
    StageManifest,
    TokenizerRecord,
    canonical_json,
    fingerprint,
    library_versions,
    load_dataset,
    newest_version,
    version_key,
)
from infra.store import Store

TOKENIZER = TokenizerRecord(path="t", sha256="0" * 64, vocabulary_size=300, end_of_document=2, pad=3)
ORDERED = ["2026.11.9", "2026.11.22", "2026.11.22-2", "2026.11.22-10", "2027.1.1"]


def save(store: Store, name: str, version: str) -> None:
    manifest = DatasetManifest(
        name=name, version=version, fingerprint="f", stages={}, settings={}, tokenizer=TOKENIZER, shards=()
    )
    manifest.save(store, f"{manifest.folder}/manifest.json")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_a_fingerprint_depends_on_values_alone() -> None:
    one = fingerprint(settings={"a": 1, "b": [1, None]}, stage="x")
    assert one == fingerprint(stage="x", settings={"b": [1, None], "a": 1})
    assert len(one) == 12


def test_a_fingerprint_is_a_hash_of_canonical_json() -> None:
    expected = hashlib.sha256(b'{"stage":"extract","version":1}').hexdigest()
    assert fingerprint(version=1, stage="extract") == expected[:12]


@pytest.mark.parametrize("changed", [{"a": 2}, {"a": "1"}, {"a": None}, {"b": 1}, {"a": 1, "b": 1}, {"a": [1]}])
def test_a_fingerprint_changes_with_any_value(changed: dict[str, object]) -> None:
    assert fingerprint(**changed) != fingerprint(a=1)


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), lambda: 1])
def test_what_json_cannot_express_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        fingerprint(value=value)


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_library_versions_are_those_installed() -> None:
    assert library_versions(("pyarrow",)) == {"pyarrow": __import__("pyarrow").__version__}


@pytest.mark.parametrize("count", range(1, len(ORDERED) + 1))
def test_the_newest_version_is_found(store: Store, count: int) -> None:
    for version in reversed(ORDERED[:count]):
        save(store, "corpus", version)
    assert load_dataset(store, "corpus").version == ORDERED[count - 1]
    assert load_dataset(store, "corpus", ORDERED[0]).version == ORDERED[0]


def test_a_version_that_a_killed_run_did_not_finish_is_not_the_newest(store: Store) -> None:
    save(store, "corpus", "2026.11.9")
    store.make_folder("datasets/corpus/2026.11.22")
    assert load_dataset(store, "corpus").version == "2026.11.9"
    with pytest.raises(BadInput) as caught:
        load_dataset(store, "corpus", "2026.11.22")
    assert "known: corpus/2026.11.9" in caught.value.rule


def test_an_unknown_dataset_is_refused_with_those_there_are(store: Store) -> None:
    with pytest.raises(BadInput, match=r"dataset corpus/newest: .*known: none"):
        load_dataset(store, "corpus")
    save(store, "other", "1")
    with pytest.raises(BadInput, match=r"dataset corpus/7: .*known: other/1"):
        load_dataset(store, "corpus", "7")


def test_a_manifest_that_does_not_parse_is_damaged_data(store: Store) -> None:
    store.write_bytes("manifest.json", b'{"name": 1')
    with pytest.raises(DamagedData, match="is not a DatasetManifest"):
        DatasetManifest.load(store, "manifest.json")


def test_totals_are_sums_over_shards_largest_first() -> None:
    def shard(index: int, reasons: dict[str, int]) -> ShardRecord:
        file = FileRecord(path=f"{index}", rows=index, bytes=1, sha256="")
        return ShardRecord(
            index=index, source="s", rows_in=9, kept=file, dropped=file, others={"heldout": file}, reasons=reasons
        )

    manifest = StageManifest(
        stage="quality",
        version=1,
        fingerprint="abc",
        settings={},
        libraries={},
        parents={},
        shards=(shard(1, {"a": 1, "b": 1}), shard(2, {"b": 2, "c": 3})),
        digest="d",
    )
    assert list(manifest.total("reasons").items()) == [("b", 3), ("c", 3), ("a", 1)]
    assert (manifest.rows_in, manifest.kept, manifest.rows_of("heldout")) == (18, 6, 3)
    assert manifest.kept_paths == ["stages/quality/abc/1", "stages/quality/abc/2"]


@pytest.mark.parametrize(
    ("version", "newest", "expected"),
    [
        ("2026.11.23", "2026.11.22", "2026.11.23"),
        ("2026.11.23", "2026.42", "2026.42-2026.11.23"),
        ("2026.11.23-2", "2026.42-2026.11.23", "2026.42-2026.11.23-2"),
        ("2026.12.01", "2026.42-2026.42-2", "2026.42-2026.42-2-2026.12.01"),
        ("2027.01.03", "2026.51", "2027.01.03"),
    ],
)
def test_a_new_version_is_the_newest_by_name(version: str, newest: str, expected: str) -> None:
    assert newest_version(version, []) == version
    assert newest_version(version, [newest]) == expected
    assert version_key(expected) > version_key(newest)
