"""A sample of a source, sent through the whole pipeline: what a plan is measured on.

Some shards, evenly spaced, are read from their heads, by one worker, under a root that is thrown away. The pipeline
runs three times: on as much of other shards, so that libraries are loaded, code is compiled and languages are met; on
the sample; and on a part of it. The last two tell what a shard costs whatever it holds from what its bytes cost.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, cast

from pydantic import Field

from infra.cluster import Cluster
from infra.errors import BadInput, GristmillError
from infra.manifest import StageManifest, Telemetry
from infra.settings import Settings
from infra.store import Store
from tasks.config import CorpusSettings
from tasks.pipeline import Build, measure, pinned_corpus, refine
from tasks.sources.collections import collection_of
from tasks.sources.fetch import FETCH, ReadSettings
from tasks.sources.transport import (
    SourceMissingError,
    SourceSettings,
    SourceUnavailableError,
    TransportSettings,
    join_url,
    source_size,
)
from tasks.stage import ShardFunction, Split, Stage, StageRunner
from tasks.tokens.tokenizer import TokenizerSettings, train_tokenizer

logger = logging.getLogger(__name__)
LEAST_VOCABULARY = 300


class PlanSettings(Settings):
    """How large the sample is that a plan is measured on."""

    sample_shards: int = Field(default=2, ge=1)
    """Shards of the crawl, and of each collection, that are read."""
    sample_records: int = Field(default=300, ge=1)
    """Records to read from the head of each."""
    sample_sizes: int = Field(default=50, ge=1)
    """Shards of the crawl whose sizes are asked for; those of the others are taken to be alike."""


@dataclass
class Stratum:
    """Shards of one kind: those of the crawl, or those of one collection."""

    name: str
    shards: list[str]
    sizes: dict[str, int]
    """Bytes of the shards whose sizes are known."""
    missing: int = 0
    """Shards whose size was asked for and that are not there."""
    chosen: list[str] = field(default_factory=list)
    """Shards of the sample."""
    others: list[str] = field(default_factory=list)
    """Shards to warm up on: workers keep words that they have met, so those of the sample must be new to them."""

    @property
    def bytes(self) -> float:
        """Bytes of all shards, unknown ones taken to be like the known ones."""
        return len(self.shards) * self.mean

    @property
    def mean(self) -> float:
        """Bytes of a shard on average; one that is missing has none."""
        return sum(self.sizes.values()) / max(len(self.sizes) + self.missing, 1)


class Pass(NamedTuple):
    """The pipeline run over the sample once."""

    store: Store
    manifests: list[StageManifest]
    """Every stage that ran, in order."""
    passed: list[str]
    """Names of the stages that documents pass through."""
    notes: list[str]
    """What could not be measured."""
    records: int
    """Records that were to be read of each shard, at most."""

    def telemetry(self, manifest: StageManifest) -> Telemetry:
        """How one of its stages ran."""
        return Telemetry.load(self.store, f"{manifest.folder}/telemetry.json")


@dataclass(frozen=True)
class BySource:
    """A shard function whose telemetry is counted for each source by itself: `count source`."""

    function: ShardFunction

    def __call__(self, store: Store, source: str, settings: Any) -> Iterator[Split]:
        """Yield the splits of the function."""
        for split in self.function(store, source, settings):
            yield replace(split, telemetry={f"{name} {source}": count for name, count in split.telemetry.items()})


@dataclass(frozen=True)
class SampleRunner(StageRunner):
    """Runs stages as they are, but fetches a sample of the shards only, and keeps all manifests."""

    choose: Callable[[Sequence[str], Any], list[str]] = field(kw_only=True)
    ran: list[StageManifest] = field(default_factory=list)

    def run(
        self,
        stage: Stage,
        function: ShardFunction,
        sources: Sequence[str],
        settings: Any,
        parents: Any,
    ) -> StageManifest:
        """Make a stage."""
        if stage.name == FETCH.name:
            sources, function = self.choose(sources, settings), BySource(function)
        manifest = super().run(stage, function, sources, settings, parents)
        self.ran.append(manifest)
        return manifest


@dataclass
class Sampler:
    """The sample of one source: chosen once, the same for all passes."""

    cluster: Cluster
    corpus: CorpusSettings
    plan: PlanSettings
    strata: list[Stratum] = field(default_factory=list)

    def run(self, store: Store, records: int, warming: bool = False) -> Pass:
        """Send so many records of each chosen shard, or of those to warm up on, through the pipeline."""
        runner = SampleRunner(store, self.cluster, choose=partial(self._choose, store, warming))
        limit = min(records, self.corpus.source.max_records or records)
        source = self.corpus.source.model_copy(update={"max_records": limit})
        collections = tuple(each.model_copy(update={"identify_by": "stat"}) for each in self.corpus.collections)
        dedup = self.corpus.dedup.model_copy(update={"index": None})
        update = {"source": source, "collections": collections, "dedup": dedup}
        settings = pinned_corpus(self.corpus.model_copy(update=update), store)
        build, notes = Build(), []
        try:
            build = measure(runner, settings)
            refine(runner, build, settings, None, partial(_forgiving, notes))
        except GristmillError as error:
            if not runner.ran:
                raise
            notes.append(f"the stages after {runner.ran[-1].stage} could not be measured on the sample: {error}")
        return Pass(store, runner.ran, [each.stage for each in build.passed] or [FETCH.name], notes, limit)

    def _choose(
        self, store: Store, warming: bool, shards: Sequence[str], settings: SourceSettings | ReadSettings
    ) -> list[str]:
        if not self.strata:
            self.strata = self._stratify(store, shards, settings)
        return [shard for stratum in self.strata for shard in (stratum.others if warming else stratum.chosen)]

    def _stratify(self, store: Store, shards: Sequence[str], settings: SourceSettings | ReadSettings) -> list[Stratum]:
        groups: dict[str, list[str]] = {}
        for shard in shards:
            found = collection_of(shard, self.corpus.collections)
            groups.setdefault("" if found is None else found.name, []).append(shard)
        strata = []
        for name, members in groups.items():
            if name == "" or not isinstance(settings, ReadSettings):
                stratum = self._crawl(members)
            else:
                stratum = Stratum(name, members, _listed_sizes(store, settings.listing))
            known = [shard for shard in members if shard in stratum.sizes]
            stratum.chosen = evenly(known, self.plan.sample_shards)
            rest = [shard for shard in known if shard not in stratum.chosen]
            stratum.others = evenly(rest, self.plan.sample_shards) or stratum.chosen
            strata.append(stratum)
        return strata

    def _crawl(self, shards: list[str]) -> Stratum:
        """The crawl's shards with the sizes of some, asked for on the cluster: there the rates are kept."""
        asked = evenly(shards, max(self.plan.sample_sizes, 2 * self.plan.sample_shards))
        source = self.corpus.source
        size = partial(_size, source.base_url, source.transport)
        found = dict(self.cluster.map(size, asked, "sizes of shards"))
        sizes = {shard: found[shard] for shard in asked if found[shard] is not None}
        if not sizes:
            raise BadInput(
                f"{source.crawl} at {source.base_url}",
                f"the size of one of {len(asked)} listed shards must be known",
                "Check source.base_url, or try again later",
            )
        return Stratum(str(source.crawl), shards, cast("dict[str, int]", sizes), len(asked) - len(sizes))


