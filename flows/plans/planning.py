"""What a corpus run will take before it is started: bytes, requests, disk, time and memory, from a measured sample."""

import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from dask.system import CPU_COUNT

from flows.plans.cached import AlreadyMade, StageThere, already_made
from flows.plans.coverage import share_read
from flows.plans.estimates import Estimate, Extrapolation, StagePlan, Totals
from flows.plans.sampling import Pass, PlanSettings, Sampler
from flows.sample import resolve_source
from infra.cluster import open_cluster
from infra.dask_settings import LocalDask
from infra.environment import Environment
from infra.manifest import StageManifest
from infra.settings import Settings
from infra.store import Store
from infra.throwaway import remove_left_over, throwaway
from tasks.config import CorpusSettings
from tasks.sources.fetch import FETCH
from tasks.sources.transport import is_http
from tasks.tokens.tokenization import TOKENIZATION

logger = logging.getLogger(__name__)
SMALLER = 3
"""So many times fewer records are in the smaller pass."""


class SampledShard(Settings):
    """A shard that the plan was measured on."""

    shard: str
    bytes: int
    bytes_read: int
    records: int


class SourcePlan(Settings):
    """What will be read."""

    name: str
    """The crawl, or the collection."""
    shards: int
    missing: int
    """Shards that are listed and not there, among those whose sizes were asked for."""
    sizes_known: int
    """Shards whose sizes are known; the others are taken to be alike."""
    bytes: float
    """Bytes that will be read."""
    sampled: tuple[SampledShard, ...]


class NetworkPlan(Settings):
    """What will go over the network."""

    bytes: float
    """Bytes to download."""
    requests: float
    """One for the listing, one for each shard, and those that will be refused or break off as the sample's did."""
    expected_retries: float
    bytes_per_second: float | None
    """Speed of one stream in the sample; none if nothing came over HTTP."""
    seconds_at_speed: float
    """Time for it all if each worker has such a stream."""
    seconds_at_limits: float
    """Time that the settings' requests and bytes per second ask for at least."""


_NO_NETWORK = NetworkPlan(
    bytes=0, requests=0, expected_retries=0, bytes_per_second=None, seconds_at_speed=0, seconds_at_limits=0
)


class Plan(Settings):
    """What a corpus run will take."""

    root: str
    workers: int
    sources: tuple[SourcePlan, ...]
    network: NetworkPlan
    stages: tuple[StagePlan, ...]
    """What is still to do of each."""
    there: tuple[StageThere, ...] = ()
    """What earlier runs have done: finished stages, and of the next one perhaps some shards."""
    tokens_train: Estimate | None
    tokens_heldout: Estimate | None
    totals: Totals
    free_bytes: int | None
    """Free space under the root; none if it is remote."""
    assumptions: tuple[str, ...]
    """What was taken for granted, and how uncertain it is."""
    warnings: tuple[str, ...]
    """What stands in the way of the run."""

    @property
    def complete(self) -> bool:
        """Whether all stages are there."""
        return not self.stages


