"""Profile: a dataset in numbers, added up shard by shard from its ledger: fates, languages, domains, histograms.

A row of the profile counts documents under one key: the language and fate of documents, a registered domain, or a bin
of a signal. Rows of all shards are added up by `merged`. Domains are the exception to exactness: each shard hands on
its `max_domains` most frequent ones of each language.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from pydantic import Field

from infra.manifest import StageManifest
from infra.settings import Settings
from infra.store import Store
from tasks.ledger import FATE
from tasks.stage import Split, Stage, StageRunner

pc: Any = pyarrow.compute  # its functions are made when it is imported: types know few of them

PROFILE_SCHEMA = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("language", pa.string()),
        pa.field("key", pa.string(), nullable=False),
        pa.field("bin", pa.float64()),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("words", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
    ]
)
"""`table` is fate (key: reason, or split of what is kept), source, domain, or signal (key: name; bin: lower edge)."""
PROFILE = Stage("profile", 2, PROFILE_SCHEMA, libraries=("pyarrow", "numpy"))
_KEYS = ["table", "language", "key", "bin", "kept"]
_COUNTS = ["documents", "words", "tokens"]
_COUNT_EDGES = np.round(2 ** np.arange(4, 40.25, 0.25))
SIGNAL_EDGES = np.concatenate([[-np.inf], np.arange(100) / 100, np.arange(1, 16), _COUNT_EDGES])
"""Edges of the bins of every histogram: hundredths up to 1, ones up to 16, quarter powers of two beyond. Published
thresholds of shares are hundredths, so that no bin has documents on both sides of one."""


class ProfileSettings(Settings):
    """What a dataset's profile holds."""

    max_domains: int = Field(default=500, ge=0)
    """Most frequent domains of each language that a shard hands on."""


def profile(runner: StageRunner, ledger: StageManifest, settings: ProfileSettings) -> pa.Table:
    """Profile of a dataset from its ledger: rows of PROFILE_SCHEMA over all shards."""
    manifest = runner.run(PROFILE, profile_shard, ledger.kept_paths, settings, {ledger.stage: ledger.digest})
    return merged(runner.store.read_table(path) for path in manifest.kept_paths)


def profile_shard(store: Store, path: str, settings: ProfileSettings) -> Iterator[Split]:
    """The shard function: one pass over a shard of the ledger."""
    source = store.local_path(path) if store.is_local else pa.BufferReader(store.read_bytes(path))
    yield Split(count(pq.read_table(source), settings))


def count(ledger: pa.Table, settings: ProfileSettings) -> pa.Table:
    """Profile of one shard of the ledger."""
    rows = ledger.num_rows
    kept = ledger["stage"].is_null()
    words = ledger["words"].cast(pa.int64()).fill_null(0)
    tokens = pc.multiply(ledger["tokens"].fill_null(0), ledger["copies"].fill_null(0))
    amounts = {"kept": kept, "documents": pa.array(np.ones(rows, np.int64)), "words": words, "tokens": tokens}
    fate = pc.coalesce(
        pc.binary_join_element_wise(ledger["stage"], ledger["reason"], "/"), ledger["split"], pa.scalar("not kept")
    )
    tables = [
        _grouped("fate", ledger["language"], fate, None, amounts),
        _grouped("source", ledger["language"], ledger["source"], None, amounts),
        _most(_grouped("domain", ledger["language"], ledger["domain"].fill_null(""), None, amounts), settings),
    ]
    fixed = {field.name for field in FATE} - {"language_score", "quality", "tokens", "text_bytes"}
    for field in ledger.schema:
        if field.name not in fixed and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)):
            name = pa.array([field.name] * rows, pa.string())
            bins = histogram_bins(ledger[field.name])
            present = ledger[field.name].is_valid()
            tables.append(_grouped("signal", ledger["language"], name, bins, amounts, present))
    return merged(tables)


def histogram_bins(values: pa.ChunkedArray) -> pa.Array:
    """Lower edge of the bin of each value."""
    numbers = values.cast(pa.float64()).combine_chunks().to_numpy(zero_copy_only=False)
    places = np.searchsorted(SIGNAL_EDGES, np.nan_to_num(numbers, posinf=np.inf, neginf=-np.inf), side="right") - 1
    return pa.array(SIGNAL_EDGES[np.maximum(places, 0)])


def _grouped(
    table: str,
    language: pa.ChunkedArray,
    key: pa.ChunkedArray | pa.Array,
    bins: pa.Array | None,
    amounts: dict[str, pa.ChunkedArray | pa.Array],
    chosen: pa.ChunkedArray | None = None,
) -> pa.Table:
    rows = len(key)
    columns = {
        "table": pa.array([table] * rows, pa.string()),
        "language": language,
        "key": key,
        "bin": pa.nulls(rows, pa.float64()) if bins is None else bins,
        **amounts,
    }
    every = pa.table(columns)
    return merged([every if chosen is None else every.filter(chosen)])


def _most(domains: pa.Table, settings: ProfileSettings) -> pa.Table:
    """The most frequent domains of each language, kept or not."""
    totals = domains.group_by(["language", "key"], use_threads=False).aggregate([("documents", "sum")])
    totals = totals.sort_by([("language", "ascending"), ("documents_sum", "descending"), ("key", "ascending")])
    languages = totals["language"].fill_null("").to_pylist()
    rank, chosen = 0, set()
    for index, (language, key) in enumerate(zip(languages, totals["key"].to_pylist(), strict=True)):
        rank = rank + 1 if index and languages[index - 1] == language else 0
        if rank < settings.max_domains:
            chosen.add((language, key))
    pairs = zip(domains["language"].fill_null("").to_pylist(), domains["key"].to_pylist(), strict=True)
    return domains.filter(pa.array([pair in chosen for pair in pairs], pa.bool_()))


def merged(tables: Iterable[pa.Table]) -> pa.Table:
    """Profiles added up, in a stated order."""
    every = pa.concat_tables([PROFILE_SCHEMA.empty_table(), *tables], promote_options="permissive")
    sums = every.group_by(_KEYS, use_threads=False).aggregate([(name, "sum") for name in _COUNTS])
    sums = sums.rename_columns({f"{name}_sum": name for name in _COUNTS}).select(PROFILE_SCHEMA.names)
    return sums.cast(PROFILE_SCHEMA).sort_by([(name, "ascending") for name in _KEYS])
