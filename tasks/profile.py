"""Profile: a dataset in numbers, added up shard by shard from its ledger: fates, languages, domains, histograms.

A row of the profile counts documents under one key: the language and fate of documents, a registered domain, or a bin
of a signal. Rows of all shards are added up by `merged`. Domains are the exception to exactness: each shard hands on
its `max_domains` most frequent ones of each language.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

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
        _grouped("fate", ledger["language"], fate, amounts),
        _grouped("source", ledger["language"], ledger["source"], amounts),
        _most(_grouped("domain", ledger["language"], ledger["domain"].fill_null(""), amounts), settings),
    ]
    fixed = {field.name for field in FATE} - {"language_score", "quality", "tokens", "text_bytes"}
    signals = [
        field.name
        for field in ledger.schema
        if field.name not in fixed and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type))
    ]
    return merged([*tables, *_histograms(ledger, signals, amounts)])


def _histograms(ledger: pa.Table, signals: Sequence[str], amounts: Mapping[str, Any]) -> Iterator[pa.Table]:
    """The rows of every signal: what the documents of one language, fate and bin amount to."""
    codes = cast("pa.DictionaryArray", ledger["language"].fill_null("").combine_chunks().dictionary_encode())
    names = [name or None for name in codes.dictionary.to_pylist()]
    kept = amounts["kept"].to_numpy().astype(np.int64)
    groups = (codes.indices.to_numpy().astype(np.int64) * 2 + kept) * len(SIGNAL_EDGES)
    weights = {name: amounts[name].to_numpy() for name in _COUNTS}
    for signal in signals:
        present = ledger[signal].is_valid().to_numpy()
        cells, rows = np.unique((groups + _places(ledger[signal]))[present], return_inverse=True)
        columns = {
            "table": ["signal"] * len(cells),
            "language": [names[each] for each in cells // len(SIGNAL_EDGES) // 2],
            "key": [signal] * len(cells),
            "bin": SIGNAL_EDGES[cells % len(SIGNAL_EDGES)],
            "kept": cells // len(SIGNAL_EDGES) % 2 == 1,
            # Sums of whole numbers in float64 are exact up to 2^53.
            **{name: np.bincount(rows, each[present], len(cells)).astype(np.int64) for name, each in weights.items()},
        }
        yield pa.table([pa.array(columns[each.name], each.type) for each in PROFILE_SCHEMA], schema=PROFILE_SCHEMA)


def _places(values: pa.ChunkedArray) -> np.ndarray:
    """Number of the bin of each value."""
    numbers = values.cast(pa.float64()).combine_chunks().to_numpy(zero_copy_only=False)
    places = np.searchsorted(SIGNAL_EDGES, np.nan_to_num(numbers, posinf=np.inf, neginf=-np.inf), side="right") - 1
    return np.maximum(places, 0)


def _grouped(
    table: str, language: pa.ChunkedArray, key: pa.ChunkedArray | pa.Array, amounts: Mapping[str, Any]
) -> pa.Table:
    rows = len(key)
    fixed = {"table": pa.array([table] * rows, pa.string()), "bin": pa.nulls(rows, pa.float64())}
    return merged([pa.table({**fixed, "language": language, "key": key, **amounts})])


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
