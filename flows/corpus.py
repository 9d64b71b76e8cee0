"""The corpus flow: from a crawl to a published dataset. Prefect sees stages, Dask sees shards."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.beginning import begin
from flows.config import DatasetSettings, PipelineSettings, TrackingSettings
from flows.live.watching import watched_runner
from flows.plans.whole_plan import affordable
from flows.reports.corpus_tracking import track_corpus
from flows.reports.dataset_reporting import publish_dataset_report
from flows.reports.reporting import corpus_report, publish_funnel
from flows.sample import resolve_source
from infra.environment import Environment
from infra.manifest import DatasetManifest, load_dataset
from infra.report import CorpusReport
from infra.settings import Settings
from tasks import dataset as datasets
from tasks.config import CorpusSettings
from tasks.duplicates.dedup_index import add_segment
from tasks.pipeline import Build, measure, pinned_corpus, refine, remeasured

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class Corpus(Settings):
    """What the flow returns: the dataset, and what became of every record on the way to it."""

    dataset: DatasetManifest
    report: CorpusReport


@task(cache_policy=NO_CACHE, task_run_name="{name}", persist_result=False)
def stage(name: str, make: Callable[..., Result], *arguments: Any) -> Result:
    """One stage as Prefect sees it. Its manifest is the cache, so a finished stage returns at once."""
    return make(*arguments)


@flow(name="build_corpus", persist_result=False)
def build_corpus(
    corpus: CorpusSettings = CorpusSettings(),
    dataset: DatasetSettings = DatasetSettings(),
    environment: Environment = Environment(),
    tracking: TrackingSettings = TrackingSettings(),
) -> Corpus:
    """Fetch, extract, filter, deduplicate, redact and tokenize a crawl, and publish the result as a dataset."""
    store = begin(environment)
    affordable("build_corpus", PipelineSettings(environment=environment, dataset=dataset, corpus=corpus))
    with watched_runner(store, environment) as runner:
        settings = corpus.model_copy(update={"source": stage("source", resolve_source, corpus.source, store)})
        settings = stage("files", pinned_corpus, settings, store)
        origin = load_dataset(store, *dataset.rebuild.split("/")) if dataset.rebuild else None
        build = measure(runner, settings, stage) if origin is None else remeasured(runner, settings, origin, stage)
        own = None if dataset.version is None else (dataset.name, dataset.version)
        made = refine(runner, build, settings, own, stage)
        manifest = datasets.publish(
            store, dataset.name, dataset.version, corpus, [*build.every, made.ledger], made.tokenizer, origin
        )
        if (index := corpus.dedup.index) is not None:
            signed, last = build.stage("signatures"), build.passed[-2]
            stage("index", add_segment, runner, index, manifest.name, manifest.version, signed, last)
    report = corpus_report(store, manifest, build.passed, build.helpers)
    publish_funnel(report)
    publish_dataset_report(store, manifest, made, settings)
    track_corpus(store, manifest, report, environment, tracking)
    _say_what_to_look_at(manifest, build)
    return Corpus(dataset=manifest, report=report)


def _say_what_to_look_at(manifest: DatasetManifest, build: Build) -> None:
    for alarm in build.dedup.alarms if build.dedup else ():
        logger.warning(
            "source %s lost %s of %s documents as duplicates (%.0f%%): look at the largest clusters",
            alarm.source,
            f"{alarm.lost:,}",
            f"{alarm.documents:,}",
            100 * alarm.share,
        )
    logger.info(
        "dataset %s/%s: %s tokens for training, %s held out",
        manifest.name,
        manifest.version,
        f"{manifest.tokens('train'):,}",
        f"{manifest.tokens('heldout'):,}",
    )