def make_plan(corpus: CorpusSettings, environment: Environment, plan: PlanSettings) -> Plan:
    """Measure a sample and say what the whole will take. BadInput as a run would raise it for the same settings."""
    store = Store(environment.root)
    corpus = corpus.model_copy(update={"source": resolve_source(corpus.source, store)})
    workers, there = workers_of(environment), already_made(corpus, store)
    if there.complete:
        return nothing_to_do(environment, workers, there)
    # One worker of this machine: none disturbs another's measurement, and a remote one could not see our files.
    alone = environment.model_copy(update={"workers": 1, "scheduler": None, "dask": LocalDask(), "shard_retries": 0})
    remove_left_over(store, datetime.now(UTC))
    with throwaway(store) as folder, open_cluster(alone) as cluster:
        sampler = Sampler(cluster, corpus, plan)
        warming = sampler.run(Store(str(folder / "warming")), plan.sample_records, warming=True)
        large = sampler.run(Store(str(folder / "large")), plan.sample_records)
        small = sampler.run(Store(str(folder / "small")), max(plan.sample_records // SMALLER, 1))
        made = [warming, small, large]
        measured = Extrapolation(corpus, sampler.strata, [_shares(each, sampler) for each in made], made, workers)
        return _plan(measured, environment, store, there.stages)


def nothing_to_do(environment: Environment, workers: int, there: AlreadyMade) -> Plan:
    """The plan of a corpus whose stages are all there."""
    return Plan(
        root=environment.root,
        workers=workers,
        sources=(),
        network=_NO_NETWORK,
        stages=(),
        there=there.stages,
        tokens_train=None,
        tokens_heldout=None,
        totals=Totals(disk_bytes=0, cpu_seconds=0, seconds=0, peak_worker_bytes=0),
        free_bytes=None,
        assumptions=(),
        warnings=(),
    )


def stages_left(stages: Sequence[StagePlan], there: Sequence[StageThere]) -> Iterator[StagePlan]:
    """What is left to do of each stage; one of which some shards are done has the others still before it."""
    done = {name: [each for each in there if each.stage == name] for name in {each.stage for each in there}}
    for planned in stages:
        known = done.get(planned.stage, [])
        part = 1 - (known[0].shards_done / known[0].shards if known else 0)
        start = planned.startup_seconds if part else 0.0
        cpu, seconds = (part * max(0.0, each - start) for each in (planned.cpu_seconds, planned.seconds))
        left = {"disk_bytes": round(part * planned.disk_bytes), "startup_seconds": start}
        yield planned.model_copy(
            update={**left, "cpu_seconds": round(start + cpu, 2), "seconds": round(start + seconds, 2)}
        )
        del known[:1]


def workers_of(environment: Environment) -> int:
    """Workers that the stages of a corpus would have."""
    if environment.scheduler is None:
        here = isinstance(environment.dask, LocalDask)
        return environment.workers or CPU_COUNT if here else environment.dask.most_workers
    with open_cluster(environment) as cluster:
        return max(cluster.workers, 1)


def _shares(one: Pass, sampler: Sampler) -> dict[str, float]:
    """Share of each sampled shard that a pass read."""
    sizes = {shard: size for stratum in sampler.strata for shard, size in stratum.sizes.items()}
    return {
        shard.source: share_read(one, shard, sizes[shard.source], sampler.corpus.collections)
        for shard in one.manifests[0].shards
    }


def _plan(measured: Extrapolation, environment: Environment, store: Store, there: Sequence[StageThere]) -> Plan:
    network = _network(measured)
    stages = measured.stages()
    # However many workers there are, the servers' limits hold.
    stages[0] = stages[0].model_copy(update={"seconds": max(stages[0].seconds, network.seconds_at_limits)})
    stages = list(stages_left(stages, there))
    network = network_left(network, there)
    tokens = next((each for each in measured.passes[-1].manifests if each.stage == TOKENIZATION.name), None)
    totals = total(stages)
    free = shutil.disk_usage(store.local_path("")).free if store.is_local else None
    return Plan(
        root=environment.root,
        workers=measured.workers,
        sources=_sources(measured),
        network=network,
        stages=tuple(stages),
        there=tuple(there),
        tokens_train=_tokens(measured, tokens, "train"),
        tokens_heldout=_tokens(measured, tokens, "heldout"),
        totals=totals,
        free_bytes=free,
        assumptions=tuple(_assumptions(measured, stages)),
        warnings=tuple(_warnings(measured, totals, free)),
    )


def total(stages: Sequence[StagePlan]) -> Totals:
    """The sums over stages."""
    return Totals(
        disk_bytes=sum(each.disk_bytes for each in stages),
        cpu_seconds=round(sum(each.cpu_seconds for each in stages), 1),
        seconds=round(sum(each.seconds for each in stages), 1),
        peak_worker_bytes=max((each.peak_worker_bytes for each in stages), default=0),
    )


def _tokens(measured: Extrapolation, tokens: StageManifest | None, split: str) -> Estimate | None:
    if tokens is None:
        return None
    return measured.estimate(tokens, lambda shard: shard.counters.get(f"tokens_{split}", 0))


def _sources(measured: Extrapolation) -> tuple[SourcePlan, ...]:
    records = {shard.source: shard.rows_in for shard in measured.passes[-1].manifests[0].shards}
    return tuple(
        SourcePlan(
            name=stratum.name,
            shards=len(stratum.shards),
            missing=stratum.missing,
            sizes_known=len(stratum.sizes),
            bytes=round(stratum.bytes * measured.part_wanted(stratum)),
            sampled=tuple(
                SampledShard(
                    shard=shard,
                    bytes=stratum.sizes[shard],
                    bytes_read=round(measured.read_bytes(shard)),
                    records=records[shard],
                )
                for shard in stratum.chosen
            ),
        )
        for stratum in measured.strata
    )


def _network(measured: Extrapolation) -> NetworkPlan:
    """What comes from elsewhere, the server's limits for the crawl's share of it.

    Refusals go by requests and breaks by bytes; only our own client, for HTTP, counts them, and its waiting.
    """
    source = measured.corpus.source
    remote = [each for each in measured.strata if comes_from_elsewhere(each.name, measured.corpus)]
    if not remote:
        return _NO_NETWORK
    wanted = {each.name: each.bytes * measured.part_wanted(each) for each in remote}
    size, shards = sum(wanted.values()), sum(len(each.shards) for each in remote)
    fetched, resumed = max(measured.total("bytes_fetched"), 1), measured.total("http_resumed")
    refused = measured.total("http_retries") - resumed
    retries = shards * refused / sum(len(each.chosen) for each in remote) + size * resumed / fetched
    requests, waited = 1 + shards + retries, measured.total("network_ms") / 1000
    limits, own = source.transport, wanted.get(str(source.crawl), 0.0) if is_http(source.base_url) else 0.0
    return NetworkPlan(
        bytes=round(size),
        requests=round(requests),
        expected_retries=round(retries),
        bytes_per_second=round(fetched / waited) if waited else None,
        seconds_at_speed=round(measured.network_seconds / min(measured.workers, measured.shards), 1),
        seconds_at_limits=round(
            max(requests / (limits.requests_per_second or math.inf), own / (limits.bytes_per_second or math.inf)), 1
        )
        if own
        else 0.0,
    )


def comes_from_elsewhere(stratum: str, corpus: CorpusSettings) -> bool:
    """Whether the crawl, or the collection of a name, comes over the network."""
    if stratum == corpus.source.crawl:
        return _is_elsewhere(corpus.source.base_url)
    return any(_is_elsewhere(path) for each in corpus.collections if each.name == stratum for path in each.paths)


def _is_elsewhere(url: str) -> bool:
    return "://" in url and not url.startswith(("file://", "local://"))


def network_left(network: NetworkPlan, there: Sequence[StageThere]) -> NetworkPlan:
    """What is left of it where some shards were fetched already."""
    part = 1 - next((each.shards_done / each.shards for each in there if each.stage == FETCH.name), 0.0)
    if part in (0, 1):
        return network if part else _NO_NETWORK
    names = ("bytes", "requests", "expected_retries", "seconds_at_speed", "seconds_at_limits")
    return network.model_copy(update={name: round(part * getattr(network, name), 1) for name in names})


def _assumptions(measured: Extrapolation, stages: Sequence[StagePlan]) -> Iterator[str]:
    last = measured.passes[-1]
    read = sum(measured.read_bytes(shard) for shard in measured.stratum_of)
    yield (
        f"{len(measured.stratum_of)} of {measured.shards:,} shards were read from their heads, {read / 1e6:,.1f} MB; "
        f"the whole is {measured.overall:,.1f} times that and scaled by bytes. Low and high are what the poorest and "
        "the richest of the sampled shards would make it: with few shards, the truth may lie beyond"
    )
    for stratum in measured.strata:
        if len(stratum.sizes) + stratum.missing < len(stratum.shards):
            sizes = sorted(stratum.sizes.values())
            yield (
                f"sizes of {len(sizes)} of {len(stratum.shards):,} shards of {stratum.name} were asked for: "
                f"{sizes[0]:,} to {sizes[-1]:,} bytes"
            )
    yield (
        "a sample cannot tell how many duplicates the whole has, which grow with it: documents, tokens and disk behind "
        "dedup are upper bounds, and dedup's own work may grow faster than the corpus"
    )
    if measured.corpus.dedup.index is not None:
        yield f"the index {measured.corpus.dedup.index} of earlier datasets was not asked: it drops more"
    yield (
        f"processor seconds were measured with one worker on this machine; each of {measured.workers} workers is taken "
        "to have a core of its own, as fast, and disk that keeps up. Compiled code that is kept on disk may spare some "
        "of the start-up of each worker"
    )
    if any(each.workers == 1 for each in stages) and measured.workers > 1:
        names = ", ".join(each.stage for each in stages if each.workers == 1)
        yield f"one worker is taken to do each of these alone, though a large corpus may cut its work in parts: {names}"
    yield "peak memory is what one worker had on the sample; stages that join shards have settings that bound theirs"
    yield from last.notes


def _warnings(measured: Extrapolation, totals: Totals, free: int | None) -> Iterator[str]:
    source = measured.corpus.source
    if (warning := disk_warning(totals, free)) is not None:
        yield warning
    for stratum in measured.strata:
        if stratum.missing:
            asked = len(stratum.sizes) + stratum.missing
            yield f"{stratum.missing} of {asked} shards of {stratum.name} that were asked for are not there"
    own = any(host in source.base_url for host in ("//127.", "//localhost"))
    if source.crawl is not None and is_http(source.base_url) and not own and source.transport.contact is None:
        yield "corpus.source.transport.contact is not set: servers want to know whom to turn to"


def disk_warning(totals: Totals, free: int | None) -> str | None:
    """What to say of a disk with so many bytes free; None if they are enough or not known."""
    if free is None or free >= totals.disk_bytes:
        return None
    return f"about {totals.disk_bytes:,} bytes are needed under the root, {free:,} are free"
