"""Dedup: one survivor of each cluster of near-duplicates, by MinHash and locality-sensitive hashing.

Three steps, each a stage of its own: *signatures* of every shard (datasketch's MinHash over word 5-grams), *clusters*
over the whole dataset (documents that share all rows of any band, and whoever they share them with in turn), and the
removal of all but one of each cluster. FineWeb's numbers: 14 bands of 8 rows catch 92% of pairs at Jaccard 0.8.

The survivor is the longest document; equal lengths are settled by the smallest id. Neither depends on the order or
number of shards. Sources: Broder 1997; Leskovec et al., "Mining of Massive Datasets", chapter 3.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from datasketch import MinHash
from pydantic import Field
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from infra.manifest import StageManifest
from infra.settings import Settings
from infra.store import Store
from tasks.stage import PerBatch, Split, Stage, StageRunner, drop, texts

SIGNATURES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("words", pa.int64(), nullable=False),
        pa.field("signature", pa.large_list(pa.uint32()), nullable=False),
    ]
)
DUPLICATES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("survivor", pa.string(), nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
        pa.field("cluster_size", pa.int64(), nullable=False),
    ]
)
"""A document to remove, who stays in its place, the share of their signatures that agrees (which estimates their
Jaccard similarity), and how many documents their cluster has."""

_LIBRARIES = ("pyarrow", "datasketch", "numpy", "scipy", "xxhash")
SIGNATURES = Stage("signatures", 1, SIGNATURES_SCHEMA, libraries=_LIBRARIES)
CLUSTERS = Stage("clusters", 1, DUPLICATES_SCHEMA, libraries=_LIBRARIES, private=False)
DEDUP = Stage("dedup", 1)
_WORD = re.compile(r"\w+")
_SHINGLES_AT_ONCE = 1 << 13


class DedupSettings(Settings):
    """What counts as a near-duplicate."""

    ngram: int = Field(default=5, ge=1, le=50)
    """Words in a shingle."""
    bands: int = Field(default=14, ge=1, le=1000)
    """Bands of the signature; agreeing in one of them makes two documents duplicates."""
    rows: int = Field(default=8, ge=1, le=100)
    """Hash values in a band; more rows ask for more similarity."""
    seed: int = Field(default=1, ge=0, lt=1 << 32)
    """Seed of the permutations, as datasketch uses it."""


def dedup(
    runner: StageRunner, parent: StageManifest, settings: DedupSettings
) -> tuple[StageManifest, StageManifest, StageManifest]:
    """Remove near-duplicates from all shards of a stage. Dropped rows name the survivor as their detail.

    Returns the manifests of signatures, clusters and the documents that stay.
    """
    parents = {parent.stage: parent.digest}
    signed = runner.run(SIGNATURES, PerBatch(signatures), parent.kept_paths, settings, parents)
    every = ClusterShards(tuple(signed.kept_paths))
    clusters = runner.run(CLUSTERS, every, ["all shards"], settings, {"signatures": signed.digest})
    removal = PerBatch(RemoveDuplicates(runner.store, clusters.kept_paths[0]))
    parents |= {"clusters": clusters.digest}
    return signed, clusters, runner.run(DEDUP, removal, parent.kept_paths, settings, parents)


def signatures(table: pa.Table, settings: DedupSettings) -> Split:
    """The signature of each document: large_list<uint32> of bands x rows values."""
    rows = [sign(text, settings) for text in texts(table)]
    columns = [
        table["id"],
        pa.array([words for words, _ in rows], pa.int64()),
        pa.array([values for _, values in rows], SIGNATURES_SCHEMA.field("signature").type),
    ]
    return Split(pa.table(columns, schema=SIGNATURES_SCHEMA))


def sign(text: str, settings: DedupSettings) -> tuple[int, np.ndarray]:
    """Number of words and the MinHash values of a text, equal to datasketch's for the same seed and shingles."""
    words = _WORD.findall(text.lower())
    minhash = _empty_minhash(settings.bands * settings.rows, settings.seed).copy()
    every = shingles(words, settings.ngram)
    for start in range(0, len(every), _SHINGLES_AT_ONCE):  # one row of values for each shingle: bound the matrix
        minhash.update_batch(every[start : start + _SHINGLES_AT_ONCE])
    return len(words), minhash.hashvalues


