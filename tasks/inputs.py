"""Files that users bring (models, word lists, benchmarks): named by path, known by content.

The path says where a file lies and never enters a fingerprint; the digest of its bytes does. `pinned` fills the digest
in when a run starts, so that a file that was changed makes a stage anew and a file that was moved does not.
"""

import hashlib
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from infra.errors import BadInput
from infra.settings import Settings, operational


class UserFile(Settings):
    """A file or folder on the machines that do the work."""

    path: str = operational(..., min_length=1)
    """Where it lies; the same path must lead to it on every worker."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Digest of its content; filled in when the run starts, checked where it is given."""


File = TypeVar("File", bound=UserFile)


def pinned(file: File) -> File:
    """The same file with the digest of its content; BadInput if it is absent or is not what the digest says."""
    found = content_digest(Path(file.path))
    if file.sha256 not in (None, found):
        raise BadInput(
            f"{file.path} has the sha256 {found}",
            f"it is to be {file.sha256}",
            "Restore the file, or correct or leave out its sha256",
        )
    return file.model_copy(update={"sha256": found})


def content_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and digests of all files below a folder; BadInput where unreadable."""
    try:
        if not path.is_dir():
            return _file_digest(path)
        names = sorted(found.relative_to(path).as_posix() for found in path.rglob("*") if found.is_file())
        lines = "".join(f"{_file_digest(path / name)}  {name}\n" for name in names)
        return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read ({error.strerror})",
            "a file or folder given in the settings must be there",
            "Correct its path",
        ) from error


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
