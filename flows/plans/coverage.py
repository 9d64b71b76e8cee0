"""How much of a shard the sample has read: what everything that was measured on it is scaled by."""

import os
from collections.abc import Sequence
from typing import Any, cast

import fsspec
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from flows.plans.sampling import Pass
from infra.manifest import ShardRecord
from infra.store import Store
from tasks.sources.collections import CollectionSettings, collection_of
from tasks.sources.corpus_files import COMPRESSIONS

pc: Any = pyarrow.compute  # its functions are made when it is imported: types know few of them
_READ_WHOLE = ("text", "html", "code")
"""Formats of collections whose files are documents: `max_records` does not shorten a shard of them."""


def share_read(one: Pass, shard: ShardRecord, size: int, collections: Sequence[CollectionSettings]) -> float:
    """Which share of a sampled shard of so many bytes a pass has read, above 0.

    Records tell it by where they begin, where that is a byte of the file; else the bytes that the reader asked for do,
    which are some more; of a Parquet file its rows.
    """
    collection = collection_of(shard.source, collections)
    kind = "warc" if collection is None else collection.format
    if shard.rows_in < one.records or kind in _READ_WHOLE:
        return 1.0
    if kind == "parquet":
        return min(1.0, shard.rows_in / max(_parquet_rows(one.store, shard.source), 1))
    counts = one.telemetry(one.manifests[0]).counts
    read = counts.get(f"bytes_read {shard.source}", size)
    if kind != "jsonl" or not shard.source.lower().endswith(COMPRESSIONS):
        last = _last_offset(one, shard)
        # The last record reaches about as far as the others on average.
        read = min(read, last * shard.rows_in / max(shard.rows_in - 1, 1)) if last else read
    return min(1.0, max(read, 1) / max(size, 1))


def _last_offset(one: Pass, shard: ShardRecord) -> int:
    """Where the last record begins; 0 where all are in one compressed stretch."""
    folder = one.manifests[0].folder
    files = [shard.kept, shard.dropped, *shard.others.values()]
    last = [pc.max(one.store.read_table(f"{folder}/{file.path}", ["offset"])["offset"]).as_py() for file in files]
    return max(each or 0 for each in last)


def _parquet_rows(store: Store, shard: str) -> int:
    """Rows of the Parquet file that a shard of a collection is."""
    [listing] = [name for name in store.names("listings") if name.startswith("collections-")]
    rows = store.read_table(f"listings/{listing}", ["shard", "path"]).to_pylist()
    return sum(_rows(os.fsdecode(row["path"])) for row in rows if row["shard"] == shard)


def _rows(path: str) -> int:
    try:
        with cast("Any", fsspec.open(path, "rb")) as file:
            return pq.read_metadata(file).num_rows
    except (pa.ArrowException, OSError):
        return 0
