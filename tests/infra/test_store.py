"""Files that are whole or absent, on this machine and on a remote file system."""

import hashlib
import os
import stat
import subprocess
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from infra.errors import BadInput, DamagedData, DiskFull
from infra.store import Store

TABLE = pa.table({"n": list(range(1000))})


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_written_is_read_back_with_its_digest(store: Store) -> None:
    with store.create("a/b/file") as out:
        out.write(b"one ")
        out.write(b"two")
    assert store.read_bytes("a/b/file") == b"one two"
    assert out.sha256 == hashlib.sha256(b"one two").hexdigest() == store.sha256("a/b/file")
    assert out.size == store.size("a/b/file") == 7
    assert store.names("a") == ["b"]
    assert store.names("nowhere") == []


def test_a_block_that_raises_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError, match="midway"), store.create("a/file") as out:  # noqa: PT012
        out.write(b"half")
        raise RuntimeError("midway")
    assert not store.exists("a/file")
    assert store.names("a") == []


def test_a_block_that_raises_leaves_the_old_file(store: Store) -> None:
    store.write_bytes("file", b"old")
    with pytest.raises(RuntimeError, match="midway"), store.create("file") as out:  # noqa: PT012
        out.write(b"new")
        raise RuntimeError("midway")
    assert store.read_bytes("file") == b"old"


def test_nothing_stands_under_the_name_before_the_end(store: Store) -> None:
    with store.create("file") as out:
        out.write(b"x")
        assert not store.exists("file")
    assert store.exists("file")


def test_two_writers_of_a_file_do_not_share_a_temporary_one(tmp_path: Path) -> None:
    """Containers that share a folder have processes of the same number."""
    store = Store(str(tmp_path))
    with store.create("file") as one, store.create("file") as other:
        one.write(b"whole")
        other.write(b"another")
    assert store.read_bytes("file") == b"whole", "the last to end"
    assert store.names("") == ["file"]


def test_tables_go_through_either_file_system(store: Store) -> None:
    written = store.write_table("t.arrow", TABLE)
    assert store.read_table("t.arrow").equals(TABLE)
    assert written.sha256 == store.sha256("t.arrow")


def test_a_store_survives_pickling(store: Store) -> None:
    kind, arguments = store.__reduce__()
    store.write_bytes("file", b"x")
    assert kind(*arguments).read_bytes("file") == b"x"


@pytest.mark.parametrize("data", [b"", b"ARROW1", b"x" * 4096])
def test_a_file_that_is_no_arrow_is_damaged_data(store: Store, data: bytes) -> None:
    store.write_bytes("t.arrow", data)
    with pytest.raises(DamagedData, match=r"t\.arrow"):
        store.open_table("t.arrow")


def test_a_truncated_arrow_file_is_damaged_data(store: Store) -> None:
    store.write_table("t.arrow", TABLE)
    store.write_bytes("t.arrow", store.read_bytes("t.arrow")[:-100])
    with pytest.raises(DamagedData, match="Remove the stage"):
        store.open_table("t.arrow")


def test_removal_takes_files_and_folders_and_what_is_not_there(store: Store) -> None:
    store.write_bytes("a/b/file", b"x")
    store.remove("a")
    store.remove("a")
    assert not store.exists("a/b/file")


def test_private_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    old = os.umask(0o022)
    try:
        store.write_bytes("secret/file", b"x", private=True)
        store.write_bytes("open/file", b"x")
    finally:
        os.umask(old)
    assert (mode(tmp_path / "secret"), mode(tmp_path / "secret/file")) == (0o700, 0o600)
    assert (mode(tmp_path / "open"), mode(tmp_path / "open/file")) == (0o755, 0o644)


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("a/file", b"x")
    (tmp_path / "a/.file.77.tmp").write_bytes(b"half")
    store.remove_temporary("a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_a_remote_file_has_no_local_path() -> None:
    with pytest.raises(ValueError, match="not a folder of this machine"):
        Store("memory://somewhere").local_path("file")


def test_a_root_holds_no_password() -> None:
    with pytest.raises(BadInput, match="holds no password") as refused:
        Store("https://someone:hunter2@host/mill")
    assert "hunter2" not in str(refused.value)


def test_paths_for_people_say_where_they_are(tmp_path: Path):
    assert Store(str(tmp_path)).full_path("a/b") == f"{tmp_path}/a/b"
    assert Store("s3://bucket/root/").full_path("a/b") == "s3://bucket/root/a/b"
    assert Store("s3://bucket/root").full_path("") == "s3://bucket/root"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"needs root to mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("pieces", [1, 1000])
def test_a_full_disk_is_an_error_of_its_own_and_leaves_nothing(small_disk: Path, pieces: int) -> None:
    store = Store(str(small_disk))
    with pytest.raises(DiskFull) as caught, store.create("a/file") as out:  # noqa: PT012
        for _ in range(pieces):
            out.write(bytes(1_000_000 // pieces))
    assert "a/file could not be written (No space left on device;" in caught.value.value
    assert "whole or not at all" in caught.value.rule
    assert "Free space" in caught.value.remedy
    assert list((small_disk / "a").iterdir()) == []


def test_a_table_that_does_not_fit_leaves_nothing(small_disk: Path) -> None:
    store = Store(str(small_disk))
    with pytest.raises(DiskFull):
        store.write_table("t.arrow", pa.table({"n": list(range(100_000))}))
    assert list(small_disk.iterdir()) == []


def test_chosen_columns_are_read_alone(store: Store) -> None:
    store.write_table("t.arrow", pa.table({"a": [1, 2], "b": ["x", "y"], "c": [0.5, 1.5]}))
    assert store.read_table("t.arrow", ["c", "a"]).to_pydict() == {"a": [1, 2], "c": [0.5, 1.5]}


def test_no_path_leaves_the_root(store: Store) -> None:
    store.write_bytes("a..b/..c/d", b"inside")
    assert store.names("a..b") == ["..c"]
    for path in ("..", "../x", "a/../../x", "a/.."):
        with pytest.raises(BadInput, match="below the root"):
            store.exists(path)
        with pytest.raises(BadInput):
            store.write_bytes(path, b"")


def test_files_are_listed_with_sizes_and_without_what_links_lead_to(store: Store, tmp_path: Path) -> None:
    store.write_bytes("x/one", b"1")
    store.write_bytes("x/y/two", b"22")
    if store.is_local:
        (tmp_path / "x/link").symlink_to("/etc", target_is_directory=True)
    listed = list(store.files("x"))
    assert [(each.path, each.bytes) for each in listed] == [("x/one", 1), ("x/y/two", 2)]
    assert all(abs((datetime.now(UTC) - each.modified).total_seconds()) < 3600 for each in listed)
    assert list(store.files("nowhere")) == []
