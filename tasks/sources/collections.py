"""Collections: corpora that a user has already, as files of a folder or of any store that fsspec reads.

All their files are listed first, in one order on every machine, each with a digest of its content; the list is a table
in the store, from which workers learn what their shard holds. Large files are shards of their own, small ones (text,
HTML, code) share one. What a folder holds is not trusted: links that lead out of it and files that are no plain files
are quarantined unread.
"""

import glob
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pydantic import Field

from infra.address import Address
from infra.errors import BadInput
from infra.manifest import fingerprint
from infra.settings import Settings, operational
from infra.store import Store
from tasks.sources.code_files import CodeSettings
from tasks.sources.corpus_files import COMPRESSIONS, ColumnSettings, check_columns, first_columns
from tasks.sources.transport import SourceSettings, is_http, open_source

Format = Literal["parquet", "jsonl", "text", "html", "code", "warc", "wet"]
_ENDINGS: dict[str, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq"),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "text": (".txt", ".text", ".md", ".rst"),
    "html": (".html", ".htm", ".xhtml"),
    "warc": (".warc",),
    "wet": (".wet",),
}
_SHARED = ("text", "html", "code")
"""Formats whose files share shards."""
_HASHERS = 4
_FILES = pa.schema(
    [
        pa.field("shard", pa.large_string(), nullable=False),
        pa.field("collection", pa.string(), nullable=False),
        pa.field("file", pa.large_string(), nullable=False),
        pa.field("path", pa.large_binary(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("digest", pa.string()),
    ]
)
"""`path` is where the file is now, in the file system's own bytes; `digest` is null for one that is not to be read."""


class CollectionSettings(Settings):
    """A corpus of the user's own."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the collection: the column `source` of its documents."""
    paths: tuple[Address, ...] = operational((), min_length=1)
    """Files, folders or patterns such as /data/*.jsonl.zst, on this machine or as fsspec URLs. Where they lie does not
    enter the fingerprint, what they hold does."""
    format: Format = "jsonl"
    """parquet and jsonl: a document in each row or line; text and html: one in each file; code: one in each source
    file of a folder of repositories; warc and wet: archives."""
    content: Literal["text/plain", "text/html"] = "text/plain"
    """What the text column of Parquet and JSONL holds: text, or pages whose text is to be extracted."""
    columns: ColumnSettings = ColumnSettings()
    """Which columns mean what (Parquet and JSONL)."""
    charset: str | None = None
    """Encoding of text and HTML files; unset detects it for each."""
    license: str | None = None
    """Address of the licence of all documents that name none themselves."""
    code: CodeSettings = CodeSettings()
    """Which files of repositories are documents."""
    identify_by: Literal["content", "stat"] = "content"
    """How a changed file is noticed: by the SHA-256 of what it holds, or by its size and time of change alone, which
    spares reading large corpora twice. Files of remote stores always go by size and entity tag."""
    follow_links: bool = False
    """Read files through symbolic links that lead out of their folder."""
    files_per_shard: int = Field(default=1000, ge=1)
    """Files of text, HTML or code in a shard at most."""
    bytes_per_shard: int = Field(default=256 << 20, ge=1 << 16)
    """Bytes of text, HTML or code in a shard, as stored; a shard ends with the file that reaches them."""


class Listing(NamedTuple):
    """The shards of all collections, in order, and the table of their files in the store."""

    shards: list[str]
    path: str
    digest: str


@dataclass(frozen=True)
class FoundFile:
    """A file of a collection: its name there, its path, and what tells its content; null if it is not to be read."""

    name: str
    path: str
    bytes: int
    digest: str | None


def list_collections(store: Store, collections: Sequence[CollectionSettings], source: SourceSettings) -> Listing:
    """List the files of collections. BadInput if a path holds none, or if the first file lacks a column."""
    names = [each.name for each in collections]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(f"two collections are named {twice}", "names must differ", "Rename one")
    rows: list[dict[str, Any]] = []
    for collection in collections:
        files = find_files(collection)
        _check_first_file(collection, files, source)
        for shard, members in _shards(collection, files):
            rows += [
                {"shard": shard, "collection": collection.name, "file": each.name} | _described(each)
                for each in members
            ]
    digest = fingerprint(files=[[row[name] for name in _FILES.names if name != "path"] for row in rows])
    path = f"listings/collections-{digest}.arrow"
    store.make_folder("listings")
    store.write_table(path, pa.Table.from_pylist(rows, schema=_FILES))
    return Listing(list(dict.fromkeys(row["shard"] for row in rows)), path, digest)


def _described(file: FoundFile) -> dict[str, Any]:
    return {"path": os.fsencode(file.path), "bytes": file.bytes, "digest": file.digest}


def _shards(collection: CollectionSettings, files: list[FoundFile]) -> Iterator[tuple[str, list[FoundFile]]]:
    """Files of each shard. A shard is named for its collection and its first file."""
    group: list[FoundFile] = []
    for file in files:
        group.append(file)
        full = (
            len(group) >= collection.files_per_shard or sum(each.bytes for each in group) >= collection.bytes_per_shard
        )
        if collection.format not in _SHARED or full:
            yield f"{collection.name}:{group[0].name}", group
            group = []
    if group:
        yield f"{collection.name}:{group[0].name}", group


def collection_of(shard: str, collections: Sequence[CollectionSettings]) -> CollectionSettings | None:
    """The collection of a shard; None for an archive of a crawl."""
    name = shard.partition(":")[0]
    return next((each for each in collections if each.name == name and shard != name), None)


def find_files(collection: CollectionSettings) -> list[FoundFile]:
    """The files of a collection by their names in it. With several paths, the path's number stands before the name."""
    found: list[FoundFile] = []
    for number, path in enumerate(collection.paths):
        if is_http(path):
            raise BadInput(path, "a collection is read through fsspec", "Download it, or name an s3:// or local copy")
        files = _files_at(path, collection)
        if not files:
            endings = ", ".join(_ENDINGS.get(collection.format, ("any",)))
            raise BadInput(
                f"collection {collection.name}: {path}",
                f"a path must hold files of format {collection.format} ({endings}, compressed or not)",
                "Correct the path, or name the files by a pattern",
            )
        prefix = f"{number}/" if len(collection.paths) > 1 else ""
        found += [FoundFile(f"{prefix}{each.name}", each.path, each.bytes, each.digest) for each in files]
    return found


def _files_at(path: str, collection: CollectionSettings) -> list[FoundFile]:
    fs, place = cast("tuple[Any, str]", fsspec.core.url_to_fs(path))
    if not isinstance(fs, LocalFileSystem):
        return _remote_files(fs, place, collection)
    if glob.has_magic(place):
        parts = Path(place).parts
        base = Path(*parts[: next(index for index, part in enumerate(parts) if glob.has_magic(part))])
        chosen = [Path(each) for each in glob.glob(place, recursive=True)]
    elif Path(place).is_dir():
        base, chosen = Path(place), list(_walk(Path(place), collection))
    else:
        base, chosen = Path(place).parent, [Path(place)] if Path(place).exists() else []
    chosen = sorted((each for each in chosen if not each.is_dir()), key=lambda each: each.as_posix())
    with ThreadPoolExecutor(_HASHERS) as pool:
        return list(pool.map(lambda each: _local_file(each, base, collection), chosen))


def _walk(base: Path, collection: CollectionSettings) -> Iterator[Path]:
    skipped = collection.code.skip_folders if collection.format == "code" else ()
    for folder, folders, names in os.walk(base):
        folders[:] = [each for each in folders if each not in skipped]
        yield from (Path(folder) / name for name in names if _is_wanted(name, collection.format))


def _is_wanted(name: str, kind: Format) -> bool:
    """Whether a file of a folder is taken; a file that is named itself always is."""
    if kind == "code":
        return True
    name = name.lower()
    ending = next((each for each in COMPRESSIONS if name.endswith(each)), "")
    return not name.startswith(".") and name.removesuffix(ending).endswith(_ENDINGS[kind])


def _local_file(path: Path, base: Path, collection: CollectionSettings) -> FoundFile:
    name = path.relative_to(base).as_posix()
    status = _status(path, base, collection.follow_links)
    if status is None:
        return FoundFile(_printable(name), str(path), 0, None)
    if collection.identify_by == "stat":
        return FoundFile(_printable(name), str(path), status.st_size, f"mtime:{status.st_mtime_ns}")
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while block := source.read(1 << 22):
            digest.update(block)
    return FoundFile(_printable(name), str(path), status.st_size, f"sha256:{digest.hexdigest()}")


def _status(path: Path, base: Path, follow_links: bool) -> os.stat_result | None:
    """Status of a plain file that lies in its folder; None for anything else."""
    try:
        inside = follow_links or path.resolve().is_relative_to(base.resolve())
        status = path.stat()
    except (OSError, RuntimeError):
        return None
    return status if inside and stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK) else None


def _printable(name: str) -> str:
    """A file name as UTF-8, whatever bytes it is made of."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _remote_files(fs: Any, place: str, collection: CollectionSettings) -> list[FoundFile]:
    magic = glob.has_magic(place)
    found: dict[str, Any] = fs.glob(place, detail=True) if magic else fs.find(place, detail=True)
    base = place.split("*")[0].rpartition("/")[0] if magic else place.rstrip("/")
    single = list(found) == [base]
    files: list[FoundFile] = []
    for path, info in sorted(found.items()):
        if info.get("type") != "file" or not (
            magic or single or _is_wanted(path.rpartition("/")[2], collection.format)
        ):
            continue
        tag = next(
            (info[key] for key in ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created") if key in info), ""
        )
        name = path.rpartition("/")[2] if single else path.removeprefix(base).lstrip("/")
        files.append(FoundFile(name, fs.unstrip_protocol(path), int(info.get("size") or 0), f"tag:{tag}"))
    return files


def _check_first_file(collection: CollectionSettings, files: list[FoundFile], source: SourceSettings) -> None:
    """Refuse wrong column names before any worker starts. Damaged files are left to the workers."""
    first = next((each for each in files if each.digest is not None), None)
    if first is None or collection.format not in ("parquet", "jsonl"):
        return
    with open_source(first.path, source.transport) as stream:
        if collection.format == "jsonl":
            known = first_columns(stream, first.name, source.max_record_bytes)
            missing = [name for name in collection.columns.names if known and name.partition(".")[0] not in known]
            if missing:
                raise BadInput(
                    f"{first.name} has no column {missing[0]}",
                    f"the columns of collection {collection.name} must exist",
                    f"There are: {', '.join(known or [])}",
                )
            return
        try:
            schema = pq.read_schema(cast("Any", stream))
        except (pa.ArrowException, OSError):
            return
        check_columns(first.name, schema, collection.columns)
