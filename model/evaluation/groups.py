"""Which held-out documents have something in common: their source, their language, the host of their address.

Sources and languages stand in the token shards. Addresses do not: they come from the dataset's ledger.
"""

import logging
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from infra.manifest import DatasetManifest, StageManifest, stage_folder
from infra.store import Store

if TYPE_CHECKING:
    from model.evaluation.heldout import HeldOut

logger = logging.getLogger(__name__)
pc: Any = pyarrow.compute  # its functions are made when it is imported: types know few of them

Integers = npt.NDArray[np.signedinteger[Any]]
Group = Literal["source", "language", "host"]

ALL = "all"
UNKNOWN = "und"
"""Documents without language, by its code of ISO 639-2, and documents without address."""
MOST_HOSTS = 20
"""Hosts that are told apart: those with most tokens."""
_LEDGER = "ledger"
"""Stage of a dataset that knows the address of each document."""


def members(
    store: Store, dataset: DatasetManifest, held_out: "HeldOut", groups: Sequence[Group]
) -> dict[str, Integers]:
    """The documents of each group, all first, then by name."""
    found: dict[str, Integers] = {ALL: np.arange(held_out.count)}
    for group in groups:
        if group == "host":
            names = _hosts(store, dataset, held_out)
            by_name = with_most_tokens(rows_by_name(names), held_out.documents.lengths) if names is not None else {}
        else:
            by_name = rows_by_name(held_out.documents.column(group)[: held_out.count])
        found |= {f"{group}={name}": by_name[name] for name in sorted(by_name)}
    return found


def rows_by_name(names: pa.ChunkedArray) -> dict[str, Integers]:
    """Rows of each name."""
    known = pc.fill_null(names, UNKNOWN).combine_chunks().dictionary_encode()
    codes = known.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(known.dictionary)))
    return dict(zip(known.dictionary.to_pylist(), np.split(order, ends[:-1]), strict=True))


def with_most_tokens(by_name: dict[str, Integers], lengths: Integers) -> dict[str, Integers]:
    """The hosts with most tokens, of those that are known."""
    sizes = {name: int(lengths[rows].sum()) for name, rows in by_name.items() if name != UNKNOWN}
    return {name: by_name[name] for name in sorted(sizes, key=lambda name: (-sizes[name], name))[:MOST_HOSTS]}


def _hosts(store: Store, dataset: DatasetManifest, held_out: "HeldOut") -> pa.ChunkedArray | None:
    """The host of each document by the dataset's ledger; None, with a warning, where that is gone."""
    ledger = _ledger_files(store, dataset)
    needed = {PurePosixPath(held_out.documents.shard(number).path).stem for number in range(held_out.count)}
    if missing := sorted(needed - ledger.keys()):
        logger.warning(
            "dataset %s/%s has no ledger of %s: held-out text is not told apart by host",
            *(dataset.name, dataset.version, missing[0]),
        )
        return None
    ids = held_out.documents.column("doc_id")[: held_out.count]
    among = pc.is_in(pc.field("id"), ids.combine_chunks())
    parts = [pq.read_table(store.local_path(ledger[name]), columns=["id", "url"], filters=among) for name in needed]
    known = pa.concat_tables(parts)
    urls = known["url"].take(pc.index_in(ids, known["id"].combine_chunks()))
    return pa.chunked_array([pa.array(map(host_of, urls.to_pylist()), pa.string())])


def _ledger_files(store: Store, dataset: DatasetManifest) -> dict[str, str]:
    """Files of the ledger that are there, by the name of the shard, which token shards share."""
    if _LEDGER not in dataset.stages:
        return {}
    manifest = f"{stage_folder(_LEDGER, dataset.stages[_LEDGER])}/manifest.json"
    if not store.exists(manifest):
        return {}
    paths = StageManifest.load(store, manifest).kept_paths
    return {PurePosixPath(path).stem: path for path in paths if store.exists(path)}


def host_of(url: str | None) -> str | None:
    """The host that a URL names, or None."""
    try:
        return urlsplit(url or "").hostname or None
    except ValueError:
        return None
