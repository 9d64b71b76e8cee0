"""Files that users bring (models, word lists, benchmarks, texts): named by path, known by content.

The path says where a file lies, here or at any fsspec URL, and never enters a fingerprint; the digest of its bytes
does. It is filled in when a run starts, so that a file that was changed makes a stage anew and a file that was moved
does not. Workers open the file by both.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import fsspec
from pydantic import Field

from infra.address import Address
from infra.errors import BadInput, DamagedData
from infra.settings import Settings, operational
from infra.store import Store

BLOCK = 1 << 22


class UserFile(Settings):
    """A file or folder on the machines that do the work, or a file at an fsspec URL."""

    path: Address = operational(..., min_length=1)
    """Where it lies; the same path must lead to it on every worker."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Digest of its content; filled in when the run starts, checked where it is given."""

    def resolved(self, store: Store) -> Self:
        """The same file with its digest and an absolute path, which may be given relative to the root too.

        BadInput if it is absent, a folder, or not what the digest says.
        """
        path = find(self.path, store)
        if "://" not in path and Path(path).is_dir():
            raise BadInput(f"{path} is a folder", "it must be a file", "Name a file in it")
        return pinned(self.model_copy(update={"path": path}))

    @contextmanager
    def local(self) -> Iterator[Path]:
        """The file on this machine while the block runs: itself, or a copy. DamagedData if it changed meanwhile."""
        with local_copy(self.path) as path:
            if self.sha256 is not None and _digest_of(str(path), path.stat().st_mtime_ns) != self.sha256:
                raise DamagedData(
                    self.path,
                    f"its sha256 was {self.sha256} when the run started",
                    "Put the file back, or start the run again with the new one",
                )
            yield path


File = TypeVar("File", bound=UserFile)


def pinned(file: File) -> File:
    """The same file with the digest of its content; BadInput if it is absent or is not what the digest says."""
    found = content_digest(file.path)
    if file.sha256 not in (None, found):
        raise BadInput(
            f"{file.path} has the sha256 {found}",
            f"it is to be {file.sha256}",
            "Restore the file, or correct or leave out its sha256",
        )
    return file.model_copy(update={"sha256": found})


def find(path: str, store: Store) -> str:
    """Absolute path or URL of what is named absolutely, under the store's root or under the working folder."""
    if "://" in path or Path(path).is_absolute():
        return path
    if ".." in Path(path).parts or not store.exists(path):
        return str(Path(path).resolve())
    return str(store.local_path(path)) if store.is_local else f"{store.root.rstrip('/')}/{path}"


def content_digest(path: str) -> str:
    """SHA-256 of a file's bytes, or of the names and digests of all files below a folder; BadInput where unreadable."""
    folder = Path(path)
    try:
        if "://" in path or not folder.is_dir():
            return _file_digest(path)
        names = sorted(found.relative_to(folder).as_posix() for found in folder.rglob("*") if found.is_file())
        lines = "".join(f"{_file_digest(str(folder / name))}  {name}\n" for name in names)
        return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read ({error.strerror or error})",
            "a file or folder given in the settings must be there",
            "Correct its path",
        ) from error


@contextmanager
def local_copy(path: str) -> Iterator[Path]:
    """A file as a path on this machine; what is elsewhere is copied for as long as the block runs."""
    if "://" not in path:
        yield Path(path)
        return
    with tempfile.NamedTemporaryFile(suffix=f".{path.rsplit('.', 1)[-1]}") as copy:
        for block in _blocks(path):
            copy.write(block)
        copy.flush()
        yield Path(copy.name)


def _file_digest(path: str) -> str:
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: str) -> Iterator[bytes]:
    with fsspec.open(path, "rb") if "://" in path else Path(path).open("rb") as source:
        while block := cast("Any", source).read(BLOCK):
            yield block


@lru_cache(maxsize=64)
def _digest_of(path: str, _modified: int) -> str:
    """Digest of a local file, taken once in a process for as long as the file is not written to."""
    return _file_digest(path)
