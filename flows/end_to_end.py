"""The whole chain: corpus, pretraining, evaluation, report. Read this first."""

import logging

from prefect import flow
from prefect.runtime import flow_run

from flows.beginning import begin
from flows.config import DatasetSettings, PipelineSettings
from flows.corpus import build_corpus
from flows.evaluation import evaluate
from flows.jobs import require_measurable, require_trainable
from flows.outcome import Outcome
from flows.plans.whole_plan import affordable
from flows.pretraining import pretrain
from flows.reports.reporting import run_report, write_report
from tasks.tokens.tokenizer import vocabulary_of

logger = logging.getLogger(__name__)


@flow(name="crawl_to_model", persist_result=False)
def crawl_to_model(settings: PipelineSettings = PipelineSettings()) -> Outcome:
    """Fetch, extract, filter, deduplicate, redact, tokenize, pretrain, evaluate and report."""
    store = begin(settings.environment)
    vocabulary_size = vocabulary_of(settings.corpus.tokenizer, store)
    require_trainable(settings.training, vocabulary_size, settings.dataset.name, settings.environment)
    require_measurable(settings.evaluation, settings.training, vocabulary_size, settings.environment)
    environment = affordable("crawl_to_model", settings)
    corpus = build_corpus(settings.corpus, settings.dataset, environment, settings.tracking)
    dataset = DatasetSettings(name=corpus.dataset.name, version=corpus.dataset.version)
    training = pretrain(dataset, settings.run, settings.training, environment, settings.tracking)
    evaluation = evaluate(training.run.folder, settings.evaluation, settings.contamination, environment=environment)
    report = run_report(corpus.report, training.summary, evaluation.record, training.tracked, flow_run.id)
    write_report(store, training.run, report, training.tracked)
    outcome = Outcome(report=report, run=training.run.folder, dataset=corpus.dataset.folder)
    outcome.remember(store, settings)
    return outcome
