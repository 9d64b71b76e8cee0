"""Stages of given documents, for tests of what comes after them."""

import ast
import hashlib
import sysconfig
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from infra.manifest import FileRecord, ShardRecord, StageManifest, fingerprint, stage_folder
from infra.schema import DOCUMENTS
from infra.store import Store

Row = Mapping[str, Any]
DATE = datetime(2026, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=1)
def prose() -> tuple[str, ...]:
    """English prose that every Python carries: the long docstrings of the standard library's modules."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [ast.get_docstring(ast.parse(path.read_bytes())) or "" for path in paths]
    return tuple(text for text in texts if len(text.split()) >= 60)


def documents(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table of DOCUMENTS from what its rows say; each needs an id and a text."""
    defaults = {"source": "c", "file": "w", "offset": 0, "fetched_at": DATE}
    return pa.Table.from_pylist([{**defaults, **row} for row in rows], schema=DOCUMENTS)


def stage_of(store: Store, shards: Sequence[Sequence[Mapping[str, Any]]], batch_rows: int = 1000) -> StageManifest:
    """A finished stage whose shards hold some documents."""
    tables = [documents(rows) for rows in shards]
    digest = fingerprint(rows=[[list(map(str, row.values())) for row in table.to_pylist()] for table in tables])
    folder, records = stage_folder("given", digest), []
    for index, table in enumerate(tables):
        name = f"part-{index:05d}-of-{len(tables):05d}.arrow"
        with store.create(f"{folder}/{name}") as out, pa.ipc.new_file(out, DOCUMENTS) as writer:  # type: ignore[arg-type]
            writer.write_table(table, batch_rows)
        file = FileRecord(path=name, rows=table.num_rows, bytes=out.size, sha256=out.sha256)
        records.append(ShardRecord(index=index, source=name, rows_in=file.rows, kept=file, dropped=file))
    return StageManifest(
        stage="given",
        version=1,
        fingerprint=digest,
        settings={},
        libraries={},
        parents={},
        shards=tuple(records),
        digest=digest,
    )


def tree(root: Path) -> dict[str, str]:
    """Digest of every file under a folder, but for what is true of one run only."""
    paths = sorted(path for path in root.rglob("*") if path.is_file() and path.name != "telemetry.json")
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def kept_ids(store: Store, manifest: StageManifest) -> list[str]:
    """The ids of all documents that a stage kept, in order."""
    return [each for path in manifest.kept_paths for each in store.read_table(path)["id"].to_pylist()]


def dropped_rows(store: Store, manifest: StageManifest) -> dict[str, dict[str, Any]]:
    """The rows that a stage dropped, by id."""
    paths = [f"{manifest.folder}/{shard.dropped.path}" for shard in manifest.shards]
    return {row["id"]: row for path in paths for row in store.read_table(path).to_pylist()}
