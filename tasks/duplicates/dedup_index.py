"""The index of earlier datasets, against which a refresh is deduplicated: segments, and what was retired from them.

    indexes/<name>/segments/<dataset>/<version>/part-00000-of-00008.arrow    documents, as the signatures stage has them
                                                keys/part-...                their keys, but for those of URLs
                                                manifest.json                the segment is whole
                   retired/00000.json                                        refs that match no more, one file a request

A segment holds the documents that a published dataset kept, with refs of their own: shard and row. Segments are
numbered in the order of their adding. A build sees a *view*: the segments that were there before its own and the
retirements so far. The digest of the view belongs to the parents of what is made with it, so that a build is made
anew exactly when the part of the index that it can see has changed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
from pydantic import Field

from infra.errors import BadInput
from infra.manifest import FileRecord, Manifest, StageManifest, fingerprint
from infra.store import Store
from tasks.duplicates.signatures import KEYS, SIGNATURES, SIGNED, URL_KEY, SignatureSettings, url_key
from tasks.duplicates.signed_documents import Segment, Shards
from tasks.stage import StageRunner


class SegmentManifest(Manifest):
    """A whole segment; written last."""

    number: int
    """Place in the order of adding."""
    dataset: str
    version: str
    signatures: str
    """Digest of the signatures that it was taken from: which build it belongs to."""
    documents: str
    """Digest of the stage whose documents it holds."""
    settings: dict[str, Any]
    """What the documents were signed by; a view needs the same."""
    signatures_version: int
    parts: tuple[tuple[FileRecord, FileRecord], ...]
    """Documents and keys of each shard."""
    digest: str
    """Hash over the content of all parts."""

    @property
    def name(self) -> str:
        """NAME/VERSION."""
        return f"{self.dataset}/{self.version}"

    @property
    def rows(self) -> int:
        """Documents in it."""
        return sum(documents.rows for documents, _ in self.parts)


class Retirement(Manifest):
    """One request to retire, and what it met."""

    ids: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    """Segments retired as a whole, NAME/VERSION."""
    refs: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Refs that the ids and URLs have, by segment."""


@dataclass(frozen=True)
class IndexView:
    """The part of an index that a build sees, frozen."""

    name: str = ""
    segments: tuple[Segment, ...] = ()
    retirements: int = 0
    """How many requests to retire it counts."""
    digest: str = ""

    def retired_refs(self, store: Store) -> list[np.ndarray]:
        """Sorted retired refs of each segment."""
        found: dict[str, set[int]] = {segment.name: set() for segment in self.segments}
        for record in retirements(store, self.name)[: self.retirements]:
            for name, refs in record.refs.items():
                found.get(name, set()).update(refs)
        return [np.array(sorted(found[segment.name]), np.uint64) for segment in self.segments]


def segments(store: Store, name: str) -> list[SegmentManifest]:
    """The whole segments of an index in the order of their adding; none if there is no such index."""
    root = f"indexes/{name}/segments"
    paths = [f"{root}/{each}/{v}/manifest.json" for each in store.names(root) for v in store.names(f"{root}/{each}")]
    found = [SegmentManifest.load(store, path) for path in paths if store.exists(path)]
    return sorted(found, key=lambda each: (each.number, each.name))


def retirements(store: Store, name: str) -> list[Retirement]:
    """All requests to retire, in order."""
    folder = f"indexes/{name}/retired"
    names = [each for each in store.names(folder) if each.endswith(".json")]
    return [Retirement.load(store, f"{folder}/{each}") for each in names]


