"""Signatures: what each document is deduplicated by, made once for each shard.

Every document gets a *ref*, a 64-bit number for its place: the highest bit is set in documents of an earlier dataset
(12 bits for which one), then 20 bits for the shard and 31 for the row. The stage writes two run files for each shard
(tasks/sorted_runs.py): the documents by ref, with all that candidates are verified by, and the *keys* by key. Two
documents are candidates if they share a key, and there are three kinds, told apart by their lowest two bits: a key of
each MinHash band, one of the exact text and one of the canonical URL.

A document's *rank* is a 128-bit number, the smaller the better: which of two duplicates stays.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal, cast
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import xxhash
from pydantic import Field

from infra.store import Store
from tasks.duplicates.minhash import MinHashSettings, Signatures, band_keys, minhash, mix
from tasks.sorted_runs import RunSorter
from tasks.stage import Split, Stage

SIGNED = pa.schema(
    [
        pa.field("ref", pa.uint64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.large_string()),
        pa.field("url_key", pa.uint64()),
        pa.field("text_high", pa.uint64(), nullable=False),
        pa.field("text_low", pa.uint64(), nullable=False),
        pa.field("words", pa.int64(), nullable=False),
        pa.field("distinct", pa.int64(), nullable=False),
        pa.field("shingles", pa.large_list(pa.field("item", pa.uint64(), nullable=False)), nullable=False),
    ]
)
"""A document by ref: xxh3-128 of its text, its words, distinct shingles and the sorted hashes of those kept."""

KEYS = pa.schema(
    [pa.field(name, pa.uint64(), nullable=False) for name in ("key", "ref", "rank_high", "rank_low", "text")]
)
"""A key of a document with the document's rank and the low half of its text's hash."""

SIGNATURES = Stage(
    "signatures",
    2,
    SIGNED,
    others={"keys": KEYS},
    libraries=("pyarrow", "numpy", "numba", "xxhash"),
    compressed=False,
)
BAND_KEY, TEXT_KEY, URL_KEY = 0, 1, 2
OLD = 1 << 63
_SEGMENT_SHIFT, _PART_SHIFT = 51, 31
_ROWS_AT_ONCE = 1024
# Large batches are found faster by ref; a task that looks documents up touches only the pages of their rows.
_TABLES_OF_BATCH, _BYTES_OF_BATCH = 8, 32 << 20
_WORST = 0xFFFFFFFF
_TRACKING = ("utm_", "fbclid", "gclid", "msclkid", "mc_cid", "mc_eid")
_PORTS = {"http": 80, "https": 443}


class SignatureSettings(MinHashSettings):
    """What documents are deduplicated by, and which of two duplicates stays."""

    prefer: tuple[Literal["quality", "length", "older", "newer"], ...] = Field(
        default=("quality", "length", "older"), max_length=3
    )
    """What decides which of two duplicates stays, first things first: the higher quality score, more words, the
    earlier or the later date. A document without the value loses; what is equal in all goes by the smaller id."""


def sign(store: Store, source: str, settings: SignatureSettings) -> Iterator[Split]:
    """The shard function of the signatures stage: documents as they come, then their keys, sorted."""
    reader = store.open_table(source)
    sorter, row = RunSorter(), part_number(source) << _PART_SHIFT
    waiting: list[pa.Table] = []
    for index in range(reader.num_record_batches):
        batch = reader.get_batch(index)
        for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
            table = pa.Table.from_batches([batch.slice(start, _ROWS_AT_ONCE)])
            refs = np.arange(row, row + table.num_rows, dtype=np.uint64)
            documents, keys = sign_batch(table, refs, settings)
            row += table.num_rows
            waiting.append(documents)
            if len(waiting) == _TABLES_OF_BATCH or sum(each.nbytes for each in waiting) > _BYTES_OF_BATCH:
                yield Split(pa.concat_tables(waiting))
                waiting = []
            yield from (Split(SIGNED.empty_table(), others={"keys": each}) for each in sorter.add(keys))
    yield Split(pa.concat_tables([SIGNED.empty_table(), *waiting]))
    yield from (Split(SIGNED.empty_table(), others={"keys": each}) for each in sorter.finish())


def sign_batch(table: pa.Table, refs: np.ndarray, settings: SignatureSettings) -> tuple[pa.Table, pa.Table]:
    """SIGNED and KEYS of a table of DOCUMENTS."""
    signed = minhash(cast("pa.ChunkedArray", table["text"]), settings)
    texts = cast("list[str | None]", table["text"].to_pylist())
    digests = [xxhash.xxh3_128_intdigest((text or "").encode()) for text in texts]
    high = np.array([digest >> 64 for digest in digests], np.uint64)
    low = np.array([digest & (1 << 64) - 1 for digest in digests], np.uint64)
    urls = cast("list[str | None]", table["url"].to_pylist())
    url_keys = [None if url is None else url_key(url) for url in urls]
    shingles = pa.LargeListArray.from_arrays(pa.array(signed.offsets), pa.array(signed.shingles))
    columns = [pa.array(refs), table["id"], table["url"], pa.array(url_keys, pa.uint64()), pa.array(high)]
    columns += [pa.array(low), pa.array(signed.words), pa.array(signed.distinct), shingles.cast(SIGNED.field(-1).type)]
    rank = ranks(table, signed.words, settings.prefer)
    return pa.table(columns, schema=SIGNED), _keys(signed, refs, rank, low, url_keys, settings)


def _keys(
    signed: Signatures,
    refs: np.ndarray,
    rank: tuple[np.ndarray, np.ndarray],
    texts: np.ndarray,
    url_keys: Sequence[int | None],
    settings: SignatureSettings,
) -> pa.Table:
    """All keys of a batch; a text without words has no band to agree in, and a document without URL no URL key."""
    worded = np.flatnonzero(signed.words)
    located = np.array([row for row, key in enumerate(url_keys) if key is not None], np.int64)
    url_values = np.array([key for key in url_keys if key is not None], np.uint64)
    values = [band_keys(signed.values[worded], settings).ravel(), mix(texts), url_values]
    rows = np.concatenate([np.repeat(worded, settings.bands), np.arange(len(refs)), located])
    kinds = np.repeat(np.array([BAND_KEY, TEXT_KEY, URL_KEY], np.uint64), [len(each) for each in values])
    keys = np.concatenate(values) & ~np.uint64(3) | kinds
    columns = [keys, refs[rows], rank[0][rows], rank[1][rows], texts[rows]]
    return pa.table([pa.array(each) for each in columns], schema=KEYS)


def ranks(table: pa.Table, words: np.ndarray, prefer: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """High and low halves of the ranks of documents: 32 bits for each preference, the first bits of the id in the rest.

    Ids that agree in those too (their first 32 bits, with three preferences) are left to the order of shards.
    """
    parts = [_rank_part(table, words, name) for name in prefer]
    size = 4 - len(parts)
    starts = [_id_bytes(each)[: 4 * size].ljust(4 * size, b"\0") for each in cast("list[str]", table["id"].to_pylist())]
    parts += list(np.frombuffer(b"".join(starts), ">u4").reshape(-1, size).T.astype(np.uint64))
    shift = np.uint64(32)
    return parts[0] << shift | parts[1], parts[2] << shift | parts[3]


def _id_bytes(document_id: str) -> bytes:
    try:
        return bytes.fromhex(document_id)
    except ValueError:
        return document_id.encode()


def _rank_part(table: pa.Table, words: np.ndarray, name: str) -> np.ndarray:
    """One preference as 32-bit numbers, the smaller the better; the largest where the value is missing."""
    if name == "quality":
        scores = cast("np.ndarray", table["quality"].cast(pa.float32()).to_numpy()).astype(np.float32) + np.float32(0)
        bits = scores.view(np.uint32)
        ascending = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
        return np.where(np.isnan(scores), _WORST, _WORST - ascending).astype(np.uint64)
    if name == "length":
        return (_WORST - np.minimum(words, _WORST)).astype(np.uint64)
    dates = cast("list[datetime | None]", table["fetched_at"].to_pylist())
    seconds = [None if date is None else min(max(int(date.timestamp()), 0), _WORST - 1) for date in dates]
    sign = (lambda each: each) if name == "older" else (lambda each: _WORST - 1 - each)
    return np.array([_WORST if each is None else sign(each) for each in seconds], np.uint64)


def url_key(url: str) -> int:
    """Hash of the canonical form of a URL."""
    return xxhash.xxh64_intdigest(canonical_url(url).encode())


def canonical_url(url: str) -> str:
    """What two addresses of one page have in common, as crawlers see it.

    Without scheme, user, default port, leading `www.`, fragment (unless it is a route, `#!`) and parameters that only
    track visitors; the host in lower case. What is no URL stays as it is.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = (parts.hostname or "").rstrip(".").removeprefix("www."), parts.port
    except ValueError:
        return url
    if not host:
        return url
    place = host if port in (None, _PORTS.get(parts.scheme)) else f"{host}:{port}"
    query = "&".join(each for each in parts.query.split("&") if not each.lower().startswith(_TRACKING))
    route = f"#{parts.fragment}" if parts.fragment.startswith("!") else ""
    return f"{place}{parts.path or '/'}{'?' if query else ''}{query}{route}"


