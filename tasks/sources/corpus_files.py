"""Documents out of the files that users have: Parquet, JSONL, plain text, HTML; damaged ones as far as they go.

A reader yields for each document an `Item`, or a `Broken` place. Offsets are bytes of the uncompressed text for lines
of JSONL, numbers of rows for Parquet, and 0 for files that are one document.
"""

import bz2
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fastwarc.stream_io import ZstdReader
from pydantic import Field

from infra.errors import BadInput
from infra.settings import Settings
from tasks.sources.opt_out import read_date
from tasks.sources.warc import Broken

BLOCK_BYTES = 1 << 18
COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
_XZ_MEMORY_BYTES = 256 << 20
_ROWS = 256


class ColumnSettings(Settings):
    """Which columns of a table mean what. A point in a name leads into a nested object: metadata.url."""

    text: str = Field(default="text", min_length=1)
    """Column of the text, or of the page for content_type text/html."""
    url: str | None = None
    """Column of the document's address."""
    id: str | None = None
    """Column whose value, unique in the collection, decides the document's id; otherwise its place does."""
    date: str | None = None
    """Column of the moment at which the document was fetched: a timestamp, a date in words, or seconds since 1970."""
    license: str | None = None
    """Column of the licence."""

    @property
    def names(self) -> list[str]:
        """The columns that are set."""
        return [name for name in (self.text, self.url, self.id, self.date, self.license) if name is not None]


@dataclass(frozen=True)
class Item:
    """One document: bytes of its text or page, and what its table says on it."""

    offset: int
    payload: bytes
    url: str | None = None
    key: str | None = None
    fetched_at: datetime | None = None
    license: str | None = None
    reason: str | None = None
    """Reason code if the document is to be dropped, with the value that decided."""
    value: float | None = None


class DamagedStreamError(Exception):
    """A compressed file that breaks off or is corrupt."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail
        self.offset = 0


def decompressed(stream: BinaryIO, name: str) -> "Decompressed":
    """A file without the compression that its ending names."""
    ending = next((each for each in COMPRESSIONS if name.lower().endswith(each)), "")
    return Decompressed(stream, ending)


class Decompressed:
    """Blocks of a file, members of a compressed one joined; DamagedStreamError where it is damaged."""

    def __init__(self, stream: BinaryIO, ending: str) -> None:
        self._stream, self._name = stream, ending.removeprefix(".")
        self._new: Callable[[], Any] | None = {
            ".gz": lambda: zlib.decompressobj(wbits=31),
            ".bz2": bz2.BZ2Decompressor,
            ".xz": lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES),
        }.get(ending)
        self._zstd: Any = ZstdReader(stream) if ending == ".zst" else None
        self._inflater: Any = self._new() if self._new else None
        self._pending, self._fresh = b"", True

    def read(self) -> bytes:
        """The next block; none at the end only."""
        try:
            if self._zstd is not None:
                return self._zstd.read(BLOCK_BYTES)
            return self._inflate() if self._new is not None else self._stream.read(BLOCK_BYTES)
        except EOFError as error:
            raise DamagedStreamError(f"{self._name}_truncated", str(error)) from error
        except (OSError, zlib.error, lzma.LZMAError) as error:
            if not self._name:
                raise
            raise DamagedStreamError(f"{self._name}_corrupt", str(error)) from error

    def _inflate(self) -> bytes:
        while True:
            if self._inflater.eof:
                self._pending, self._fresh = self._inflater.unused_data.lstrip(b"\0"), True
                self._inflater = cast("Any", self._new)()
            if not self._pending and getattr(self._inflater, "needs_input", True):
                self._pending = self._stream.read(1 << 16)
                if not self._pending:
                    if self._fresh:
                        return b""
                    raise EOFError("the file ends inside a compressed stream")
            data = self._inflater.decompress(self._pending, BLOCK_BYTES)
            self._pending = getattr(self._inflater, "unconsumed_tail", b"")
            self._fresh = False
            if data:
                return data


def read_file(stream: BinaryIO, name: str, max_bytes: int) -> Iterator[Item | Broken]:
    """A file that is one document. What a damaged one holds up to the damage is kept, and the damage reported."""
    source, parts, size = decompressed(stream, name), [], 0
    damage = None
    try:
        while part := source.read():
            parts.append(part)
            size += len(part)
            if size > max_bytes:
                yield Broken(0, "record_too_large", f"more than {max_bytes:,} bytes")
                return
    except DamagedStreamError as error:
        damage = Broken(size, error.reason, error.detail)
    if parts or damage is None:
        yield Item(0, b"".join(parts))
    if damage is not None:
        yield damage


def read_lines(source: Decompressed, max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Byte offset and bytes of each line, without its end; None for one that is longer than allowed."""
    offset, held, size = 0, [b""], 0
    while block := _next_block(source, offset):
        head, *rest = block.split(b"\n")
        held.append(head)
        size += len(head)
        if size > max_bytes:
            held = []
        for line in rest:
            yield offset, b"".join(held) if size <= max_bytes else None
            offset += size + 1
            held, size = [line], len(line)
    if size:
        yield offset, b"".join(held) if size <= max_bytes else None


