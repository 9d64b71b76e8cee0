"""Collections read: the files of a shard become batches of responses, each document with where it stands."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc

from infra.store import Store
from tasks.sources.archive import read_archive
from tasks.sources.code_files import FolderLicenses, file_license, is_license_file, refusal_by_content, refusal_by_name
from tasks.sources.collections import CollectionSettings
from tasks.sources.corpus_files import Item, read_file, read_jsonl, read_parquet
from tasks.sources.responses import ResponseBatch, document_id
from tasks.sources.transport import SourceMissingError, SourceSettings, SourceUnavailableError, open_source, reading
from tasks.sources.warc import Broken, sha1_digest
from tasks.stage import Split


def read_collection(
    store: Store, listing: str, shard: str, collection: CollectionSettings, source: SourceSettings
) -> Iterator[Split]:
    """Read the files of one shard into batches of responses."""
    table = store.read_table(listing)
    ours = table.filter(pc.field("collection") == collection.name)
    files = cast("list[dict[str, Any]]", ours.filter(pc.field("shard") == shard).to_pylist())
    batch = ResponseBatch(source, collection.name, files[0]["file"])
    licenses, counts = _folder_licenses(ours, source) if collection.format == "code" else None, Counter[str]()
    for file in files:
        if file["digest"] is None:
            detail = "it is a link out of its folder, or no plain file that may be read"
            batch.quarantine(Broken(0, "file_refused", detail), file["file"])
            continue
        try:
            yield from _read_file(batch, collection, file, source, licenses, counts)
        except (SourceMissingError, SourceUnavailableError, OSError) as error:
            passing = isinstance(error, SourceUnavailableError)
            batch.lose("file_unavailable" if passing else "file_missing", str(error), passing, file["file"])
    yield replace(batch.take(), telemetry=counts)


def _read_file(
    batch: ResponseBatch,
    collection: CollectionSettings,
    file: dict[str, Any],
    source: SourceSettings,
    licenses: FolderLicenses | None,
    counts: Counter[str],
) -> Iterator[Split]:
    name = file["file"]
    if licenses is not None and (refusal := refusal_by_name(name, file["bytes"], collection.code)) is not None:
        return batch.skip(_row(collection, name, Item(0, b"")), *refusal)
    with reading(os.fsdecode(file["path"]), source.transport, counts) as stream:
        if collection.format in ("warc", "wet"):
            place = f"{collection.name}:{name}"
            return (yield from read_archive(stream, batch, source, collection.format, place))
        for count, item in enumerate(_items(stream, name, collection, source)):
            if count == source.max_records:
                return None
            if isinstance(item, Broken):
                batch.quarantine(item, name)
            else:
                _add(batch, collection, name, item, licenses)
            if batch.full:
                yield batch.take()
    return None


def _items(
    stream: BinaryIO, name: str, collection: CollectionSettings, source: SourceSettings
) -> Iterator[Item | Broken]:
    if collection.format == "parquet":
        return read_parquet(stream, name, collection.columns, source.max_record_bytes)
    if collection.format == "jsonl":
        return read_jsonl(stream, name, collection.columns, source.max_record_bytes)
    return read_file(stream, name, source.max_record_bytes)


def _add(
    batch: ResponseBatch, collection: CollectionSettings, file: str, item: Item, licenses: FolderLicenses | None
) -> None:
    row = _row(collection, file, item)
    if licenses is not None:
        if (refusal := refusal_by_content(item.payload, collection.code)) is not None:
            return batch.skip(row, *refusal)
        row["license"] = file_license(item.payload) or licenses.of(file.rpartition("/")[0]) or collection.license
    table = collection.format in ("parquet", "jsonl")
    content = collection.content if table else "text/html" if collection.format == "html" else "text/plain"
    charset = "utf-8" if table or licenses is not None else collection.charset
    return batch.keep(row, item.payload, content, charset)


def _row(collection: CollectionSettings, file: str, item: Item) -> dict[str, Any]:
    place = f"{file}:{item.offset}" if item.key is None else item.key
    return {
        "id": document_id(f"{collection.name}:{place}"),
        "url": item.url,
        "file": file,
        "offset": item.offset,
        "record_digest": sha1_digest(item.payload),
        "fetched_at": item.fetched_at,
        "license": item.license or collection.license,
    }


def _folder_licenses(files: pa.Table, source: SourceSettings) -> FolderLicenses:
    """Licence files of a code collection by folder; of several in one folder the first by name."""
    paths: dict[str, str] = {}
    rows = files.select(["file", "path", "digest"]).to_pylist()
    for row in rows:
        folder, _, name = row["file"].rpartition("/")
        if row["digest"] is not None and is_license_file(name):
            paths.setdefault(folder, os.fsdecode(row["path"]))

    def read(path: str) -> bytes:
        with open_source(path, source.transport) as stream:
            return stream.read(1 << 16)

    return FolderLicenses(paths, read)