def evenly(items: Sequence[str], count: int) -> list[str]:
    """Some items, evenly spaced, from the middles of as many parts of the sequence."""
    count = min(count, len(items))
    return [items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count)]


def _size(base_url: str, transport: TransportSettings, path: str) -> tuple[str, int | None]:
    try:
        return path, source_size(join_url(base_url, path), transport)
    except (SourceMissingError, SourceUnavailableError, ValueError):
        return path, None


def _listed_sizes(store: Store, listing: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for row in store.read_table(listing, ["shard", "bytes"]).to_pylist():
        sizes[row["shard"]] = sizes.get(row["shard"], 0) + row["bytes"]
    return sizes


def _forgiving(notes: list[str], _: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """A step of the pipeline. A vocabulary that the small sample cannot fill is halved until it can."""
    if function is not train_tokenizer:
        return function(*arguments)
    runner, parent, settings, heldout = arguments
    wanted: TokenizerSettings = settings
    while True:
        try:
            made = train_tokenizer(runner, parent, settings, heldout)
        except BadInput:
            if wanted.path is not None or settings.vocabulary_size == LEAST_VOCABULARY:
                raise
            size = max(settings.vocabulary_size // 2, LEAST_VOCABULARY)
            settings = settings.model_copy(update={"vocabulary_size": size})
        else:
            if wanted.path is None and made[1].vocabulary_size < wanted.vocabulary_size:
                notes.append(
                    f"the sample fills only {made[1].vocabulary_size:,} places of a vocabulary of "
                    f"{wanted.vocabulary_size:,}: the whole corpus may make fewer tokens of the same text"
                )
            return made
