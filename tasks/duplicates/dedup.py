"""Dedup: one document of each group of exact and near-duplicates, in this build and against earlier datasets.

Seven stages, each in bounded memory whatever the size of the corpus, and each a module that says how:

    signatures     a shard's documents: text and URL hashes, MinHash bands, shingles, ranks   signatures.py
    candidates     pairs of documents that share a key, one range of keys at a time            candidates.py
    verification   pairs whose texts are as similar as they must be, by exact Jaccard          verification.py
    survivors      who goes in whose favour, the best documents first                          survivors.py
    clusters       names of the survivors, sizes of their clusters                             survivors.py
    duplicates     the documents of each shard that go                                         survivors.py
    dedup          documents without these; dropped rows name the survivor                     here

The result depends on the documents, their order, the settings and what the index held, and neither on the number of
workers nor on `memory_bytes`. An index (`dedup_index.py`) makes a refresh be compared with earlier datasets.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pydantic import Field

from infra.manifest import StageManifest
from infra.settings import Settings, operational
from infra.store import Store
from tasks.duplicates.candidates import CANDIDATES, CandidateSettings, FindCandidates
from tasks.duplicates.dedup_index import IndexView, open_index
from tasks.duplicates.signatures import SIGNATURES, SignatureSettings, part_number, refs_of_part, sign
from tasks.duplicates.signed_documents import Library, Shards
from tasks.duplicates.survivors import (
    CLUSTERS,
    DUPLICATES_STAGE,
    MOST_LARGEST,
    SURVIVORS,
    Cluster,
    GatherDuplicates,
    Survive,
)
from tasks.duplicates.verification import VERIFICATION, VerificationSettings, Verify
from tasks.sorted_runs import plan_ranges
from tasks.stage import Split, Stage, StageRunner, drop

DEDUP = Stage("dedup", 2)
HELPERS = (SIGNATURES, CANDIDATES, VERIFICATION, SURVIVORS, CLUSTERS, DUPLICATES_STAGE)
"""The stages that dedup runs before its own, in order."""
_SEEN, _LOST = "seen ", "lost "
# How many bytes a task takes for each byte of its range, by what its arrays are: keys are copied as columns, sorted
# and paired; decisions get the strings of their survivors.
_KEYS_COPIES, _PAIRS_COPIES, _DECISION_COPIES = 8, 16, 64


class DedupSettings(Settings):
    """What counts as a duplicate, which of two stays, and which earlier datasets are compared."""

    signature: SignatureSettings = SignatureSettings()
    """What documents are compared by, and which of two duplicates stays."""
    candidates: CandidateSettings = CandidateSettings()
    """Which documents are compared."""
    verification: VerificationSettings = VerificationSettings()
    """When two compared documents are duplicates."""
    index: str | None = Field(default=None, pattern=r"^[\w.-]+$")
    """Name of the index of earlier datasets: documents that it has are dropped from this one. Unset compares the
    documents of this build alone."""
    memory_bytes: int = operational(256 << 20, ge=1 << 16)
    """About how much the arrays of one task may take, besides the libraries; smaller cuts the work into more tasks."""
    max_source_loss: float = operational(0.5, gt=0, le=1)
    """An alarm is raised for a source that loses more than this share of its documents as duplicates."""


class SourceLoss(Settings):
    """What one source lost."""

    source: str
    documents: int
    """Documents that entered."""
    lost: int
    """Documents dropped as duplicates."""

    @property
    def share(self) -> float:
        """Share of the documents that were lost."""
        return self.lost / max(self.documents, 1)


class LargeCluster(Settings):
    """One of the largest clusters, by its survivor."""

    survivor: str
    """Id of the survivor."""
    url: str | None
    dataset: str | None
    """The earlier dataset that has the survivor; null for this build."""
    version: str | None
    cluster_size: int
    """Documents, the survivor included."""


class DedupReport(Settings):
    """Figures to look at before a dataset is trusted."""

    kinds: dict[str, int]
    """Dropped documents by kind."""
    clusters: int
    """Survivors that others were dropped for."""
    cluster_sizes: dict[str, int]
    """Clusters by size."""
    largest: tuple[LargeCluster, ...]
    """The largest clusters, largest first."""
    sources: tuple[SourceLoss, ...]
    """All sources by name."""
    alarms: tuple[SourceLoss, ...]
    """Sources that lost more than `max_source_loss`."""


@dataclass(frozen=True)
class DedupResult:
    """The manifests of all stages, and the report."""

    helpers: tuple[StageManifest, ...]
    """Of HELPERS, in order."""
    unique: StageManifest
    """The documents that stay."""
    report: DedupReport

    @property
    def signed(self) -> StageManifest:
        """The signed documents, which an index takes its segments from."""
        return self.helpers[0]

    @property
    def duplicates(self) -> StageManifest:
        """One row for each document that goes."""
        return self.helpers[-1]


def dedup(
    runner: StageRunner, parent: StageManifest, settings: DedupSettings, exclude: tuple[str, str] | None = None
) -> DedupResult:
    """Remove duplicates from all shards of a stage.

    Dropped rows have the kind as reason, the similarity as value and the survivor as detail: its id, or
    NAME/VERSION:id where an earlier dataset has it. `exclude` is the dataset and version that is being made, so that
    it is not compared with itself when it is made again; a build whose signatures the index has is known without.
    """
    parents = {parent.stage: parent.digest}
    signed = runner.run(SIGNATURES, sign, parent.kept_paths, settings.signature, parents)
    index = IndexView()
    if settings.index is not None:
        index = open_index(runner.store, settings.index, settings.signature, signed.digest, exclude)
    duplicates = find_duplicates(runner, signed, index, settings)
    removal = RemoveDuplicates(Shards.of(duplicates[-1]))
    unique = runner.run(DEDUP, removal, parent.kept_paths, settings, parents | {"duplicates": duplicates[-1].digest})
    report = dedup_report(runner.store, duplicates[-2], unique, settings.max_source_loss)
    return DedupResult((signed, *duplicates), unique, report)


def find_duplicates(
    runner: StageRunner, signed: StageManifest, index: IndexView, settings: DedupSettings
) -> list[StageManifest]:
    """Run the stages between signatures and removal, and return their manifests in the order of HELPERS."""
    store, memory = runner.store, settings.memory_bytes
    documents = Shards.of(signed)
    library = Library(documents, index.segments)

    def ranges(paths: list[str], copies: int) -> list[str]:
        return [str(each) for each in plan_ranges(store, paths, memory // copies)] if paths else []

    parents = {"signatures": signed.digest} | ({"index": index.digest} if index.segments else {})
    sources = ranges(documents.paths("keys"), _KEYS_COPIES)
    pairs = runner.run(CANDIDATES, FindCandidates(documents, index), sources, settings.candidates, parents)
    verify = Verify(library, Shards.of(pairs), memory // 8)
    sources = ranges(pairs.kept_paths, _PAIRS_COPIES)
    verified = runner.run(VERIFICATION, verify, sources, settings.verification, {"candidates": pairs.digest, **parents})
    survive = Survive(Shards.of(verified), tuple(shard.kept.rows for shard in signed.shards))
    decided = runner.run(SURVIVORS, survive, ["all shards"], Settings(), {"verification": verified.digest, **parents})
    sources = ranges(decided.kept_paths, _DECISION_COPIES)
    cluster = Cluster(library, decided.kept_paths[0])
    clusters = runner.run(CLUSTERS, cluster, sources, Settings(), {"survivors": decided.digest, **parents})
    gather = GatherDuplicates(Shards.of(clusters))
    found = runner.run(
        DUPLICATES_STAGE, gather, documents.paths(), Settings(), {"clusters": clusters.digest, **parents}
    )
    return [pairs, verified, decided, clusters, found]


@dataclass(frozen=True)
class RemoveDuplicates:
    """The shard function of the dedup stage, which looks up the duplicates of its shard."""

    duplicates: Shards

    def __call__(self, store: Store, source: str, settings: DedupSettings) -> Iterator[Split]:
        """Yield the split of each batch of a shard."""
        part = part_number(source)
        gone = store.read_table(self.duplicates.path(part))
        places = gone["ref"].to_numpy() - np.uint64(refs_of_part(part)[0])
        reader, row = store.open_table(source), 0
        for number in range(reader.num_record_batches):
            table = pa.Table.from_batches([reader.get_batch(number)])
            start, stop = np.searchsorted(places, np.array([row, row + table.num_rows], np.uint64)).tolist()
            yield remove(table, gone.slice(start, stop - start), places[start:stop].astype(np.int64) - row)
            row += table.num_rows


def remove(table: pa.Table, duplicates: pa.Table, rows: np.ndarray) -> Split:
    """Drop some rows of a table of DOCUMENTS; `duplicates` has a row of DUPLICATES for each."""
    stays = np.ones(table.num_rows, bool)
    stays[rows] = False
    names = [duplicates[name].to_pylist() for name in ("dataset", "version", "survivor")]
    details = [
        survivor if dataset is None else f"{dataset}/{version}:{survivor}"
        for dataset, version, survivor in zip(*names, strict=True)
    ]
    gone = table.take(pa.array(rows))
    dropped = drop(gone, DEDUP.name, duplicates["kind"], duplicates["similarity"], details)
    counters: dict[str, int] = {}
    for prefix, part in ((_SEEN, table), (_LOST, gone)):
        for count in part["source"].combine_chunks().value_counts().to_pylist():
            counters[f"{prefix}{count['values']}"] = count["counts"]
    return Split(table.filter(pa.array(stays)), dropped, counters=counters)


def source_losses(unique: StageManifest) -> tuple[SourceLoss, ...]:
    """What each source lost in a dedup stage, by name."""
    counts = unique.total("counters")
    names = sorted(name.removeprefix(_SEEN) for name in counts if name.startswith(_SEEN))
    return tuple(
        SourceLoss(source=name, documents=counts[_SEEN + name], lost=counts.get(_LOST + name, 0)) for name in names
    )


def alarming_sources(unique: StageManifest, max_source_loss: float) -> tuple[SourceLoss, ...]:
    """Sources that lost more than a share of their documents, the largest share first."""
    lossy = [each for each in source_losses(unique) if each.share > max_source_loss]
    return tuple(sorted(lossy, key=lambda each: (-each.share, each.source)))


def dedup_report(store: Store, clusters: StageManifest, unique: StageManifest, max_source_loss: float) -> DedupReport:
    """The figures of a dedup stage and its clusters."""
    counters = clusters.total("counters")
    sizes = {name: count for name, count in counters.items() if name.startswith("size ")}
    largest = [
        LargeCluster.model_validate(row)
        for shard in clusters.shards
        for row in store.read_table(f"{clusters.folder}/{shard.others['largest'].path}").to_pylist()
    ]
    largest.sort(key=lambda each: (-each.cluster_size, each.survivor))
    return DedupReport(
        kinds=unique.total("reasons"),
        clusters=counters.get("clusters", 0),
        cluster_sizes=dict(sorted(sizes.items(), key=lambda item: int(item[0].split()[1].split("-")[0]))),
        largest=tuple(largest[:MOST_LARGEST]),
        sources=source_losses(unique),
        alarms=alarming_sources(unique, max_source_loss),
    )
