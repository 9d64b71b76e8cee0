"""The whole chain: corpus, pretraining, evaluation, report. Read this first."""

import logging

from prefect import flow
from prefect.runtime import flow_run

from flows.beginning import begin
from flows.config import DatasetSettings, PipelineSettings
from flows.corpus import build_corpus
from flows.evaluation import evaluate
from flows.outcome import Outcome
from flows.plans.whole_plan import affordable
from flows.pretraining import check_training, pretrain
from flows.reports.reporting import run_report, write_report
from model.config import validate_evaluation

logger = logging.getLogger(__name__)


@flow(name="crawl_to_model", persist_result=False)
def crawl_to_model(settings: PipelineSettings = PipelineSettings()) -> Outcome:
    """Fetch, extract, filter, deduplicate, redact, tokenize, pretrain, evaluate and report."""
    store, environment = begin(settings.environment), affordable("crawl_to_model", settings)
    if settings.corpus.tokenizer.path is None:  # the vocabulary is known before there is a corpus
        vocabulary_size = settings.corpus.tokenizer.vocabulary_size
        check_training(settings.training, vocabulary_size, environment)
        validate_evaluation(settings.evaluation, settings.training.model, vocabulary_size)
    corpus = build_corpus(settings.corpus, settings.dataset, environment, settings.tracking)
    dataset = DatasetSettings(name=corpus.dataset.name, version=corpus.dataset.version)
    training = pretrain(dataset, settings.run, settings.training, environment, settings.tracking)
    evaluation = evaluate(training.run.folder, settings.evaluation, settings.contamination, environment=environment)
    report = run_report(corpus.report, training.summary, evaluation.record, training.tracked, flow_run.id)
    write_report(store, training.run, report, training.tracked)
    outcome = Outcome(report=report, run=training.run.folder, dataset=corpus.dataset.folder)
    outcome.remember(store, settings)
    return outcome