def open_index(
    store: Store, name: str, settings: SignatureSettings, signatures: str = "", exclude: tuple[str, str] | None = None
) -> IndexView:
    """Freeze what a build may see of an index.

    The build's own segment, known by the digest of its signatures or by name and version in `exclude`, is left out
    with all that were added after it: a dataset made again is made from what was there when it was made first.
    BadInput if a segment was signed by other settings.
    """
    seen: list[SegmentManifest] = []
    for segment in segments(store, name):
        if segment.signatures == signatures or (segment.dataset, segment.version) == exclude:
            break
        seen.append(segment)
    for segment in seen:
        _require_comparable(name, segment, settings)
    records = retirements(store, name)
    whole = {each for record in records for each in record.segments}
    seen = [segment for segment in seen if segment.name not in whole]
    content = []
    for segment in seen:
        refs = {ref for record in records for ref in record.refs.get(segment.name, ())}
        content.append([segment.name, segment.digest, sorted(refs)])
    places = tuple(Segment(each.dataset, each.version, Shards(_folder(name, each), len(each.parts))) for each in seen)
    return IndexView(name, places, len(records), fingerprint(segments=content) if places else "")


def _folder(name: str, segment: SegmentManifest) -> str:
    return f"indexes/{name}/segments/{segment.name}"


def _require_comparable(name: str, segment: SegmentManifest, settings: SignatureSettings) -> None:
    if (segment.settings, segment.signatures_version) == (_comparable(settings), SIGNATURES.version):
        return
    raise BadInput(
        f"index {name}: segment {segment.name} was signed by {segment.settings} (version "
        f"{segment.signatures_version}), this build by {_comparable(settings)} (version {SIGNATURES.version})",
        "documents are compared by equal shingles, permutations and bands",
        "Use the settings of the index, or another index",
    )


def _comparable(settings: SignatureSettings) -> dict[str, Any]:
    """The settings that two documents must share to be compared; preferences only rank."""
    return {name: value for name, value in settings.identity().items() if name != "prefer"}


@dataclass(frozen=True)
class PartTask:
    """All that a worker needs to copy one shard into a segment."""

    signed: Shards
    segment: Shards
    index: int
    kept: str
    """The documents that belong to it: an Arrow file with their ids."""

    def __str__(self) -> str:
        return self.segment.path(self.index)


def add_segment(
    runner: StageRunner, name: str, dataset: str, version: str, signed: StageManifest, documents: StageManifest
) -> SegmentManifest:
    """Add a published dataset to an index: the signed documents that a later stage kept, shard by shard.

    Adding the same dataset again changes nothing. BadInput if its name and version stand for other documents, or if
    the stage has other shards than the signatures.
    """
    _require_same_shards(signed, documents)
    known = segments(runner.store, name)
    for segment in known:
        if segment.name == f"{dataset}/{version}":
            return _same(name, segment, signed, documents)
    place = Shards(f"indexes/{name}/segments/{dataset}/{version}", len(signed.shards))
    runner.store.make_folder(place.folder, private=True)
    tasks = [PartTask(Shards.of(signed), place, index, path) for index, path in enumerate(documents.kept_paths)]
    parts = dict(runner.cluster.map(partial(write_part, runner.store), tasks, "index segment"))
    for folder in (place.folder, f"{place.folder}/keys"):
        runner.store.remove_temporary(folder)
    ordered = tuple(parts[index] for index in range(len(tasks)))
    manifest = SegmentManifest(
        number=max((each.number + 1 for each in known), default=0),
        dataset=dataset,
        version=version,
        signatures=signed.digest,
        documents=documents.digest,
        settings={key: value for key, value in signed.settings.items() if key != "prefer"},
        signatures_version=signed.version,
        parts=ordered,
        digest=fingerprint(parts=[[each.sha256 for each in part] for part in ordered]),
    )
    manifest.save(runner.store, f"{place.folder}/manifest.json")
    return manifest


def _require_same_shards(signed: StageManifest, documents: StageManifest) -> None:
    if len(signed.shards) == len(documents.shards):
        return
    raise BadInput(
        f"stage {documents.stage} has {len(documents.shards)} shards, the signatures {len(signed.shards)}",
        "a segment holds what a stage kept of each signed shard",
        "Add the documents of a stage between dedup and the one that cuts the shards anew",
    )


def _same(name: str, segment: SegmentManifest, signed: StageManifest, documents: StageManifest) -> SegmentManifest:
    if (segment.signatures, segment.documents) == (signed.digest, documents.digest):
        return segment
    raise BadInput(
        f"index {name} has other documents of {segment.name}",
        "a published version never changes",
        "Choose another dataset.version, or retire the segment and use another index",
    )


