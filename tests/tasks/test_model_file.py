"""Files that users name: found, pinned by content, and noticed when they change."""

import hashlib
from pathlib import Path

import pytest

from infra.errors import BadInput, DamagedData
from infra.store import Store
from tasks.model_file import ModelFile

DIGEST = hashlib.sha256(b"model").hexdigest()


def test_the_content_and_not_the_path_is_the_identity(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "root"))
    store.write_bytes("models/a.bin", b"model")
    (tmp_path / "b.bin").write_bytes(b"model")
    under_root = ModelFile(path="models/a.bin").resolved(store)
    elsewhere = ModelFile(path=str(tmp_path / "b.bin")).resolved(store)
    assert under_root.path == str(tmp_path / "root/models/a.bin")
    assert under_root.identity() == elsewhere.identity() == {"sha256": DIGEST}


def test_a_relative_path_may_start_at_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.bin").write_bytes(b"model")
    monkeypatch.chdir(tmp_path)
    assert ModelFile(path="a.bin").resolved(Store(str(tmp_path / "root"))).path == str(tmp_path / "a.bin")


def test_a_missing_or_another_file_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(BadInput, match=r"absent\.bin"):
        ModelFile(path="absent.bin").resolved(store)
    store.write_bytes("a.bin", b"other")
    with pytest.raises(BadInput, match=DIGEST):
        ModelFile(path="a.bin", sha256=DIGEST).resolved(store)


def test_a_file_that_changes_during_a_run_is_noticed(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("a.bin", b"model")
    file = ModelFile(path="a.bin").resolved(store)
    with file.local() as path:
        assert path.read_bytes() == b"model"
    store.write_bytes("a.bin", b"changed")
    with pytest.raises(DamagedData, match="sha256"), file.local():
        pass


def test_a_remote_file_is_copied_while_it_is_needed() -> None:
    store = Store("memory://models")
    store.write_bytes("a.bin", b"model")
    file = ModelFile(path="a.bin").resolved(store)
    assert file.sha256 == DIGEST
    with file.local() as path:
        assert path.read_bytes() == b"model"
    assert not path.exists()
