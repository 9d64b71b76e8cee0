"""Reference text: what a quality model takes for good, and what an n-gram model learns a language from.

Files are JSON lines or Parquet with a text column, or plain text, compressed or not. Long texts such as books are cut
into passages, so that a model sees pieces of a page's length.
"""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, NamedTuple, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from infra.errors import BadInput
from infra.settings import Settings
from infra.store import Store
from tasks.inputs import UserFile

COMPRESSED = {".gz", ".zst", ".bz2", ".xz"}
PARQUET_ROWS = 1024


class ReferenceFile(UserFile):
    """One file of reference text."""

    text_column: str = "text"
    """Name of the text in JSON lines and Parquet."""


class Passage(NamedTuple):
    """A piece of reference text."""

    record: str
    """Names the file's content and the record in it: pieces of one book share it."""
    text: str


class PassageSettings(Settings):
    """How long texts are cut."""

    characters: int = Field(default=5000, ge=100)
    """Length of a passage at most; it ends at white space."""
    min_characters: int = Field(default=200, ge=1)
    """Shorter passages and documents are left out: they say too little to learn from."""


def resolve_references(files: tuple[ReferenceFile, ...], store: Store) -> tuple[ReferenceFile, ...]:
    """The files with absolute paths and digests, in the order of their digests; the same contents count once."""
    resolved = {str(each.sha256): each for each in (file.resolved(store) for file in files)}
    return tuple(resolved[digest] for digest in sorted(resolved))


def read_passages(files: tuple[ReferenceFile, ...], settings: PassageSettings) -> Iterator[Passage]:
    """All passages of all files, in order. BadInput for a file that is not what its name says."""
    for file in files:
        for number, text in enumerate(read_texts(file)):
            for part in cut(text, settings.characters):
                if len(part) >= settings.min_characters:
                    yield Passage(f"{file.sha256}:{number}", part)


def read_texts(file: ReferenceFile) -> Iterator[str]:
    """The texts of a file, records without text left out."""
    suffixes = PurePosixPath(file.path).suffixes
    kind = next((suffix for suffix in reversed(suffixes) if suffix not in COMPRESSED), "")
    try:
        if kind == ".parquet":
            yield from _parquet_texts(file)
        elif kind in (".jsonl", ".ndjson", ".json"):
            yield from _json_texts(file)
        else:
            with _lines(file.path) as source:
                yield source.read()
    except (OSError, EOFError, ValueError, pa.ArrowException) as error:
        raise BadInput(
            f"{file.path} ({error})",
            f"reference text is JSON lines or Parquet with a column {file.text_column!r}, or plain text",
            "Correct the file, its ending or text_column",
        ) from error


def cut(text: str, characters: int) -> Iterator[str]:
    """Pieces of a text of at most so many characters, each ending at white space where there is any."""
    start = 0
    while start < len(text):
        end = start + characters
        if end < len(text):
            space = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
            end = space + 1 if space > start else end
        if part := text[start:end].strip():
            yield part
        start = end


def _parquet_texts(file: ReferenceFile) -> Iterator[str]:
    with fsspec.open(file.path, "rb") as source:
        for batch in pq.ParquetFile(cast("Any", source)).iter_batches(PARQUET_ROWS, columns=[file.text_column]):
            if file.text_column not in batch.schema.names:
                raise ValueError(f"there is no column {file.text_column!r}")
            yield from (text for text in batch.column(0).to_pylist() if text)


def _json_texts(file: ReferenceFile) -> Iterator[str]:
    with _lines(file.path) as source:
        for number, line in enumerate(source, 1):
            if not line.strip():
                continue
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(text := row.get(file.text_column, 0), str | None):
                raise ValueError(f"line {number} is not an object with a string {file.text_column!r}")
            if text:
                yield text


@contextmanager
def _lines(path: str) -> Iterator[io.TextIOBase]:
    """A text file of UTF-8, decompressed by its ending; fsspec alone has no Zstandard."""
    zstandard = path.endswith(".zst")
    with fsspec.open(path, "rb", compression=None if zstandard else "infer") as raw:
        plain = pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd") if zstandard else raw
        with io.TextIOWrapper(cast("Any", plain), encoding="utf-8", errors="replace", newline="\n") as text:
            yield text
