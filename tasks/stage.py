"""The one way a corpus stage runs: a pure shard function, mapped over shards by Dask, committed shard by shard.

A *stage* turns the shards of its parent into shards of its own. A *shard function* yields `Split`s: Arrow tables of
what is kept, what is dropped and why. This module does the rest: names the stage's folder by fingerprint, skips
shards that are done, writes each shard's files whole, then its record, and the stage's manifest last. Killed at any
moment and run again, it leaves the same bytes, because a shard's bytes depend on its source and settings alone.

    stages/<stage>/<fingerprint>/part-00000-of-00008.arrow            kept
                                 dropped/part-00000-of-00008.arrow    dropped, with reasons
                                 shards/part-00000-of-00008.json      the shard's record: it is done
                                 manifest.json                        the stage is done
"""

import logging
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from infra.cluster import Cluster
from infra.environment import Environment
from infra.manifest import (
    FileRecord,
    ShardRecord,
    StageManifest,
    Telemetry,
    fingerprint,
    library_versions,
    stage_folder,
)
from infra.retained import MARK
from infra.schema import DOCUMENTS, DROPPED
from infra.settings import Settings
from infra.store import HashingFile, Store
from tasks.observer import MadeShard, ShardLog, StageObserver, log_summary

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """What became of one batch of documents."""

    kept: pa.Table
    dropped: pa.Table = field(default_factory=DROPPED.empty_table)
    others: Mapping[str, pa.Table] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    incomplete: bool = False
    telemetry: Mapping[str, int] = field(default_factory=dict)
    """Counts that are true of this run only, such as refused requests; they change no byte of the stage."""


ShardFunction = Callable[[Store, str, Any], Iterator[Split]]
"""(store, source, settings) -> splits; the source is a WARC path for fetch, a kept file of the parent otherwise."""


@dataclass(frozen=True)
class Stage:
    """What a stage is, apart from its settings. Raise `version` whenever the same input would give other bytes."""

    name: str
    version: int
    schema: pa.Schema | Callable[[Any], pa.Schema] = DOCUMENTS
    """Schema of the kept table, or a function of the settings where it depends on them."""
    others: Mapping[str, pa.Schema | Callable[[Any], pa.Schema] | None] = field(default_factory=dict)
    """Schemas of further outputs, or functions of the settings; None takes the kept schema. An output called
    `quarantined` holds what could not be read; the rows of another count as documents only if its schema is None."""
    libraries: tuple[str, ...] = ("pyarrow",)
    """Libraries whose versions can change the bytes."""
    private: bool = True
    """Whether the kept files may hold personal data; dropped files always may."""
    compressed: bool = True
    parquet: bool = False
    """Write the kept files as Parquet, for people and their query engines, instead of Arrow IPC."""
    worth_telling: Mapping[str, str] = field(default_factory=dict)
    """Counts of the telemetry that are logged when the stage is done, with their words."""

    @property
    def document_outputs(self) -> tuple[str, ...]:
        """Further outputs whose rows are documents or records that entered, each at this place only."""
        return tuple(name for name, schema in self.others.items() if schema is None or name == "quarantined")


@dataclass(frozen=True)
class PerBatch:
    """A shard function made of a table function: one Arrow batch in memory at a time."""

    function: Callable[[pa.Table, Any], Split]

    def __call__(self, store: Store, source: str, settings: Any) -> Iterator[Split]:
        """Yield the split of each batch of a parent's shard."""
        reader = store.open_table(source)
        for index in range(reader.num_record_batches):
            yield self.function(pa.Table.from_batches([reader.get_batch(index)]), settings)


@dataclass(frozen=True)
class ShardTask:
    """All that a worker needs to make one shard."""

    stage: Stage
    function: ShardFunction
    settings: Settings
    schema: pa.Schema
    folder: str
    index: int
    count: int
    source: str

    @property
    def name(self) -> str:
        """File name of the shard, without its ending."""
        return f"part-{self.index:05d}-of-{self.count:05d}"

    @property
    def record_path(self) -> str:
        """Where the record of the finished shard stands."""
        return f"{self.folder}/shards/{self.name}.json"

    def __str__(self) -> str:
        return f"shard {self.index} ({self.source})"


