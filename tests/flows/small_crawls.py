"""A source of several small crawls, and a refresh of it without Prefect, for tests of refreshes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.config import DatasetSettings
from flows.refreshes.refreshing import Refreshed, Refreshing
from flows.refreshes.settings import RefreshSettings
from infra.change_report import ChangeReport
from infra.cluster import Cluster
from infra.manifest import DatasetManifest
from infra.store import Store
from tasks.changes import DriftSettings, change_report
from tasks.config import CorpusSettings
from tasks.dataset import publish
from tasks.duplicates.dedup_index import add_segment
from tasks.heldout import HeldoutSettings
from tasks.pipeline import measure, pinned_corpus, refine
from tasks.sources.transport import SourceSettings
from tasks.stage import StageRunner
from tasks.tokens.tokenizer import TokenizerSettings
from tests.tasks.chains import only_long_documents
from tests.tasks.documents import prose
from tests.tasks.records import members, page, response, warcinfo, write_crawl


def write_crawls(root: Path, crawls: Mapping[str, Sequence[Sequence[int]]]) -> None:
    """A mirror whose crawls have shards of pages, each a number of a text of `prose`."""
    for crawl, shards in crawls.items():
        write_crawl(root, [shard_of(crawl, texts) for texts in shards], crawl=crawl)
    listed = [{"id": crawl} for crawl in reversed(list(crawls))]
    (root / "collinfo.json").write_text(json.dumps(listed))


def shard_of(crawl: str, texts: Sequence[int]) -> bytes:
    """One archive: the same page has another address in each crawl."""
    pages = [response(f"https://{crawl.lower()}.test/{number}", page(prose()[number])) for number in texts]
    return members(warcinfo(), *pages)


def settings(mirror: Path, **changes: Any) -> RefreshSettings:
    """A refresh that keeps all long texts."""
    corpus = CorpusSettings(
        source=SourceSettings(base_url=str(mirror)),
        filter=only_long_documents(),
        heldout=HeldoutSettings(fraction=0.3),
        tokenizer=TokenizerSettings(vocabulary_size=400),
    )
    return RefreshSettings.model_validate({"dataset": "news", "corpus": corpus, **changes})


class Stopped(RuntimeError):
    """As if the process had been killed."""


@dataclass
class Builder:
    """Builds, indexes and compares as the flow does, on a cluster of the tests; and stops where it is told to."""

    store: Store
    cluster: Cluster
    stop_at: str = ""
    """build, index or report."""
    built: list[str] = field(default_factory=list)
    indexed: list[str] = field(default_factory=list)
    """Versions that were to be in the index, in order."""

    def refreshing(self, refresh: RefreshSettings) -> Refreshing:
        return Refreshing(self.store, refresh, self.build, self.report, self.index)

    def run(self, refresh: RefreshSettings) -> list[Refreshed]:
        """A whole refresh."""
        steps = self.refreshing(refresh)
        made = steps.run()
        steps.end()
        return made

    def build(self, corpus: CorpusSettings, dataset: DatasetSettings) -> DatasetManifest:
        self._maybe_stop("build")
        assert dataset.version is not None
        runner = StageRunner(self.store, self.cluster)
        pinned = pinned_corpus(corpus, self.store)
        made = refine(runner, measure(runner, pinned), pinned, (dataset.name, dataset.version))
        stages = [*made.build.every, made.ledger]
        manifest = publish(self.store, dataset.name, dataset.version, corpus, stages, made.tokenizer)
        self._maybe_stop("index")
        assert corpus.dedup.index is not None
        signed, last = made.build.stage("signatures"), made.build.passed[-2]
        add_segment(runner, corpus.dedup.index, manifest.name, manifest.version, signed, last)
        self.built.append(manifest.version)
        return manifest

    def report(self, dataset: DatasetManifest, previous: DatasetManifest | None, crawl: str) -> ChangeReport:
        self._maybe_stop("report")
        return change_report(self.store, dataset, previous, DriftSettings(), [crawl])

    def index(self, index: str, dataset: DatasetManifest) -> None:
        self.indexed.append(dataset.version)

    def _maybe_stop(self, where: str) -> None:
        if self.stop_at == where:
            raise Stopped(where)
