"""Files that users name: models and reference texts, here or at any fsspec URL. Contents count, not places.

A flow resolves each file once, where it starts: the path becomes absolute and the SHA-256 of the contents is filled in
and enters the identity. Workers open the file by both.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, cast

import fsspec

from infra.errors import BadInput, DamagedData
from infra.store import Store
from tasks.inputs import UserFile

BLOCK = 1 << 22


class ModelFile(UserFile):
    """A file by path and contents. The path may lie on this machine, under the root, or be any fsspec URL."""

    def resolved(self, store: Store) -> Self:
        """The same file with an absolute path and its digest. BadInput if it is missing or differs from the digest."""
        path = find(self.path, store)
        found = file_digest(path)
        if self.sha256 not in (None, found):
            raise BadInput(
                f"{self.path} (sha256 {found})",
                f"the file's sha256 must be {self.sha256}, as the settings say",
                "Give the file that was meant, or remove sha256 from the settings",
            )
        return self.model_copy(update={"path": path, "sha256": found})

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


def find(path: str, store: Store) -> str:
    """Absolute path or URL of a file that is named absolutely, under the store's root or under the working folder."""
    if "://" in path or Path(path).is_absolute():
        where = path
    elif store.exists(path):
        where = str(store.local_path(path)) if store.is_local else f"{store.root.rstrip('/')}/{path}"
    else:
        where = str(Path(path).resolve())
    fs, inner = cast("tuple[Any, str]", fsspec.core.url_to_fs(where))
    if not fs.isfile(inner):
        raise BadInput(path, "the file must exist, here, under the root or at its URL", "Correct the path")
    return where


def file_digest(path: str) -> str:
    """SHA-256 of a file at a path or URL, read in blocks."""
    digest = hashlib.sha256()
    with fsspec.open(path, "rb") as source:
        while block := cast("Any", source).read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def local_copy(path: str) -> Iterator[Path]:
    """A file as a path on this machine; what is elsewhere is copied for as long as the block runs."""
    if "://" not in path:
        yield Path(path)
        return
    with tempfile.NamedTemporaryFile(suffix=f".{path.rsplit('.', 1)[-1]}") as copy:
        with fsspec.open(path, "rb") as source:
            while block := cast("Any", source).read(BLOCK):
                copy.write(block)
        copy.flush()
        yield Path(copy.name)


@lru_cache(maxsize=64)
def _digest_of(path: str, _modified: int) -> str:
    """Digest of a local file, taken once in a process for as long as the file is not written to."""
    return file_digest(path)