@dataclass(frozen=True)
class StageRunner:
    """Where stages run: a store for their files and a cluster for their shards."""

    store: Store
    cluster: Cluster
    observer: StageObserver = field(default_factory=StageObserver)
    max_failed_shards: int = Environment.model_fields["max_failed_shards"].default
    """A stage stops when so many of its shards have failed; before that it makes all the others."""

    def apply(
        self, stage: Stage, function: Callable[[pa.Table, Any], Split], parent: StageManifest, settings: Settings
    ) -> StageManifest:
        """Run a stage that is a table function over the kept documents of another."""
        return self.run(stage, PerBatch(function), parent.kept_paths, settings, {parent.stage: parent.digest})

    def run(
        self,
        stage: Stage,
        function: ShardFunction,
        sources: Sequence[str],
        settings: Settings,
        parents: Mapping[str, str],
    ) -> StageManifest:
        """Make a stage, or find it made. Parents are digests by name; sources are one for each shard."""
        identity = {
            "stage": stage.name,
            "version": stage.version,
            "settings": settings.identity(),
            "libraries": library_versions(stage.libraries),
            "parents": dict(parents),
        }
        folder = stage_folder(stage.name, fingerprint(**identity))
        manifest_path = f"{folder}/manifest.json"
        if (manifest := finished_stage(self.store, manifest_path)) is not None:
            logger.info("%s: already done, %s documents kept", stage.name, f"{manifest.kept:,}")
            self.observer.stage_finished(manifest, None)
            return manifest
        schema = stage.schema(settings) if callable(stage.schema) else stage.schema
        tasks = [
            ShardTask(stage, function, settings, schema, folder, index, len(sources), source)
            for index, source in enumerate(sources)
        ]
        try:
            records, telemetry = self._run_shards(stage, folder, tasks)
        except BaseException as error:
            self.observer.stage_failed(type(error).__name__)
            raise
        manifest = StageManifest(
            **identity,
            fingerprint=fingerprint(**identity),
            shards=tuple(records),
            digest=fingerprint(shards=[shard_content(record) for record in records]),
        )
        telemetry.save(self.store, f"{folder}/telemetry.json")
        manifest.save(self.store, manifest_path)
        log_summary(manifest, telemetry, stage.worth_telling)
        self.observer.stage_finished(manifest, telemetry)
        return manifest

    def _run_shards(self, stage: Stage, folder: str, tasks: Sequence[ShardTask]) -> tuple[list[ShardRecord], Telemetry]:
        """Make the shards that are missing. Those that fail stop no other; RunFailed names them in the end."""
        self._prepare_folder(stage, folder)
        reused = {task.index: record for task in tasks if (record := finished_shard(self.store, task)) is not None}
        self.observer.stage_started(stage.name, folder, len(tasks), list(reused.values()))
        log = ShardLog(stage.name, len(tasks), reused, self.observer, self.max_failed_shards)
        waiting = [task for task in tasks if task.index not in reused]
        make = partial(make_shard, self.store)
        for made in self.cluster.map(make, waiting, stage.name, lambda task, error: log.failed(task.source, error)):
            log.done(made)
        self._sweep(stage, folder)
        log.check()
        return [log.records[task.index] for task in tasks], log.telemetry(self.cluster.workers)

    def _prepare_folder(self, stage: Stage, folder: str) -> None:
        self.store.make_folder(folder, private=stage.private)
        if self.store.exists(f"{folder}/{MARK}"):
            self.store.remove(f"{folder}/telemetry.json")  # it tells how old what was deleted is
            self.store.remove(f"{folder}/{MARK}")
        self.store.make_folder(f"{folder}/dropped", private=True)
        self.store.make_folder(f"{folder}/shards")
        self._sweep(stage, folder)

    def _sweep(self, stage: Stage, folder: str) -> None:
        """Remove what killed writers left, of an earlier run or of this one."""
        for part in ("", "/dropped", "/shards", *(f"/{name}" for name in stage.others)):
            self.store.remove_temporary(f"{folder}{part}")


def finished_stage(store: Store, manifest_path: str) -> StageManifest | None:
    """The manifest of a stage that an earlier run finished, unless a shard is incomplete or a file is gone."""
    if not store.exists(manifest_path):
        return None
    manifest = StageManifest.load(store, manifest_path)
    if store.exists(f"{manifest.folder}/{MARK}"):
        return None
    whole = all(is_whole(store, manifest.folder, shard) for shard in manifest.shards)
    return manifest if whole else None


def is_whole(store: Store, folder: str, record: ShardRecord) -> bool:
    """Whether a shard was read to its end and its files are still there, with their sizes."""
    files = [record.kept, record.dropped, *record.others.values()]
    return not record.incomplete and all(
        store.exists(path := f"{folder}/{each.path}") and store.size(path) == each.bytes for each in files
    )


def finished_shard(store: Store, task: ShardTask) -> ShardRecord | None:
    """The record of a shard that an earlier run finished, if its files are still what it says."""
    if not store.exists(task.record_path):
        return None
    record = ShardRecord.load(store, task.record_path)
    return record if is_whole(store, task.folder, record) else None


def make_shard(store: Store, task: ShardTask) -> MadeShard:
    """Run a shard function, commit its outputs, then its record."""
    began, started, incomplete = time.monotonic(), _processor_seconds(), False
    reasons, counters, telemetry, quarantined = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    with ShardFiles(store, task) as files:
        for split in task.function(store, task.source, task.settings):
            files.write(split)
            reasons.update(cast("list[str]", split.dropped["reason"].to_pylist()))
            if (unreadable := split.others.get("quarantined")) is not None:
                quarantined.update(cast("list[str]", unreadable["reason"].to_pylist()))
            counters.update(split.counters)
            telemetry.update(split.telemetry)
            incomplete = incomplete or split.incomplete
    kept, dropped, others = files.records()
    record = ShardRecord(
        index=task.index,
        source=task.source,
        rows_in=kept.rows + dropped.rows + sum(others[name].rows for name in task.stage.document_outputs),
        kept=kept,
        dropped=dropped,
        others=others,
        reasons=dict(sorted(reasons.items())),
        quarantined=dict(sorted(quarantined.items())),
        counters=dict(sorted(counters.items())),
        incomplete=incomplete,
    )
    record.save(store, task.record_path)
    telemetry["cpu_ms"] = round(1000 * (_processor_seconds() - started))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return MadeShard(record, peak, dict(telemetry), time.monotonic() - began)


