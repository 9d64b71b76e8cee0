"""A ledger, counted: what change reports compare. No text is read, and the counts of a shard are small.

Rows count documents under a key: a language, a source, a registered domain, a bucket, a reason, an earlier dataset
that knew them, or a cell (`tasks.drift`) of a signal. Rows of all shards are added up, in order, so that the result
does not depend on workers. Domains are the exception to exactness, as in `tasks.profile`: each shard hands on its
`max_hosts` most frequent ones.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from pydantic import Field

from infra.change_report import Counts, Population
from infra.manifest import DatasetManifest, StageManifest
from infra.settings import Settings
from infra.store import Store
from tasks.drift import Distribution, cells_of
from tasks.duplicates.dedup import DEDUP
from tasks.ledger import FATE, LEDGER
from tasks.pipeline import manifest_path
from tasks.stage import Split, Stage, StageRunner

pc: Any = pyarrow.compute  # its functions are made when it is imported: types know few of them

COUNTS = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("cell", pa.int64()),
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("added", pa.int64(), nullable=False),
        pa.field("known", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("total", pa.float64(), nullable=False),
        pa.field("total_added", pa.float64(), nullable=False),
    ]
)
"""`table` is language, source, domain, bucket, reason (of what was dropped and not known), known (key: the earlier
dataset) or signal (key: its name; `cell` null where there is no finite number). Signals are counted among documents
that were measured; `total` sums the signal over all of them, `total_added` over those in the dataset."""
LEDGER_COUNTS = Stage("ledger_counts", 1, COUNTS, libraries=("pyarrow", "numpy"))
OF_KEPT = ("quality", "copies", "tokens", "text_bytes")
"""Signals that documents have only once they are kept."""
KEPT = "kept"
_KEYS = ["table", "key", "cell"]
_SUMS = [field.name for field in COUNTS if field.name not in _KEYS]
_NO_SIGNALS = {"offset", *(field.name for field in FATE)} - {*OF_KEPT, "language_score"}


class CountSettings(Settings):
    """How a ledger is counted."""

    max_hosts: int = Field(default=500, ge=0)
    """Most frequent registered domains that a shard hands on."""


def ledger_counts(
    store: Store, ledger: StageManifest, settings: CountSettings, runner: StageRunner | None = None
) -> pa.Table:
    """Rows of COUNTS over a whole ledger: by a cluster, which keeps them for next time, or here, shard by shard."""
    if runner is None:
        return merged(count(_read(store, path), settings) for path in ledger.kept_paths)
    parents = {ledger.stage: ledger.digest}
    manifest = runner.run(LEDGER_COUNTS, count_shard, ledger.kept_paths, settings, parents)
    return merged(store.read_table(path) for path in manifest.kept_paths)


def count_shard(store: Store, path: str, settings: CountSettings) -> Iterator[Split]:
    """The shard function: one pass over a shard of the ledger."""
    yield Split(count(_read(store, path), settings))


def _read(store: Store, path: str) -> pa.Table:
    source = store.local_path(path) if store.is_local else pa.BufferReader(store.read_bytes(path))
    columns = [field.name for field in pq.read_schema(source) if not _is_long_text(field)]
    return pq.read_table(source, columns=columns)


def _is_long_text(field: pa.Field) -> bool:
    """Addresses and paths, which nothing here counts; `detail` names the earlier dataset that knew a document."""
    return pa.types.is_large_string(field.type) and field.name != "detail"


def count(ledger: pa.Table, settings: CountSettings) -> pa.Table:
    """The counts of one shard of a ledger."""
    rows = ledger.num_rows
    added = ledger["stage"].is_null()
    # A survivor of this build is named by its id alone, one of an earlier dataset by NAME/VERSION:id.
    known = pc.and_(
        pc.equal(ledger["stage"], DEDUP.name).fill_null(False),
        pc.match_substring(ledger["detail"], ":").fill_null(False),
    )
    tokens = pc.multiply(ledger["tokens"].fill_null(0), ledger["copies"].fill_null(0))
    amounts = {"documents": pa.array(np.ones(rows, np.int64)), "added": added, "known": known, "tokens": tokens}
    reasons = pc.binary_join_element_wise(ledger["stage"], ledger["reason"].cast(pa.string()), "/")
    other = pc.and_(pc.invert(added), pc.invert(known))
    datasets = pc.list_element(pc.split_pattern(ledger["detail"].filter(known), ":"), 0)
    domains = _grouped("domain", ledger["domain"], amounts)
    most = domains.sort_by([("documents", "descending"), ("key", "ascending")]).slice(0, settings.max_hosts)
    tables = [
        *(_grouped(name, ledger[name], amounts) for name in ("language", "source", "bucket")),
        _grouped("reason", reasons.filter(other), _filtered(amounts, other)),
        _grouped("known", datasets.cast(pa.string()), _filtered(amounts, known)),
        most,
    ]
    measured = ledger["language"].is_valid()
    return merged([*tables, *_signals(ledger.filter(measured), added.filter(measured).to_numpy())])


def _filtered(amounts: Mapping[str, Any], mask: Any) -> dict[str, Any]:
    return {name: each.filter(mask) for name, each in amounts.items()}


def _grouped(table: str, key: Any, amounts: Mapping[str, Any]) -> pa.Table:
    rows = len(key)
    columns = {name: _cast(each) for name, each in amounts.items()}
    columns |= {name: pa.array(np.zeros(rows)) for name in ("total", "total_added")}
    columns |= {"table": pa.array([table] * rows, pa.string()), "key": key, "cell": pa.nulls(rows, pa.int64())}
    return merged([pa.table([columns[field.name] for field in COUNTS], schema=COUNTS)])


def _cast(values: Any) -> Any:
    return values.cast(pa.int64())


def _signals(ledger: pa.Table, added: np.ndarray) -> Iterator[pa.Table]:
    """The rows of every signal."""
    for field in ledger.schema:
        if field.name in _NO_SIGNALS or not _is_number(field.type):
            continue
        column = ledger[field.name]
        column = column.cast(pa.int8()) if pa.types.is_boolean(field.type) else column
        numbers = column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()
        finite = np.isfinite(numbers)
        cells, places = np.unique(cells_of(numbers[finite]), return_inverse=True)
        weights = added[finite].astype(np.float64)
        gone = (np.sum(~finite), np.sum(~finite & added))
        columns = {
            "cell": pa.array([*cells.tolist(), None], pa.int64()),
            "documents": np.append(np.bincount(places, minlength=len(cells)), gone[0]),
            # Sums of whole numbers in float64 are exact up to 2^53.
            "added": np.append(np.bincount(places, weights, len(cells)), gone[1]).astype(np.int64),
            "total": np.append(np.bincount(places, numbers[finite], len(cells)), 0.0),
            "total_added": np.append(np.bincount(places, numbers[finite] * weights, len(cells)), 0.0),
        }
        rows = len(cells) + 1
        columns |= {"known": np.zeros(rows, np.int64), "tokens": np.zeros(rows, np.int64)}
        columns |= {"table": ["signal"] * rows, "key": [field.name] * rows}
        yield pa.table([pa.array(columns[each.name], each.type) for each in COUNTS], schema=COUNTS)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def merged(tables: Iterable[pa.Table]) -> pa.Table:
    """Counts added up, in a stated order."""
    every = pa.concat_tables([COUNTS.empty_table(), *tables])
    sums = every.group_by(_KEYS, use_threads=False).aggregate([(name, "sum") for name in _SUMS])
    sums = sums.rename_columns({f"{name}_sum": name for name in _SUMS}).select(COUNTS.names)
    return sums.cast(COUNTS).sort_by([(name, "ascending") for name in _KEYS])


class CountedVersion(NamedTuple):
    """One dataset version, counted."""

    dataset: DatasetManifest
    counts: pa.Table

    def groups(self, table: str) -> dict[str, Counts]:
        """The counts of a table by key."""
        rows = self.counts.filter(pc.equal(self.counts["table"], table)).to_pylist()
        return {row["key"] or "": Counts(**{name: row[name] for name in Counts.model_fields}) for row in rows}

    def total(self) -> Counts:
        """All documents; every one has a source."""
        groups = self.groups("source").values()
        return Counts(**{name: sum(getattr(each, name) for each in groups) for name in Counts.model_fields})

    def signals(self, population: Population) -> dict[str, Distribution]:
        """The distribution of each signal that documents of a population have."""
        rows = self.counts.filter(pc.equal(self.counts["table"], "signal"))
        count, total = ("documents", "total") if population == "measured" else ("added", "total_added")
        found = {}
        for name in rows["key"].unique().to_pylist():
            mine = rows.filter(pc.equal(rows["key"], name))
            counts, cells = mine[count].to_numpy(), mine["cell"].is_valid().to_numpy()
            chosen = cells & (counts > 0)
            if chosen.any() and not (population == "measured" and name in OF_KEPT):
                numbers = mine["cell"].fill_null(0).to_numpy()[chosen]
                missing = int(counts[~cells].sum())
                found[name] = Distribution(numbers, counts[chosen], mine[total].to_numpy()[chosen], missing)
        return found

    @property
    def measured(self) -> dict[str, int]:
        """Measured documents by language."""
        return {name: each.documents for name, each in self.groups("language").items() if name}

    def added(self, table: str) -> dict[str, int]:
        """Documents in the dataset by key."""
        return {name: each.added for name, each in self.groups(table).items() if each.added}

    @property
    def dropped(self) -> dict[str, int]:
        """Documents by the reason that they were dropped for, STAGE/REASON; known ones are not among them."""
        return {name: each.documents for name, each in self.groups("reason").items()}

    @property
    def fates(self) -> dict[str, int]:
        """All documents by what became of them: a reason, or kept. What is known already had passed the rules."""
        total = self.total()
        return {KEPT: total.added + total.known, **self.dropped}


def counted(store: Store, dataset: DatasetManifest, runner: StageRunner | None = None) -> CountedVersion:
    """Count the ledger of a dataset; BadInput if it has none."""
    ledger = StageManifest.load(store, manifest_path(dataset, LEDGER.name))
    return CountedVersion(dataset, ledger_counts(store, ledger, CountSettings(), runner))
