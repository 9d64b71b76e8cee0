"""Files of users: found, known by content, and noticed when they change."""

import hashlib
from pathlib import Path

import pytest

from infra.errors import BadInput, DamagedData
from infra.store import Store
from tasks.inputs import UserFile, content_digest, find, pinned

DIGEST = hashlib.sha256(b"model").hexdigest()


def test_a_folder_is_known_by_names_and_contents_of_its_files(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        for name in ("b/list.txt", "a.txt"):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
    digest = content_digest(str(tmp_path / "one"))
    assert digest == content_digest(str(tmp_path / "two")) != content_digest(str(tmp_path / "one/b"))
    (tmp_path / "two/a.txt").rename(tmp_path / "two/c.txt")
    assert content_digest(str(tmp_path / "two")) != digest


def test_the_digest_is_filled_in_and_checked_and_the_path_does_not_matter(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"words")
    one = pinned(UserFile(path=str(tmp_path / "one")))
    assert one.identity() == pinned(UserFile(path=str(tmp_path / "two"))).identity() == {"sha256": one.sha256}
    assert pinned(one) == one
    (tmp_path / "one").write_bytes(b"other words")
    with pytest.raises(BadInput, match="sha256"):
        pinned(one)
    with pytest.raises(BadInput, match="must be there"):
        pinned(UserFile(path=str(tmp_path / "absent")))


def test_the_content_and_not_the_path_is_the_identity(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "root"))
    store.write_bytes("models/a.bin", b"model")
    (tmp_path / "b.bin").write_bytes(b"model")
    under_root = UserFile(path="models/a.bin").resolved(store)
    elsewhere = UserFile(path=str(tmp_path / "b.bin")).resolved(store)
    assert under_root.path == str(tmp_path / "root/models/a.bin")
    assert under_root.identity() == elsewhere.identity() == {"sha256": DIGEST}


def test_a_relative_path_may_start_at_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.bin").write_bytes(b"model")
    monkeypatch.chdir(tmp_path)
    assert UserFile(path="a.bin").resolved(Store(str(tmp_path / "root"))).path == str(tmp_path / "a.bin")


def test_a_missing_or_another_file_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(BadInput, match=r"absent\.bin"):
        UserFile(path="absent.bin").resolved(store)
    with pytest.raises(BadInput, match="folder"):
        UserFile(path=str(tmp_path)).resolved(store)
    store.write_bytes("a.bin", b"other")
    with pytest.raises(BadInput, match=DIGEST):
        UserFile(path="a.bin", sha256=DIGEST).resolved(store)


def test_a_file_that_changes_during_a_run_is_noticed(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("a.bin", b"model")
    file = UserFile(path="a.bin").resolved(store)
    with file.local() as path:
        assert path.read_bytes() == b"model"
    store.write_bytes("a.bin", b"changed")
    with pytest.raises(DamagedData, match="sha256"), file.local():
        pass


def test_a_remote_file_is_copied_while_it_is_needed() -> None:
    store = Store("memory://models")
    store.write_bytes("a.bin", b"model")
    file = UserFile(path="a.bin").resolved(store)
    assert file.sha256 == DIGEST
    with file.local() as path:
        assert path.read_bytes() == b"model"
    assert not path.exists()


def test_a_path_to_the_parent_of_the_working_folder_is_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.txt").write_bytes(b"model")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert find("../list.txt", Store(str(tmp_path / "root"))) == str(tmp_path / "list.txt")
