"""The corpus flow: from a crawl to a published dataset. Prefect sees stages, Dask sees shards."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows import progress
from flows.config import DatasetSettings
from flows.reporting import corpus_report, publish_funnel
from flows.sample import resolve_source
from infra.cluster import open_cluster
from infra.manifest import DatasetManifest, StageManifest
from infra.report import CorpusReport
from infra.settings import Environment, Settings
from infra.store import Store
from tasks import dataset as datasets
from tasks.config import CorpusSettings
from tasks.dedup import dedup
from tasks.extract import EXTRACT, extract
from tasks.fetch import fetch
from tasks.language import LANGUAGE, language
from tasks.quality import QUALITY, quality
from tasks.redact import REDACT, redact
from tasks.stage import StageRunner
from tasks.tokenization import tokenization
from tasks.tokenizer import train_tokenizer

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
) -> Corpus:
    """Fetch, extract, filter, deduplicate, redact and tokenize a crawl, and publish the result as a dataset."""
    progress.let_through()
    store = Store(environment.root)
    with open_cluster(environment) as cluster:
        logger.info("Dask: %d workers, dashboard %s", cluster.workers, cluster.dashboard)
        runner = StageRunner(store, cluster)
        source = stage("source", resolve_source, corpus.source, store)
        pages = stage("fetch", fetch, runner, source)
        text = stage("extract", runner.apply, EXTRACT, extract, pages, corpus.extract)
        wanted = stage("language", runner.apply, LANGUAGE, language, text, corpus.language)
        good = stage("quality", runner.apply, QUALITY, quality, wanted, corpus.quality)
        signed, clusters, unique = stage("dedup", dedup, runner, good, corpus.dedup)
        clean = stage("redact", runner.apply, REDACT, redact, unique, corpus.redact)
        learned, tokenizer = stage("train tokenizer", train_tokenizer, runner, clean, corpus.tokenizer, corpus.heldout)
        tokens = stage("tokenize", tokenization, runner, clean, tokenizer, corpus.heldout)
    stages: list[StageManifest] = [pages, text, wanted, good, unique, clean, tokens]
    manifest = datasets.publish(store, dataset.name, dataset.version, corpus, stages, tokenizer)
    report = corpus_report(store, manifest, stages, {"dedup": [signed, clusters], "tokenizer": [learned]})
    publish_funnel(report)
    logger.info(
        "dataset %s/%s: %s tokens for training, %s held out",
        manifest.name,
        manifest.version,
        f"{manifest.tokens('train'):,}",
        f"{manifest.tokens('heldout'):,}",
    )
    return Corpus(dataset=manifest, report=report)