def write_part(store: Store, task: PartTask) -> tuple[int, tuple[FileRecord, FileRecord]]:
    """Copy the documents of one shard and their keys into a segment."""
    ids = set(cast("list[str]", _column(store, task.kept, "id")))
    kept: list[np.ndarray] = [np.zeros(0, np.uint64)]

    def wanted_documents() -> Iterator[pa.RecordBatch]:
        for batch in _batches(store, task.signed.path(task.index)):
            chosen = batch.filter(pa.array([each in ids for each in batch.column("id").to_pylist()], pa.bool_()))
            if chosen.num_rows:
                kept.append(chosen.column("ref").to_numpy())
                yield chosen

    documents = _write(store, task.segment.path(task.index), SIGNED, wanted_documents())
    refs = np.concatenate(kept)

    def wanted_keys() -> Iterator[pa.RecordBatch]:
        for batch in _batches(store, task.signed.path(task.index, "keys")):  # one for one: runs keep their places
            by_url = batch.column("key").to_numpy() & np.uint64(3) == URL_KEY
            yield batch.filter(pa.array(np.isin(batch.column("ref").to_numpy(), refs) & ~by_url))

    return task.index, (documents, _write(store, task.segment.path(task.index, "keys"), KEYS, wanted_keys()))


def _batches(store: Store, path: str) -> Iterator[pa.RecordBatch]:
    reader = store.open_table(path)
    return (reader.get_batch(number) for number in range(reader.num_record_batches))


def _column(store: Store, path: str, name: str) -> list[Any]:
    return [value for batch in _batches(store, path) for value in batch.column(name).to_pylist()]


def _write(store: Store, path: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> FileRecord:
    rows = 0
    with store.create(path, private=True) as out, ipc.new_file(cast("Any", out), schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return FileRecord(path=path, rows=rows, bytes=out.size, sha256=out.sha256)


def retire(
    store: Store, name: str, ids: Sequence[str] = (), urls: Sequence[str] = (), whole: Sequence[str] = ()
) -> Retirement:
    """Take documents out of an index, by id, by URL (in its canonical form) or by segment (NAME/VERSION).

    They match no more in builds from now on; what was built stays. Returns what was recorded. BadInput names what the
    index does not have. The index is read whole where ids or URLs are given.
    """
    known = segments(store, name)
    missing = [f"segment {each}" for each in whole if each not in {segment.name for segment in known}]
    refs, met = _find(store, name, known, set(ids), {url_key(url): url for url in urls})
    missing += [each for each in (*ids, *urls) if each not in met]
    if missing:
        raise BadInput(
            f"index {name} has no {', '.join(missing)}",
            "only what is in the index can be retired",
            f"It has {', '.join(segment.name for segment in known) or 'no segment'}",
        )
    record = Retirement(ids=tuple(ids), urls=tuple(urls), segments=tuple(whole), refs=refs)
    record.save(store, f"indexes/{name}/retired/{len(retirements(store, name)):05d}.json")
    return record


def _find(
    store: Store, name: str, known: Sequence[SegmentManifest], ids: set[str], urls: dict[int, str]
) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """Refs by segment of documents with some ids or keys of URLs, and which of these ids and URLs there are."""
    refs: dict[str, tuple[int, ...]] = {}
    met: set[str] = set()
    for segment in known if ids or urls else ():
        found: list[int] = []
        for path in Shards(_folder(name, segment), len(segment.parts)).paths():
            for batch in _batches(store, path):
                columns = (batch.column(each).to_pylist() for each in ("ref", "id", "url_key"))
                for ref, document_id, key in zip(*columns, strict=True):
                    hits = {document_id} & ids | {urls[each] for each in (key,) if each in urls}
                    met |= hits
                    found += [ref] * bool(hits)
        if found:
            refs[segment.name] = tuple(found)
    return refs, met
