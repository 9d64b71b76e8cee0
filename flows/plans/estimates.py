"""From a measured sample to the whole: the arithmetic of a plan, and how people read it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from flows.plans.sampling import Pass, Stratum
from infra.manifest import ShardRecord, StageManifest
from infra.settings import Settings
from tasks.config import CorpusSettings
from tasks.examples import EXAMPLES
from tasks.models.quality_training import QUALITY_MODEL
from tasks.sources.fetch import FETCH
from tasks.tokens.tokenizer import TOKENIZER


class Estimate(Settings):
    """A figure of the whole, with the least and the most that the sampled shards would make it."""

    expected: float
    low: float
    high: float


class StagePlan(Settings):
    """What one stage will take."""

    stage: str
    documents_in: Estimate | None
    """Documents or records that enter; none for stages that work for others."""
    documents_out: Estimate | None
    """Documents that go on."""
    disk_bytes: int
    cpu_seconds: float
    """Processor seconds of all workers together, `startup_seconds` of each included."""
    startup_seconds: float
    """What a worker process needs before its first shard of the stage: libraries loaded, models read, code compiled."""
    workers: int
    """Workers that find work at the same time."""
    seconds: float
    """Wall time, each worker having a core of its own."""
    peak_worker_bytes: int
    """Largest resident set of the sample's worker until the end of this stage."""


class Totals(Settings):
    """Sums over all stages."""

    disk_bytes: int
    cpu_seconds: float
    seconds: float
    peak_worker_bytes: int


