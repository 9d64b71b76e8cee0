"""Files under one root, local or remote, that are either whole or absent.

A local file is written under a temporary name, synced, renamed, and its folder synced. A remote object (any fsspec
URL, such as s3://) becomes visible when its upload completes, which is the same promise. Paths given to a `Store` are
relative to its root, with forward slashes. What may hold personal data is written with `private=True`: mode 0600 in
folders of mode 0700.
"""

import errno
import hashlib
import io
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import fsspec
import pyarrow as pa
import pyarrow.ipc as ipc
from fsspec.implementations.local import LocalFileSystem

from infra.address import without_password
from infra.errors import BadInput, DamagedData, DiskFull

TEMPORARY_SUFFIX = ".tmp"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class HashingFile(io.RawIOBase):
    """A write-only file that keeps the SHA-256 and the size of what passes through it."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._sha256 = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        """Say yes: this is a file to write to."""
        return True

    def write(self, data: Any, /) -> int:
        """Pass bytes on and count them."""
        view = memoryview(data)
        self._raw.write(view)
        self._sha256.update(view)
        self.size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Bytes written so far."""
        return self.size

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of everything written so far."""
        return self._sha256.hexdigest()


class StoredFile(NamedTuple):
    """A file, as a folder lists it."""

    path: str
    """Relative to the root."""
    bytes: int
    modified: datetime
    """In UTC."""


class Store:
    """A root folder or fsspec URL; see the module docstring for what it promises."""

    def __init__(self, root: str) -> None:
        try:
            self.root = without_password(root)
        except ValueError as error:
            raise BadInput("a root with a password", str(error), "Leave it out of --root and --from") from None
        fs, base = cast("tuple[Any, str]", fsspec.core.url_to_fs(root))
        self._fs: Any = fs
        self._base = base.rstrip("/")
        self.is_local = isinstance(fs, LocalFileSystem)

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return Store, (self.root,)

    def full_path(self, path: str) -> str:
        """The path as people and other programs name it, with s3:// and the like; BadInput if it leaves the root."""
        whole = self._path(path)
        return whole if self.is_local else str(self._fs.unstrip_protocol(whole))

    def _path(self, path: str) -> str:
        """The path as its file system names it."""
        if ".." in path and ".." in path.split("/"):
            raise BadInput(
                f"path {path!r}",
                f"everything lies below the root {self.root}",
                "Correct the name or the manifest that it is from",
            )
        return f"{self._base}/{path}" if path else self._base

    def local_path(self, path: str) -> Path:
        """The path of a file on this machine; torch checkpoints and memory maps need one."""
        if not self.is_local:
            raise ValueError(f"{self.root} is not a folder of this machine, so {path} has no local path")
        return Path(self._path(path))

    def exists(self, path: str) -> bool:
        """Whether the file or folder is there."""
        return bool(self._fs.exists(self._path(path)))

    def size(self, path: str) -> int:
        """Bytes of a file; FileNotFoundError where there is none."""
        return int(self._fs.size(self._path(path)))

    def names(self, folder: str) -> list[str]:
        """Sorted names directly in a folder; empty where there is no such folder."""
        try:
            found = self._fs.ls(self._path(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(name).rstrip("/").rsplit("/", 1)[-1] for name in found)

    def files(self, folder: str) -> Iterator[StoredFile]:
        """Every file below a folder, by its path relative to the root. Links to elsewhere are not followed."""
        if self.is_local:
            root, place = self.local_path(""), self.local_path(folder)
            for parent, _, names in os.walk(place):
                for path in sorted(Path(parent) / name for name in names):
                    with suppress(FileNotFoundError):  # a temporary file that was renamed meanwhile
                        status = path.lstat()
                        modified = datetime.fromtimestamp(status.st_mtime, UTC)
                        yield StoredFile(path.relative_to(root).as_posix(), status.st_size, modified)
            return
        base = self._path("")
        for name, entry in sorted(self._fs.find(self._path(folder), detail=True).items()):
            path = "/" + str(name).lstrip("/")
            relative = path.removeprefix("/" + base.lstrip("/")).lstrip("/")
            yield StoredFile(relative, int(entry["size"]), _as_utc(self._fs.modified(name)))

    def make_folder(self, folder: str, private: bool = False) -> None:
        """Create a folder and its parents."""
        if not self.is_local:
            return
        path = self.local_path(folder)
        path.mkdir(parents=True, exist_ok=True)
        if private:
            path.chmod(0o700)

    def remove(self, path: str) -> None:
        """Remove a file or folder if it is there."""
        if self.exists(path):
            self._fs.rm(self._path(path), recursive=True)

    def remove_temporary(self, folder: str) -> None:
        """Remove what a killed writer left in a folder."""
        for name in self.names(folder):
            if name.endswith(TEMPORARY_SUFFIX):
                self.remove(f"{folder}/{name}")

    @contextmanager
    def create(self, path: str, private: bool = False) -> Iterator[HashingFile]:
        """Write one file; it appears under its name only if the block ends well. DiskFull when space runs out."""
        try:
            if self.is_local:
                with self._create_local(path, private) as out:
                    yield out
            else:
                # Closing a remote file uploads it, even half-written: so it is written here first.
                with tempfile.NamedTemporaryFile() as raw:
                    yield HashingFile(cast("BinaryIO", raw))
                    raw.flush()
                    self._fs.put_file(raw.name, self._path(path))
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise self._disk_full(path, error) from error
            raise

    @contextmanager
    def _create_local(self, path: str, private: bool) -> Iterator[HashingFile]:
        target = self.local_path(path)
        self.make_folder(os.path.dirname(path), private)
        # Containers and machines that share a folder have processes of the same number.
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
            with open(descriptor, "wb") as raw:
                yield HashingFile(raw)
                raw.flush()
                os.fsync(raw.fileno())
            temporary.replace(target)
            sync_path(target.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def _disk_full(self, path: str, error: OSError) -> DiskFull:
        free = shutil.disk_usage(_nearest_folder(self.local_path(path))).free if self.is_local else 0
        return DiskFull(
            f"{self.full_path(path)} could not be written ({error.strerror}; {free:,} bytes free)",
            "every output is written whole or not at all",
            "Free space or choose another --root and run the same command again: finished shards are kept",
        )

    def write_bytes(self, path: str, data: bytes, private: bool = False) -> None:
        """Write a small file whole."""
        with self.create(path, private) as out:
            out.write(data)

    def read_bytes(self, path: str) -> bytes:
        """Read a small file whole; FileNotFoundError where there is none."""
        return bytes(self._fs.cat_file(self._path(path)))

    def open_table(self, path: str, columns: Sequence[str] | None = None) -> ipc.RecordBatchFileReader:
        """Open an Arrow IPC file, by memory map where it is local; DamagedData if it is not one.

        Given columns, only these are read and decompressed; they come in the file's order.
        """
        try:
            source = (
                pa.memory_map(str(self.local_path(path))) if self.is_local else pa.BufferReader(self.read_bytes(path))
            )
            reader = ipc.open_file(source)
            if columns is None:
                return reader
            chosen = [index for index, name in enumerate(reader.schema.names) if name in columns]
            return ipc.open_file(source, options=ipc.IpcReadOptions(included_fields=chosen))
        except pa.ArrowInvalid as error:
            raise DamagedData(
                f"{self.full_path(path)} ({error})",
                "a shard is an Arrow IPC file",
                "Remove the stage's folder and run again to make it anew",
            ) from error

    def read_table(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read all of an Arrow IPC file, or some of its columns."""
        return self.open_table(path, columns).read_all()

    def write_table(self, path: str, table: pa.Table, private: bool = False) -> HashingFile:
        """Write a table as an Arrow IPC file and return its hash and size."""
        with self.create(path, private) as out, ipc.new_file(cast("Any", out), table.schema) as writer:
            writer.write_table(table)
        return out

    def sha256(self, path: str) -> str:
        """Digest of a whole file, read in blocks."""
        digest = hashlib.sha256()
        for block in self.blocks(path):
            digest.update(block)
        return digest.hexdigest()

    def blocks(self, path: str) -> Iterator[bytes]:
        """A file in blocks of a few megabytes; FileNotFoundError where there is none."""
        with self._fs.open(self._path(path), "rb") as source:
            while block := source.read(1 << 22):
                yield bytes(block)


def sync_path(path: Path) -> None:
    """Make a file durable, or the renames in a folder: on Linux the folder itself has to be synced."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _as_utc(moment: datetime) -> datetime:
    """A moment in UTC; one without a zone is in it already."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _nearest_folder(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
