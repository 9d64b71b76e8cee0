"""A dataset that lies elsewhere comes to the disk of who trains on it."""

import stat
import uuid
from pathlib import Path

import pytest

from flows.copying import copy_dataset
from infra.errors import BadInput, DamagedData
from infra.manifest import DatasetManifest, load_dataset
from infra.store import Store
from model.data.shards import verify_shards
from tests.model.small_runs import real_documents, write_dataset


@pytest.fixture(scope="module")
def bucket() -> Store:
    """A remote root with a dataset, whose ledger is in a stage."""
    store = Store(f"memory://{uuid.uuid4().hex}")
    made = write_dataset(store, real_documents()[:40])
    store.write_bytes("stages/ledger/0123/part-0.parquet", b"rows")
    store.write_bytes("stages/ledger/0123/manifest.json", b"{}")
    with_ledger = made.model_copy(update={"stages": {"ledger": "0123"}})
    with_ledger.save(store, f"{made.folder}/manifest.json")
    return store


def test_what_was_copied_can_be_trained_on_and_is_copied_once(bucket: Store, tmp_path: Path):
    target = Store(str(tmp_path))
    first = copy_dataset(bucket, target, "small")
    dataset = load_dataset(target, "small")
    verify_shards(target, dataset, dataset.shards, content=True)
    assert first.files == 6
    assert stat.S_IMODE((tmp_path / "stages/ledger/0123/part-0.parquet").stat().st_mode) == 0o600

    (tmp_path / dataset.shards[0].path).write_bytes(b"cut")
    (tmp_path / dataset.folder / "manifest.json").unlink()
    second = copy_dataset(bucket, target, "small", dataset.version)
    assert (second.files, second.present) == (1, 5)
    verify_shards(target, dataset, dataset.shards, content=True)


def test_damage_on_the_way_leaves_no_dataset(bucket: Store, tmp_path: Path):
    source, target = Store(str(tmp_path / "source")), Store(str(tmp_path / "target"))
    dataset = load_dataset(bucket, "small")
    copy_dataset(bucket, source, "small")
    shard = tmp_path / "source" / dataset.shards[0].path
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DamagedData, match="SHA-256"):
        copy_dataset(source, target, "small")
    assert not target.exists(f"{dataset.folder}/manifest.json")
    assert not target.exists(dataset.shards[0].path)
    shard.unlink()
    with pytest.raises(DamagedData, match="is missing"):
        copy_dataset(source, target, "small")


def test_another_dataset_of_the_name_is_not_overwritten(bucket: Store, tmp_path: Path):
    target, dataset = Store(str(tmp_path)), load_dataset(bucket, "small")
    other = dataset.model_copy(update={"fingerprint": "other"})
    other.save(target, f"{dataset.folder}/manifest.json")
    with pytest.raises(BadInput, match="another dataset"):
        copy_dataset(bucket, target, "small")
    assert DatasetManifest.load(target, f"{dataset.folder}/manifest.json") == other
    with pytest.raises(BadInput, match="known: small"):
        copy_dataset(bucket, target, "absent")