def _next_block(source: Decompressed, line: int) -> bytes:
    try:
        return source.read()
    except DamagedStreamError as error:
        error.offset = line
        raise


def read_jsonl(stream: BinaryIO, name: str, columns: ColumnSettings, max_bytes: int) -> Iterator[Item | Broken]:
    """Documents of a file with a JSON object on each line."""
    try:
        for offset, line in read_lines(decompressed(stream, name), max_bytes):
            if line is None:
                yield Broken(offset, "record_too_large", f"a line of more than {max_bytes:,} bytes")
            elif line.strip(b" \t\r\xef\xbb\xbf"):
                yield _json_item(offset, line, columns)
    except DamagedStreamError as error:
        yield Broken(error.offset, error.reason, error.detail)


def _json_item(offset: int, line: bytes, columns: ColumnSettings) -> Item | Broken:
    try:
        row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        return Broken(offset, "invalid_json", str(error)[:200])
    if not isinstance(row, dict):
        return Broken(offset, "invalid_json", f"{type(row).__name__}, not an object")
    return table_item(offset, {name: value_at(row, name) for name in columns.names}, columns)


def value_at(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column, None where there is none; a name with points leads into nested objects."""
    if name in row or "." not in name:
        return row.get(name)
    first, _, rest = name.partition(".")
    inner = row.get(first)
    return value_at(inner, rest) if isinstance(inner, dict) else None


def table_item(offset: int, row: Mapping[str, Any], columns: ColumnSettings) -> Item | Broken:
    """A document from the values of its columns; `Broken` if one has a wrong type."""
    text, url = row[columns.text], row[columns.url] if columns.url else None
    if text is None:
        return Broken(offset, "no_text", f"{columns.text} is null or absent")
    wrong = next((name for name in columns.names[:1] if not isinstance(row[name], (str, bytes))), None)
    if wrong is None and url is not None and not isinstance(url, (str, bytes)):
        wrong = columns.url
    if wrong is not None:
        return Broken(offset, "wrong_type", f"{wrong} is {type(row[wrong]).__name__}, not text")
    key = row[columns.id] if columns.id else None
    stated = row[columns.license] if columns.license else None
    return Item(
        offset,
        text if isinstance(text, bytes) else text.encode("utf-8", "replace"),
        _text(url),
        None if key is None else _text(key),
        read_moment(row[columns.date]) if columns.date else None,
        _text(stated) if isinstance(stated, (str, bytes)) else None,
    )


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "replace").decode()  # lone surrogates cannot be stored


def read_moment(value: Any) -> datetime | None:
    """A moment in UTC from what tables hold; None if it says none."""
    try:
        if isinstance(value, datetime):
            return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, date):
            return datetime.combine(value, time(), UTC)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if abs(value) > 1e11 else value, UTC)  # milliseconds since 1973
        return read_date(_text(value) or "") if isinstance(value, (str, bytes)) else None
    except (ValueError, OverflowError, OSError):
        return None


def read_parquet(stream: BinaryIO, name: str, columns: ColumnSettings, max_bytes: int) -> Iterator[Item | Broken]:
    """Documents of a Parquet file, row group by row group; a damaged one costs its rows alone.

    BadInput if the file lacks a column.
    """
    try:
        file = pq.ParquetFile(cast("Any", stream))
        check_columns(name, file.schema_arrow, columns)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        yield Broken(0, "parquet_corrupt", str(error)[:200])
        return
    start = 0
    for group, rows in enumerate(sizes):
        offset = start
        try:
            for batch in file.iter_batches(_ROWS, row_groups=[group], columns=_top_columns(file, columns)):
                for row in _plain_rows(batch, columns):
                    item = table_item(offset, row, columns)
                    if isinstance(item, Item) and len(item.payload) > max_bytes:
                        item = Broken(offset, "record_too_large", f"{len(item.payload):,} bytes", item.url)
                    yield item
                    offset += 1
        except (pa.ArrowException, OSError) as error:
            yield Broken(offset, "parquet_corrupt", f"row group {group}: {str(error)[:200]}")
        start += rows


def check_columns(file: str, schema: pa.Schema, columns: ColumnSettings) -> None:
    """BadInput if a table lacks a column or holds no text in the one that should."""
    for name in columns.names:
        found = _field(schema, name)
        if found is None:
            known = ", ".join(schema.names)
            raise BadInput(f"{file} has no column {name}", "a collection's columns must exist", f"There are: {known}")
        if name == columns.text and not _is_text(found):
            raise BadInput(f"{file}: {name} is {found}", "the text column must hold text", "Name another column")


def _field(schema: Any, name: str) -> pa.DataType | None:
    """Type of a column, nested ones by a name with points."""
    names = [schema.field(index).name for index in range(schema.num_fields if hasattr(schema, "num_fields") else
                                                         len(schema.names))]  # fmt: skip
    if name in names:
        return schema.field(name).type
    first, _, rest = name.partition(".")
    inner = schema.field(first).type if rest and first in names else None
    return _field(inner, rest) if inner is not None and pa.types.is_struct(inner) else None


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
                                       pa.types.is_binary, pa.types.is_large_binary))  # fmt: skip


def _top_columns(file: pq.ParquetFile, columns: ColumnSettings) -> list[str]:
    names = set(file.schema_arrow.names)
    return sorted({name if name in names else name.partition(".")[0] for name in columns.names})


def _plain_rows(batch: pa.RecordBatch, columns: ColumnSettings) -> Iterator[dict[str, Any]]:
    """Rows of the wanted columns. Text comes as bytes, so that bytes that are no UTF-8 cost nothing."""
    found: dict[str, list[Any]] = {}
    for name in columns.names:
        column: Any = _column(batch, name)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if _is_text(column.type):
            column = column.cast(pa.large_binary())
        elif pa.types.is_timestamp(column.type):
            zone = column.type.tz
            column = column.cast(pa.timestamp("us", tz=zone), safe=False)
        found[name] = column.to_pylist()
    yield from (dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True))


def _column(batch: pa.RecordBatch, name: str) -> Any:
    if name in batch.schema.names:
        return batch.column(name)
    first, *rest = name.split(".")
    return pc.call_function("struct_field", [batch.column(first)], pc.StructFieldOptions(rest))


def first_columns(stream: BinaryIO, name: str, max_bytes: int) -> list[str] | None:
    """Names in the first object of a JSONL file; None if its first line is no object."""
    try:
        for _, line in read_lines(decompressed(stream, name), max_bytes):
            row = json.loads(line) if line else None
            return [str(key) for key in row] if isinstance(row, dict) else None
    except (DamagedStreamError, ValueError, RecursionError):
        pass
    return None
