"""What earlier runs have made already of a corpus: its finished stages, and shards of the first that is not finished.

The pipeline is gone through as a run would, up to the first stage that would have work to do; nothing is made. What
later stages are called depends on what that one makes, so they count as to be done.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from infra.cluster import Cluster
from infra.manifest import DatasetManifest, ShardRecord, StageManifest
from infra.settings import Settings
from infra.store import Store
from tasks.config import CorpusSettings
from tasks.pipeline import measure, pinned_corpus, refine, remeasured
from tasks.stage import ShardTask, Stage, StageRunner, finished_shard


class StageThere(Settings):
    """A stage, or the part of it, that is there."""

    stage: str
    shards: int
    shards_done: int

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.shards_done == self.shards


class AlreadyMade(Settings):
    """What of a corpus is there."""

    stages: tuple[StageThere, ...]
    """In order; the last perhaps in part."""
    complete: bool
    """Whether nothing is left but to publish it."""


class _WorkLeft(Exception):
    """A stage is not finished."""


@dataclass(frozen=True)
class _Looker(StageRunner):
    """Finds stages, and makes none."""

    found: list[StageThere] = field(default_factory=list)

    def run(self, *arguments: Any, **named: Any) -> StageManifest:
        manifest = super().run(*arguments, **named)
        shards = len(manifest.shards)
        self.found.append(StageThere(stage=manifest.stage, shards=shards, shards_done=shards))
        return manifest

    def _run_shards(self, stage: Stage, folder: str, tasks: Sequence[ShardTask]) -> tuple[list[ShardRecord], Any]:
        done = sum(finished_shard(self.store, task) is not None for task in tasks)
        # Finished shards without a manifest are less than a finished stage: the manifest is still to be written.
        self.found.append(StageThere(stage=stage.name, shards=max(len(tasks), 1), shards_done=done))
        raise _WorkLeft


def already_made(corpus: CorpusSettings, store: Store, origin: DatasetManifest | None = None) -> AlreadyMade:
    """Look for the stages of a corpus, its source resolved; BadInput as a run would raise it for the same settings.

    With an `origin` those that would come after the signals of that dataset.
    """
    if not store.exists("stages"):  # a root that nobody has used stays as it is, without a list of the crawl's shards
        return AlreadyMade(stages=(), complete=False)
    looker, settings = _Looker(store, cast("Cluster", None)), pinned_corpus(corpus, store)
    try:
        build = measure(looker, settings) if origin is None else remeasured(looker, settings, origin)
        refine(looker, build, settings)
    except _WorkLeft:
        return AlreadyMade(stages=tuple(looker.found), complete=False)
    return AlreadyMade(stages=tuple(looker.found), complete=True)
