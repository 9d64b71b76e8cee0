"""The whole chain: corpus, pretraining, evaluation, report. Read this first."""

import logging

from prefect import flow
from prefect.runtime import flow_run

from flows.config import DatasetSettings, PipelineSettings
from flows.corpus import build_corpus
from flows.evaluation import evaluate
from flows.pretraining import pretrain
from flows.reporting import run_report, write_report
from infra.report import Report
from infra.settings import Settings
from infra.store import Store

logger = logging.getLogger(__name__)


class Outcome(Settings):
    """What the flow returns: the report and the folder that holds it."""

    report: Report
    folder: str


@flow(name="crawl_to_model", persist_result=False)
def crawl_to_model(settings: PipelineSettings = PipelineSettings()) -> Outcome:
    """Fetch, extract, filter, deduplicate, redact, tokenize, pretrain, evaluate and report."""
    environment = settings.environment
    corpus = build_corpus(settings.corpus, settings.dataset, environment)
    dataset = DatasetSettings(name=corpus.dataset.name, version=corpus.dataset.version)
    training = pretrain(dataset, settings.run, settings.training, environment)
    evaluation = evaluate(dataset, settings.run, settings.training, settings.evaluation, environment)
    store = Store(environment.root)
    report = run_report(corpus.report, training.summary, evaluation.record, training.tracked, flow_run.id)
    write_report(store, training.run, report, training.tracked)
    return Outcome(report=report, folder=training.run.folder)
