"""Ledger: one row for each document, with every signal that was measured and every decision that was taken.

The ledger is Parquet, a file for each shard, sorted by place. It holds no text. A document that no stage dropped has
a null `stage`; its `split` and `tokens` say what became of it. Because verdicts need signals alone, `tasks.preview`
tells what other thresholds would keep without reading a text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import tldextract

from infra.manifest import StageManifest
from infra.schema import DOCUMENTS, DROPPED, PROVENANCE
from infra.settings import Settings
from infra.store import Store
from tasks.signals import SignalSettings, signals_schema
from tasks.stage import Split, Stage, StageRunner, conform
from tasks.tokens.mix import COPY_MARK

pc: Any = pyarrow.compute  # its functions are made when it is imported: types know few of them

FATE = [
    pa.field("domain", pa.string()),
    *[field for field in DOCUMENTS if field.name in ("language", "language_score", "quality", "bucket")],
    *[field.with_nullable(True) for field in DROPPED if field.name in ("reason", "value", "detail")],
    pa.field("stage", pa.string()),
    pa.field("split", pa.string()),
    pa.field("copies", pa.int64()),
    pa.field("tokens", pa.int64()),
    pa.field("text_bytes", pa.int64()),
]
"""`domain` is the registered domain of the URL; `stage` and `reason` say who dropped the document and why, `value` and
`detail` what decided; of a document that stays, `split` is train or heldout, `copies` how often the mixture holds it,
`tokens` and `text_bytes` (of one copy) how long it is."""
_DROPPED_COLUMNS = [field.name for field in DROPPED if field.name != "text"]
_KEPT_COLUMNS = [field.name for field in DOCUMENTS if field.name != "text"]


class LedgerSettings(Settings):
    """What decides the ledger's columns."""

    signals: SignalSettings


def ledger_schema(settings: LedgerSettings) -> pa.Schema:
    """Provenance, fate, and a column for each signal."""
    known = {field.name for field in [*PROVENANCE, *FATE]}
    measured = [field.with_nullable(True) for field in signals_schema(settings.signals) if field.name not in known]
    return pa.schema([*PROVENANCE, *FATE, *measured])


LEDGER = Stage("ledger", 1, ledger_schema, libraries=("pyarrow", "tldextract"), parquet=True)


def ledger(
    runner: StageRunner, passed: Sequence[StageManifest], measured: StageManifest, settings: SignalSettings
) -> StageManifest:
    """Write the ledger of a dataset from the stages that its documents passed, fetch first and tokenization last.

    `measured` is the signals stage among them.
    """
    parts = [shard.kept.path.removesuffix(".arrow") for shard in passed[0].shards]
    function = LedgerShard(tuple(each.folder for each in passed), f"{measured.folder}/signals")
    parents = {each.stage: each.digest + each.fingerprint for each in passed}
    return runner.run(LEDGER, function, parts, LedgerSettings(signals=settings), parents)


@dataclass(frozen=True)
class LedgerShard:
    """The shard function: joins what every stage wrote about one shard."""

    folders: tuple[str, ...]
    """Stages in order: their dropped documents, the tokens of the last, the kept documents of the one before."""
    signals: str

    def __call__(self, store: Store, part: str, settings: LedgerSettings) -> Iterator[Split]:
        """Yield the rows of one shard."""
        gone = [store.read_table(f"{folder}/dropped/{part}.arrow", _DROPPED_COLUMNS) for folder in self.folders]
        stays = store.read_table(f"{self.folders[-2]}/{part}.arrow", _KEPT_COLUMNS)
        tokens = _tokens(store, self.folders[-1], part)
        schema = ledger_schema(settings)
        rows = _originals(pa.concat_tables([stays, *gone], promote_options="default"))
        rows = rows.sort_by([("file", "ascending"), ("offset", "ascending"), ("id", "ascending")])
        columns: dict[str, Any] = {name: rows[name] for name in rows.column_names if name in schema.names}
        columns["domain"] = pa.array(map(registered_domain, rows["url"].to_pylist()), pa.string())
        for joined in (tokens, store.read_table(f"{self.signals}/{part}.arrow")):
            columns |= _joined(rows["id"], joined, schema.names)
        yield Split(conform(columns, rows.num_rows, schema))


def _originals(documents: pa.Table) -> pa.Table:
    """Documents without the further copies that a mixture makes of some."""
    return documents.filter(pc.invert(pc.match_substring(documents["id"], COPY_MARK)))


def _tokens(store: Store, folder: str, part: str) -> pa.Table:
    """Split, copies, tokens and bytes by document id."""
    tables = []
    for split, subfolder in (("train", ""), ("heldout", "heldout/")):
        reader = store.open_table(f"{folder}/{subfolder}{part}.arrow", ["doc_id", "tokens", "text_bytes"])
        table = reader.read_all()
        lengths = pc.list_value_length(table["tokens"])
        ids = pc.list_element(pc.split_pattern(table["doc_id"], COPY_MARK), 0)
        splits = pa.array([split] * table.num_rows, pa.string())
        tables.append(pa.table([ids, splits, lengths, table["text_bytes"]], ["id", "split", "tokens", "text_bytes"]))
    grouped = pa.concat_tables(tables).group_by(["id", "split"])
    return grouped.aggregate([("tokens", "min"), ("text_bytes", "min"), ("id", "count")]).rename_columns(
        {"tokens_min": "tokens", "text_bytes_min": "text_bytes", "id_count": "copies"}
    )


def _joined(ids: pa.ChunkedArray, table: pa.Table, names: Sequence[str]) -> dict[str, pa.ChunkedArray]:
    """Columns of a table in the order of some ids, null for ids that it lacks."""
    places = pc.index_in(ids, table["id"].combine_chunks())
    return {name: table[name].take(places) for name in table.column_names if name in names and name != "id"}


@lru_cache(maxsize=1)
def _suffixes() -> tldextract.TLDExtract:
    """The public suffix list that the package carries; nothing is fetched or cached on disk."""
    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


def registered_domain(url: str | None) -> str | None:
    """The registered domain of a URL, its host where it has none, or None."""
    try:
        host = urlsplit(url or "").hostname
    except ValueError:
        return None
    if not host:
        return None
    return _domain(host)


@lru_cache(maxsize=1 << 14)
def _domain(host: str) -> str:
    found = _suffixes()(host)
    return found.top_domain_under_public_suffix or host


def read_ledger(store: Store, manifest: StageManifest, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The ledger, shard by shard; only some columns if they are given."""
    for path in manifest.kept_paths:
        if store.is_local:
            yield pq.read_table(store.local_path(path), columns=columns)
        else:
            yield pq.read_table(pa.BufferReader(store.read_bytes(path)), columns=columns)
