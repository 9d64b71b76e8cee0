"""What stands in published benchmark files: JSON lines, JSON, CSV, TSV, Parquet and text, packed or in archives.

Files are untrusted: what they unpack to is bounded, names in archives are only names, and whatever does not parse is
BadInput with its place.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from infra.errors import BadInput

MAX_BYTES = 1 << 30
"""Most bytes that a file may unpack to; the largest of the known benchmarks has a tenth of it."""
MAX_MEMBERS = 100_000
"""Most files in one archive."""
MAX_DEPTH = 3
"""Packings within each other."""
NOT_DATA = re.compile(r"(?i)(readme|licen[cs]e|notice|copying|citation)\b|\.|__macosx")
"""Names of files that hold no items."""

OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    "gz": lambda file: gzip.GzipFile(fileobj=file),
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}
_BROKEN = (ValueError, OSError, EOFError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, NotImplementedError)
_BROKEN_RECORDS = (ValueError, RecursionError, csv.Error, pa.ArrowException, OSError)


def unpacked(name: str, data: bytes, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """The files in a file, by name without the ending of their packing; archives give their members in order of names.

    BadInput for what is damaged, too large, or leads out of the archive.
    """
    stem, _, ending = name.rpartition(".")
    if NOT_DATA.match(PurePosixPath(name).name):
        return
    try:
        if ending in OPENERS and depth < MAX_DEPTH:
            with OPENERS[ending](io.BytesIO(data)) as file:
                content = _bounded(file, name, MAX_BYTES)
            yield from unpacked(stem, content, depth + 1)
        elif ending == "zip" and depth < MAX_DEPTH:
            yield from _members(name, data, depth)
        else:
            yield name, data
    except _BROKEN as error:
        raise BadInput(f"{name} ({error})", "a packed file must be whole", "Restore it") from error


def _members(name: str, data: bytes, depth: int) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = sorted((each for each in archive.infolist() if not each.is_dir()), key=lambda each: each.filename)
        if len(members) > MAX_MEMBERS:
            raise BadInput(f"{name} has {len(members)} files", f"{MAX_MEMBERS} are allowed", "Unpack what is needed")
        left = MAX_BYTES
        for member in members:
            path = PurePosixPath(member.filename)
            if path.is_absolute() or ".." in path.parts or "\\" in member.filename:
                raise BadInput(f"{name} has {member.filename}", "its files must lie in the archive", "Do not trust it")
            if any(NOT_DATA.match(part) for part in path.parts):
                continue
            with archive.open(member) as file:
                content = _bounded(file, f"{name}/{member.filename}", left)
            left -= len(content)
            yield from unpacked(f"{name}/{member.filename}", content, depth + 1)


def _bounded(file: IO[bytes], name: str, most: int) -> bytes:
    content = file.read(most + 1)
    if len(content) > most:
        raise BadInput(
            f"{name} unpacks to more than {MAX_BYTES} bytes", "no benchmark is that large", "Do not trust it"
        )
    return content


def json_lines(data: bytes) -> list[Any]:
    """Values of JSON lines; ValueError names the line."""
    found: list[Any] = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    return found


def json_items(data: bytes) -> list[Any]:
    """Items of one JSON value: of the only list in it, however deep, or the value itself."""
    found = json.loads(data)
    while isinstance(found, dict) and len(lists := [each for each in found.values() if isinstance(each, list)]) == 1:
        found = lists[0]
    return found if isinstance(found, list) else [found]


def _quoting(*, quoted: bool) -> Literal[0, 3]:
    return csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE


def table(data: bytes, delimiter: str = ",", *, quoted: bool = True) -> list[list[str]]:
    """Rows of cells, the first one too."""
    return list(
        csv.reader(
            io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=delimiter, quoting=_quoting(quoted=quoted)
        )
    )


def table_items(data: bytes, delimiter: str = ",", *, quoted: bool = True) -> list[Any]:
    """Rows by the names in the first one."""
    text = io.StringIO(data.decode("utf-8-sig"), newline="")
    return list(csv.DictReader(text, delimiter=delimiter, quoting=_quoting(quoted=quoted)))


READERS: dict[str, Callable[[bytes], list[Any]]] = {
    "jsonl": json_lines,
    "ndjson": json_lines,
    "json": json_items,
    "csv": table_items,
    "tsv": lambda data: table_items(data, "\t"),
    "parquet": lambda data: pq.read_table(io.BytesIO(data)).to_pylist(),
}
"""How the items of a file are read, by its ending."""


def read(name: str, data: bytes, reader: Callable[[bytes], list[Any]]) -> list[Any]:
    """What a reader makes of a file; BadInput where it does not parse."""
    try:
        return reader(data)
    except _BROKEN_RECORDS as error:
        raise BadInput(
            f"{name} ({error})", f"it must be readable as {name.rpartition('.')[2]}", "Restore it"
        ) from error