def _processor_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


class ShardFiles:
    """The open output files of one shard; they appear under their names when the block ends well."""

    def __init__(self, store: Store, task: ShardTask) -> None:
        self._store, self._task = store, task
        self._stack = ExitStack()
        self._files: dict[str, tuple[str, HashingFile]] = {}
        self._writers: dict[str, Any] = {}
        self._rows: dict[str, int] = {}

    def __enter__(self) -> "ShardFiles":
        stage = self._task.stage
        with self._stack:  # if one of the files cannot be opened, those before it are closed and removed
            self._open("kept", "", self._task.schema, stage.private, stage.compressed)
            self._open("dropped", "dropped/", DROPPED, private=True, compressed=True)
            for name, given in stage.others.items():
                schema = given(self._task.settings) if callable(given) else given or self._task.schema
                self._open(name, f"{name}/", schema, stage.private, stage.compressed)
            self._stack = self._stack.pop_all()
        return self

    def _open(self, name: str, subfolder: str, schema: pa.Schema, private: bool, compressed: bool) -> None:
        parquet = self._task.stage.parquet and name == "kept"
        path = f"{subfolder}{self._task.name}.{'parquet' if parquet else 'arrow'}"
        out = self._stack.enter_context(self._store.create(f"{self._task.folder}/{path}", private))
        compression = "zstd" if compressed else None
        if parquet:
            made: Any = pq.ParquetWriter(cast("Any", out), schema, compression=compression or "none")
        else:
            made = ipc.new_file(cast("Any", out), schema, options=ipc.IpcWriteOptions(compression=compression))
        writer = self._stack.enter_context(made)
        self._files[name], self._writers[name], self._rows[name] = (path, out), writer, 0

    def write(self, split: Split) -> None:
        """Append the tables of one split."""
        for name, table in {"kept": split.kept, "dropped": split.dropped, **split.others}.items():
            if table.num_rows:
                self._writers[name].write_table(table.combine_chunks())
                self._rows[name] += table.num_rows

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def records(self) -> tuple[FileRecord, FileRecord, dict[str, FileRecord]]:
        """What was written: kept, dropped, others."""
        every = {
            name: FileRecord(path=path, rows=self._rows[name], bytes=out.size, sha256=out.sha256)
            for name, (path, out) in self._files.items()
        }
        return every.pop("kept"), every.pop("dropped"), every


def texts(table: pa.Table) -> list[str]:
    """The text column as Python strings; stages after extract hold no nulls in it."""
    return cast("list[str]", table["text"].to_pylist())


def drop(table: pa.Table, stage: str, reasons: Any, values: Any = None, details: Any = None) -> pa.Table:
    """Rows of DROPPED from documents and, for each, a reason code and the value and detail that decided."""
    rows = table.num_rows
    columns = {name: table[name] for name in DOCUMENTS.names if name in table.column_names}
    columns |= {
        "stage": pa.array([stage] * rows, pa.string()),
        "reason": pa.array(reasons, pa.string()),
        "value": pa.array([None] * rows if values is None else values, pa.float64()),
        "detail": pa.array([None] * rows if details is None else details, pa.large_string()),
    }
    return conform(columns, rows, DROPPED)


def conform(columns: Mapping[str, Any], rows: int, schema: pa.Schema) -> pa.Table:
    """A table of a schema from the columns that there are; the others are null."""
    arrays = [columns[each.name] if each.name in columns else pa.nulls(rows, each.type) for each in schema]
    return pa.table(arrays, schema=schema)


def replace_columns(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    """A table with some of its columns replaced, cast to the types that they have there."""
    for name, values in columns.items():
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.field(index), pa.array(values, table.field(index).type))
    return table


def split_by_reason(
    table: pa.Table, stage: str, reasons: Sequence[str | None], values: Sequence[float | None], details: Any = None
) -> tuple[pa.Table, pa.Table]:
    """Kept and dropped rows of a table, given for each row a reason to drop it or None."""
    passed = pa.array([reason is None for reason in reasons], pa.bool_())
    chosen = [index for index, reason in enumerate(reasons) if reason is not None]
    dropped = drop(
        table.take(pa.array(chosen, pa.int64())),
        stage,
        [reasons[index] for index in chosen],
        [values[index] for index in chosen],
        None if details is None else [details[index] for index in chosen],
    )
    return table.filter(passed), dropped


def shard_content(record: ShardRecord) -> list[Any]:
    """What a shard hands on, whatever made it: the material of the stage's digest."""
    handed_on = {"kept": record.kept, **record.others}
    return [record.source, {name: each.sha256 for name, each in handed_on.items() if name != "quarantined"}]
