"""Stages that stand finished before a test begins."""

from collections.abc import Sequence

import pyarrow as pa

from infra.manifest import FileRecord, ShardRecord, StageManifest
from infra.store import Store


def parent_of(store: Store, tables: Sequence[pa.Table]) -> StageManifest:
    """A finished stage whose shards kept these tables."""
    records = []
    for index, table in enumerate(tables):
        written = store.write_table(f"stages/given/x/{index}.arrow", table)
        file = FileRecord(path=f"{index}.arrow", rows=table.num_rows, bytes=written.size, sha256=written.sha256)
        records.append(ShardRecord(index=index, source=str(index), rows_in=file.rows, kept=file, dropped=file))
    return StageManifest(
        stage="given",
        version=1,
        fingerprint="x",
        settings={},
        libraries={},
        parents={},
        shards=tuple(records),
        digest="d",
    )
