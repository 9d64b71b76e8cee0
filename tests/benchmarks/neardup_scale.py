"""Memory and time of near-duplicate detection as the corpus grows, on synthetic signatures.

    python -m tests.benchmarks.neardup_scale 1000000 10000000 --root /var/tmp/neardup

Writes what the signatures stage would write for that many documents: 14 band keys and a text key each, 16 shingles,
three documents in ten duplicates of another (a third of them exact), and one in a hundred in a bucket of a thousand
that only looks alike. Then it runs the stages from candidates to duplicates, in new processes. Prints, for each
number of documents, peak resident memory of worker and client, and CPU and wall time for each document.
"""

import argparse
import json
import resource
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from infra.cluster import Cluster, open_cluster
from infra.environment import Environment
from infra.manifest import StageManifest, Telemetry
from infra.settings import Settings
from infra.store import Store
from tasks.duplicates.dedup import DedupSettings, find_duplicates
from tasks.duplicates.dedup_index import IndexView
from tasks.duplicates.minhash import mix
from tasks.duplicates.signatures import KEYS, SIGNATURES, SIGNED, refs_of_part
from tasks.sorted_runs import RunSorter
from tasks.stage import Split, StageRunner

BANDS, SHINGLES, ROWS = 14, 16, 1 << 14


class Synthetic(Settings):
    """How much is made up."""

    documents: int
    in_shard: int = 100_000


def noise(numbers: np.ndarray, salt: int) -> np.ndarray:
    """Random numbers that depend on others alone."""
    return mix(mix(numbers.astype(np.uint64)) ^ np.uint64(salt * 0x9E3779B97F4A7C15 & (1 << 64) - 1))


def synthetic(_: Store, source: str, settings: Synthetic) -> Iterator[Split]:
    """The shard function that takes the place of signatures."""
    part = int(source)
    sorter, first = RunSorter(), part * settings.in_shard
    for start in range(first, min(first + settings.in_shard, settings.documents), ROWS):
        numbers = np.arange(start, min(start + ROWS, first + settings.in_shard, settings.documents), dtype=np.uint64)
        refs = numbers - np.uint64(first) + np.uint64(refs_of_part(part)[0])
        documents, keys = made_up(numbers, refs, settings.documents)
        yield from (Split(documents.slice(at, 8192)) for at in range(0, len(numbers), 8192))
        yield from (Split(SIGNED.empty_table(), others={"keys": each}) for each in sorter.add(keys))
    yield from (Split(SIGNED.empty_table(), others={"keys": each}) for each in sorter.finish())


def made_up(numbers: np.ndarray, refs: np.ndarray, total: int) -> tuple[pa.Table, pa.Table]:
    """SIGNED and KEYS of some documents by their numbers."""
    lot = noise(numbers, 1) % np.uint64(100)
    content = np.where(lot < 30, noise(numbers, 2) % np.uint64(total), numbers)
    changed = (lot >= 10) & (lot < 30)
    text = noise(np.where(changed, numbers, content), 3)
    bands = np.stack([noise(content, 10 + band) for band in range(BANDS)], axis=1)
    own = np.stack([noise(numbers, 40 + band) for band in range(BANDS)], axis=1)
    differs = changed[:, None] & (own % np.uint64(100) >= 43)
    bands = np.where(differs, own, bands)
    alike = lot == 99
    bands[alike, 0] = noise(noise(numbers[alike], 4) % np.uint64(max(total // 100_000, 1)), 5)
    shingles = np.stack([noise(content, 100 + place) for place in range(SHINGLES)], axis=1)
    shingles[changed, 0] = noise(numbers[changed], 6)
    offsets = np.arange(0, (len(numbers) + 1) * SHINGLES, SHINGLES)
    sets = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(np.sort(shingles, axis=1).ravel()))
    count = pa.array(np.full(len(numbers), SHINGLES))
    ids = pa.array([f"{each:032x}" for each in noise(numbers, 7).tolist()])
    nothing = pa.nulls(len(numbers), pa.large_string()), pa.nulls(len(numbers), pa.uint64())
    rows = [pa.array(refs), ids, *nothing, pa.array(noise(text, 8)), pa.array(text), count, count]
    documents = pa.table([*rows, sets.cast(SIGNED.field("shingles").type)], schema=SIGNED)
    keys = np.concatenate([bands.ravel() & ~np.uint64(3), mix(text) & ~np.uint64(3) | np.uint64(1)])
    places = np.concatenate([np.repeat(np.arange(len(numbers)), BANDS), np.arange(len(numbers))])
    columns = [keys, refs[places], noise(numbers, 9)[places], noise(numbers, 7)[places], text[places]]
    return documents, pa.table([pa.array(each) for each in columns], schema=KEYS)


def signed(root: str, documents: int, in_shard: int, cluster: Cluster) -> StageManifest:
    """Write the signatures of so many documents."""
    settings = Synthetic(documents=documents, in_shard=in_shard)
    shards = -(-documents // settings.in_shard)
    return StageRunner(Store(root), cluster).run(SIGNATURES, synthetic, [str(n) for n in range(shards)], settings, {})


def cpu_seconds(_: int) -> float:
    """CPU time of the process that runs it."""
    return time.process_time()


def measure(root: str, documents: int, memory: int, workers: int, in_shard: int) -> dict[str, object]:
    """Run all stages on so many documents."""
    environment = Environment(workers=workers)
    with open_cluster(environment) as cluster:
        given = signed(root, documents, in_shard, cluster)
    with open_cluster(environment) as cluster:
        runner, settings = StageRunner(Store(root), cluster), DedupSettings(memory_bytes=memory)
        started, before = time.monotonic(), cluster.run(cpu_seconds, 0, "cpu") if workers == 1 else 0.0
        stages = find_duplicates(runner, given, IndexView(), settings)
        wall = time.monotonic() - started
        cpu = cluster.run(cpu_seconds, 0, "cpu") - before if workers == 1 else None
    told = {each.stage: Telemetry.load(runner.store, f"{each.folder}/telemetry.json") for each in stages}
    return {
        "documents": documents,
        "dropped": stages[-1].kept,
        "pairs": stages[0].kept,
        "ranges": [len(each.shards) for each in stages],
        "peak_worker_mb": max(each.peak_worker_bytes for each in told.values()) >> 20,
        "peak_client_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "wall_us_for_each": round(wall / documents * 1e6, 1),
        "cpu_us_for_each": None if cpu is None else round(cpu / documents * 1e6, 1),
        "seconds": {name: each.seconds for name, each in told.items()},
        "peaks_mb": {name: each.peak_worker_bytes >> 20 for name, each in told.items()},
    }


def main() -> None:
    """Measure each number of documents and print a line of JSON for it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("documents", type=int, nargs="+")
    parser.add_argument("--root", required=True)
    parser.add_argument("--memory", type=int, default=256 << 20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--in-shard", type=int, default=100_000)
    given = parser.parse_args()
    for documents in given.documents:
        root = f"{given.root}/{documents}"
        print(json.dumps(measure(root, documents, given.memory, given.workers, given.in_shard)), flush=True)
        Store(root).remove("")


if __name__ == "__main__":
    main()