def part_number(path: str) -> int:
    """The number of a shard, from the name that every stage gives its files: part-00003-of-00008.arrow."""
    return int(path.rsplit("part-", 1)[1].split("-", 1)[0])


def ref_parts(refs: np.ndarray) -> np.ndarray:
    """The shard numbers of refs."""
    return (refs >> np.uint64(_PART_SHIFT)) & np.uint64((1 << _SEGMENT_SHIFT - _PART_SHIFT) - 1)


def ref_rows(refs: np.ndarray) -> np.ndarray:
    """The rows of refs in their shards."""
    return refs & np.uint64((1 << _PART_SHIFT) - 1)


def refs_at(parts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The refs of new documents in some shards and rows."""
    return parts.astype(np.uint64) << np.uint64(_PART_SHIFT) | rows.astype(np.uint64)


def refs_of_part(part: int) -> tuple[int, int]:
    """The first ref of a shard, and the first one after it."""
    return part << _PART_SHIFT, part + 1 << _PART_SHIFT


def segment_bits(segment: int) -> np.uint64:
    """What a ref of an earlier dataset has in addition to shard and row."""
    return np.uint64(OLD | segment << _SEGMENT_SHIFT)


def ref_segments(refs: np.ndarray) -> np.ndarray:
    """For each ref the number of the earlier dataset, or -1 for a new document."""
    segments = (refs >> np.uint64(_SEGMENT_SHIFT)).astype(np.int64)
    return np.where(refs >= np.uint64(OLD), segments - (OLD >> _SEGMENT_SHIFT), -1)