def shingles(words: list[str], ngram: int) -> list[bytes]:
    """Distinct word n-grams in UTF-8, joined by spaces; a text shorter than n words is one shingle."""
    if len(words) <= ngram:
        return [" ".join(words).encode()]
    return sorted({" ".join(words[start : start + ngram]).encode() for start in range(len(words) - ngram + 1)})


@lru_cache(maxsize=4)
def _empty_minhash(permutations: int, seed: int) -> MinHash:
    return MinHash(permutations, seed=seed, hashfunc=xxhash.xxh32_intdigest)


@dataclass(frozen=True)
class ClusterShards:
    """The shard function of the clusters stage: its one shard reads the signatures of all."""

    paths: tuple[str, ...]

    def __call__(self, store: Store, _: str, settings: DedupSettings) -> Iterator[Split]:
        """Yield the table of documents to remove."""
        tables = [store.read_table(path) for path in self.paths]
        yield Split(duplicates(pa.concat_tables(tables), settings))


def duplicates(signed: pa.Table, settings: DedupSettings) -> pa.Table:
    """Rows of DUPLICATES for every document that is not its cluster's survivor, ordered by id."""
    signed = signed.sort_by("id").combine_chunks()
    count, permutations = signed.num_rows, settings.bands * settings.rows
    if count == 0:
        return DUPLICATES_SCHEMA.empty_table()
    matrix = signed["signature"].combine_chunks().flatten().to_numpy().reshape(count, permutations)
    cluster = _components(matrix, settings)
    words = signed["words"].to_numpy()
    order = np.lexsort((np.arange(count), -words, cluster))  # by cluster, longest first, then smallest id
    first = np.unique(cluster[order], return_index=True)[1]
    survivor = order[first][cluster]
    losers = np.flatnonzero(survivor != np.arange(count))
    similarity = (matrix[losers] == matrix[survivor[losers]]).mean(axis=1) if len(losers) else np.zeros(0)
    sizes = np.bincount(cluster)[cluster[losers]]
    ids = signed["id"].combine_chunks()
    columns = [ids.take(pa.array(losers)), ids.take(pa.array(survivor[losers])), similarity, sizes]
    return pa.table([*columns[:2], pa.array(similarity), pa.array(sizes)], schema=DUPLICATES_SCHEMA)


def _components(matrix: np.ndarray, settings: DedupSettings) -> np.ndarray:
    """Cluster number of each row: rows that agree in all values of some band are connected."""
    count = len(matrix)
    left, right = [], []
    for band in range(settings.bands):
        part = np.ascontiguousarray(matrix[:, band * settings.rows : (band + 1) * settings.rows])
        keys = part.view(np.dtype((np.void, part.dtype.itemsize * settings.rows))).ravel()
        _, group = np.unique(keys, return_inverse=True)
        order = np.argsort(group, kind="stable")
        same = np.flatnonzero(group[order][1:] == group[order][:-1])
        left.append(order[same])
        right.append(order[same + 1])
    rows, columns = np.concatenate(left), np.concatenate(right)
    graph = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


@dataclass(frozen=True)
class RemoveDuplicates:
    """The table function of the dedup stage, with the path of the duplicates that it looks up."""

    store: Store
    path: str

    def __call__(self, table: pa.Table, _: DedupSettings) -> Split:
        """Split a batch into survivors and near_duplicate rows (value: similarity; detail: the survivor's id)."""
        removed = _removed(self.store.root, self.path)
        ids: list[Any] = table["id"].to_pylist()
        matches = [removed.get(each) for each in ids]
        lost = [match for match in matches if match is not None]
        mask = pa.array([match is None for match in matches], pa.bool_())
        gone = table.filter(pa.array([match is not None for match in matches], pa.bool_()))
        dropped = drop(gone, DEDUP.name, ["near_duplicate"] * len(lost), [m[1] for m in lost], [m[0] for m in lost])
        return Split(table.filter(mask), dropped)


@lru_cache(maxsize=1)
def _removed(root: str, path: str) -> Mapping[str, tuple[str, float]]:
    """Survivor and similarity by removed id, read once in each process."""
    table = Store(root).read_table(path)
    columns = zip(*(table[name].to_pylist() for name in ("id", "survivor", "similarity")), strict=True)
    return {each: (survivor, similarity) for each, survivor, similarity in columns}