@dataclass(frozen=True)
class Extrapolation:
    """Three passes, and the strata that they are samples of.

    The first was made on other shards by a process that had done nothing yet, the second on a part of the sample, the
    third on all of it.
    """

    corpus: CorpusSettings
    strata: Sequence[Stratum]
    shares: Sequence[Mapping[str, float]]
    """For each pass the share of each sampled shard that was read."""
    passes: Sequence[Pass]
    workers: int

    @cached_property
    def origin(self) -> dict[str, str]:
        """The sampled shard that a file of the last pass was made from alone."""
        found: dict[str, str] = {}
        for manifest in self.passes[-1].manifests:
            for shard in manifest.shards:
                source = shard.source if manifest.stage == FETCH.name else found.get(shard.source)
                if source is not None:
                    found[f"{manifest.folder}/{shard.kept.path}"] = source
                    if manifest.stage == FETCH.name:
                        found[shard.kept.path.rpartition(".")[0]] = source  # by which the ledger knows it
        return found

    @cached_property
    def corpus_made(self) -> set[str]:
        """Digests of what was made from the source: other stages read files that do not grow with it."""
        found: set[str] = set()
        for manifest in self.passes[-1].manifests:
            parents = manifest.parents.values()
            if manifest.stage == FETCH.name or any(each in digest for digest in parents for each in found):
                found.add(manifest.digest)
        return found

    @cached_property
    def stratum_of(self) -> dict[str, Stratum]:
        """The stratum of each sampled shard."""
        return {shard: stratum for stratum in self.strata for shard in stratum.chosen}

    @cached_property
    def shards(self) -> int:
        """Shards of the whole."""
        return sum(len(stratum.shards) for stratum in self.strata)

    def read_bytes(self, shard: str, index: int = -1) -> float:
        """Bytes that a pass read of a sampled shard."""
        return self.shares[index][shard] * self.stratum_of[shard].sizes[shard]

    def weight(self, shard: str) -> float:
        """How many times the whole of a stratum is what was read of it."""
        stratum = self.stratum_of[shard]
        read = sum(self.read_bytes(each) for each in stratum.chosen)
        return stratum.bytes * self.part_wanted(stratum) / max(read, 1)

    def part_wanted(self, stratum: Stratum) -> float:
        """Share of a stratum's bytes that the settings read: `max_records` may leave out the rest of each shard."""
        limit = self.corpus.source.max_records
        if limit is None:
            return 1.0
        fetched = self.passes[-1].manifests[0]
        wanted = read = 0.0
        for shard in fetched.shards:
            if shard.source in stratum.chosen:
                whole = self.read_bytes(shard.source) / max(self.shares[-1][shard.source], 1e-9)
                wanted += min(whole, self.read_bytes(shard.source) * limit / max(shard.rows_in, 1))
                read += whole
        return wanted / max(read, 1)

    @cached_property
    def overall(self) -> float:
        """How many times the whole is what was read."""
        chosen = list(self.stratum_of)
        read = sum(self.read_bytes(shard) for shard in chosen)
        return sum(self.read_bytes(shard) * self.weight(shard) for shard in chosen) / max(read, 1)

    def estimate(self, manifest: StageManifest, value: Callable[[ShardRecord], float]) -> Estimate | None:
        """A count of a stage, scaled by bytes; None for a stage whose shards are not those of the source."""
        rows = [(self.source_of(manifest, shard), value(shard)) for shard in manifest.shards]
        return self.scaled([(source, amount) for source, amount in rows if source is not None], len(rows))

    def scaled(self, rows: Sequence[tuple[str, float]], expected_rows: int | None = None) -> Estimate | None:
        """The whole of amounts that belong to sampled shards."""
        if not rows or expected_rows not in (None, len(rows)):
            return None
        expected = low = high = 0.0
        for stratum in self.strata:
            mine = [(shard, amount) for shard, amount in rows if shard in stratum.chosen]
            if not mine:
                continue
            weight = self.weight(mine[0][0])
            read = sum(self.read_bytes(shard) for shard in stratum.chosen)
            rates = [amount / max(self.read_bytes(shard), 1) for shard, amount in mine]
            expected += weight * sum(amount for _, amount in mine)
            low += weight * read * min(rates)
            high += weight * read * max(rates)
        return Estimate(expected=round(expected, 1), low=round(low, 1), high=round(high, 1))

    def source_of(self, manifest: StageManifest, shard: ShardRecord) -> str | None:
        """The sampled shard that a stage's shard was made from alone."""
        return shard.source if manifest.stage == FETCH.name else self.origin.get(shard.source)

    def factor(self, manifest: StageManifest) -> float:
        """How many times the cost of a stage on the sample is its cost on the whole."""
        if manifest.digest not in self.corpus_made:
            return 1.0
        counters = manifest.total("counters")
        if manifest.stage == TOKENIZER.name:
            limit = self.corpus.tokenizer.sample_bytes / max(counters.get("sample_bytes", 0), 1)
            return min(self.overall, max(limit, 1.0))
        return self.overall * self.chosen_share(manifest)

    def stages(self) -> list[StagePlan]:
        """What each stage will take, in order."""
        return [self._stage(manifest) for manifest in self.passes[-1].manifests]

    def _stage(self, manifest: StageManifest) -> StagePlan:
        through = manifest.stage in self.passes[-1].passed
        parallel = self.shards if self.shard_by_shard(manifest) else max(len(manifest.shards), 1)
        workers = min(self.workers, parallel)
        startup, cpu, waiting = self._startup(manifest), self._cpu(manifest), self._network(manifest)
        return StagePlan(
            stage=manifest.stage,
            documents_in=self.estimate(manifest, lambda shard: shard.rows_in) if through else None,
            documents_out=self.estimate(manifest, documents_out) if through else None,
            disk_bytes=round(self._disk(manifest)),
            cpu_seconds=round(cpu + workers * startup, 2),
            startup_seconds=round(startup, 2),
            workers=workers,
            seconds=round(startup + (cpu + waiting) / workers, 2),
            peak_worker_bytes=self.passes[-1].telemetry(manifest).peak_worker_bytes,
        )

    def _disk(self, manifest: StageManifest) -> float:
        if manifest.stage in (TOKENIZER.name, QUALITY_MODEL.name):
            return files_bytes(manifest)  # a model is as large whatever it learned from
        fixed, growing = self._line(manifest, lambda _, same: files_bytes(same))
        return fixed * self._shards_of(manifest) + growing * self.factor(manifest)

    def _cpu(self, manifest: StageManifest) -> float:
        fixed, growing = self._line(manifest, _processor_seconds)
        return fixed * self._shards_of(manifest) + growing * self.factor(manifest)

    def _startup(self, manifest: StageManifest) -> float:
        """Processor seconds of the first pass beyond what the line through the others asks for."""
        first, _, _ = (None if same is None else _processor_seconds(one, same) for one, same in self._likes(manifest))
        if first is None:
            return 0.0
        fixed, growing = self._line(manifest, _processor_seconds)
        return max(0.0, first - fixed - growing * self._read(0) / max(self._read(-1), 1))

    def _line(self, manifest: StageManifest, measure: Callable[[Pass, StageManifest], float]) -> tuple[float, float]:
        """A measure of the last pass in two parts: what does not and what does grow with the bytes read."""
        small, large = (None if same is None else measure(one, same) for one, same in list(self._likes(manifest))[1:])
        assert large is not None  # the stage itself is of the last pass
        few, many = self._read(1), self._read(2)
        if small is None or few >= many:
            return 0.0, large
        fixed = min(max(0.0, (small * many - large * few) / (many - few)), small, large)
        return fixed, large - fixed

    def _read(self, index: int) -> float:
        sizes = {shard: size for stratum in self.strata for shard, size in stratum.sizes.items()}
        return sum(share * sizes[shard] for shard, share in self.shares[index].items())

    def _shards_of(self, manifest: StageManifest) -> float:
        """How many times the sample's shards a stage has on the whole."""
        each = self.shards / len(self.stratum_of) if self.shard_by_shard(manifest) else 1.0
        return each * self.chosen_share(manifest)

    def _likes(self, manifest: StageManifest) -> Iterator[tuple[Pass, StageManifest | None]]:
        """Each pass with its stage that is like one of the last pass; None if it did not run."""
        number = [each for each in self.passes[-1].manifests if each.stage == manifest.stage].index(manifest)
        for one in self.passes:
            same = [each for each in one.manifests if each.stage == manifest.stage]
            yield one, same[number] if number < len(same) else None

    def shard_by_shard(self, manifest: StageManifest) -> bool:
        """Whether a stage makes a shard of each shard of the source."""
        return bool(manifest.shards) and all(self.source_of(manifest, shard) for shard in manifest.shards)

    def chosen_share(self, manifest: StageManifest) -> float:
        """Share of all shards that a stage looks at."""
        return min(1.0, self.corpus.report.examples.shards / self.shards) if manifest.stage == EXAMPLES.name else 1.0

    def _network(self, manifest: StageManifest) -> float:
        """Seconds that streams will wait for the network, all together."""
        return self.network_seconds if manifest.stage == FETCH.name else 0.0

    @cached_property
    def counts(self) -> dict[tuple[str, str], int]:
        """What the last pass counted while it fetched, by name and shard."""
        last = self.passes[-1]
        counted = last.telemetry(last.manifests[0]).counts
        return {(name, shard): count for key, count in counted.items() for name, _, shard in [key.partition(" ")]}

    def total(self, name: str) -> int:
        """A count of the last pass over all sampled shards."""
        return sum(count for (each, _), count in self.counts.items() if each == name)

    @cached_property
    def network_seconds(self) -> float:
        """Seconds that streams will wait for the network, all together, at the speed that one had."""
        waited = [(shard, count / 1000) for (name, shard), count in self.counts.items() if name == "network_ms"]
        fetched = self.scaled(waited)
        return 0.0 if fetched is None else fetched.expected


def _processor_seconds(one: Pass, manifest: StageManifest) -> float:
    return one.telemetry(manifest).counts["cpu_ms"] / 1000


def documents_out(shard: ShardRecord) -> int:
    """Documents of a shard that go on, held-out ones included."""
    heldout = shard.others.get("heldout")
    return shard.kept.rows + (0 if heldout is None else heldout.rows)


def files_bytes(manifest: StageManifest) -> int:
    """Bytes of all tables of a stage."""
    return sum(file.bytes for shard in manifest.shards for file in (shard.kept, shard.dropped, *shard.others.values()))
