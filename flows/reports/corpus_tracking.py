"""A dataset as a run of MLflow: what was asked for, what each stage made of it, and what the dataset is.

    datasets/NAME/VERSION/tracked.json    where its MLflow run is

Numbers and reason codes only: no text of a document, no URL and no host goes to MLflow, which others may read than may
read the dataset's report.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from prefect.runtime import flow_run

from flows.config import TrackingSettings
from flows.reports.reporting import link_mlflow_run
from flows.reports.tracking_tags import experiment, run_tags, run_title
from flows.runs import tracking_uri
from infra.change_report import ChangeReport, headline
from infra.environment import Environment
from infra.errors import BadInput
from infra.manifest import DatasetManifest
from infra.report import CorpusReport, StageCounts
from infra.run_description import log_inputs, used_dataset
from infra.store import Store
from infra.tracking import (
    Tolerant,
    TrackedRun,
    client_of,
    describe_run,
    ending_with,
    log_metrics,
    log_table,
    log_text,
    open_run,
    run_at,
)
from model.run import LaunchRecord

logger = logging.getLogger(__name__)


def track_corpus(
    store: Store, dataset: DatasetManifest, report: CorpusReport, environment: Environment, tracking: TrackingSettings
) -> TrackedRun | None:
    """Record a published dataset, once; None and a warning where MLflow does not answer."""
    try:
        return _track(store, dataset, report, environment, tracking)
    except BadInput as error:  # hours of work are not lost because a server is away
        logger.warning("dataset %s/%s is not in MLflow: %s", dataset.name, dataset.version, error)
        return None


def _track(
    store: Store, dataset: DatasetManifest, report: CorpusReport, environment: Environment, tracking: TrackingSettings
) -> TrackedRun:
    if (earlier := _earlier(store, dataset, tracking_uri(store, environment))) is not None:
        LaunchRecord(tracked=earlier).save(store, _path(dataset.folder))
        return earlier
    name = f"{dataset.name}/{dataset.version}"
    tags = {"dataset": name, "dataset.fingerprint": dataset.fingerprint, **tracking.tags}
    tracked = open_run(
        store,
        environment.mlflow_tracking_uri,
        experiment(environment, "corpus"),
        run_title(tracking.title, "corpus", name, dataset.fingerprint),
        datasets=[used_dataset(store, dataset, "published")],
        tags=run_tags("corpus", tags, tracking.notes),
        parameters=dataset.settings,
        started=flow_run.get_scheduled_start_time(),
    )
    with ending_with(tracked):
        log_metrics(tracked, 0, corpus_metrics(dataset, report))
        log_table(tracked, funnel_rows(report.stages), "funnel.json")
        describe_run(tracked, "")
    LaunchRecord(tracked=tracked).save(store, _path(dataset.folder))
    link_mlflow_run(store, tracked, key="mlflow-corpus")
    return tracked


def _earlier(store: Store, dataset: DatasetManifest, wanted: str) -> TrackedRun | None:
    """The dataset's run, where it is wanted or where it was recorded: a server that is silent there may be gone."""
    recorded = tracked_corpus(store, dataset.folder)
    if recorded is None:
        return None
    if (found := run_at(recorded, wanted)) is not None:
        return found
    with suppress(BadInput):
        return run_at(recorded, recorded.tracking_uri)
    return None


def track_changes(store: Store, report: ChangeReport, previous: DatasetManifest | None) -> None:
    """Add what a refresh brought to the MLflow run of its dataset; nothing where that is not tracked."""
    tracked = tracked_corpus(store, report.folder)
    if tracked is None:
        return
    with Tolerant("the change report"):
        if previous is not None:
            client = client_of(tracked)
            log_inputs(client, tracked.run_id, [used_dataset(store, previous, "previous")])
        log_metrics(tracked, 0, change_metrics(report))
        described = ChangeReport.model_validate({**report.model_dump(), "hosts": ()})
        log_text(tracked, described.markdown(), "changes.md")
        describe_run(tracked, "\n\n".join(headline(report)))


def tracked_corpus(store: Store, folder: str) -> TrackedRun | None:
    """Where the dataset in a folder is tracked, if it is."""
    return LaunchRecord.load(store, _path(folder)).tracked if store.exists(_path(folder)) else None


def _path(folder: str) -> str:
    return f"{folder}/tracked.json"


def change_metrics(report: ChangeReport) -> dict[str, float]:
    """Documents that came in and did not, and how far each signal has moved."""
    now = report.total.now
    metrics: dict[str, float] = {"changes/added": now.added, "changes/known": now.known, "changes/dropped": now.dropped}
    metrics |= {"changes/alarms": len(report.alarms), "changes/tokens": now.tokens}
    drift = {f"drift/{each.signal} {each.population}": each.psi for each in report.signals if each.psi is not None}
    return metrics | drift


def corpus_metrics(dataset: DatasetManifest, report: CorpusReport) -> dict[str, float]:
    """Figures of a dataset and of the stages on the way to it; MLflow draws a section for each stage."""
    metrics: dict[str, float] = {
        "tokens/train": dataset.tokens("train"),
        "tokens/heldout": dataset.tokens("heldout"),
        "documents": sum(shard.documents for shard in dataset.shards),
        "text_bytes": sum(shard.text_bytes for shard in dataset.shards),
        "records/read": report.records.read,
        "records/quarantined": report.records.quarantined,
        "seconds": sum(stage.seconds for stage in report.stages),
    }
    for stage in report.stages:
        metrics |= {f"{stage.name}/{name}": value for name, value in _stage_metrics(stage).items()}
    return metrics


def _stage_metrics(stage: StageCounts) -> dict[str, float]:
    found: dict[str, float] = {"in": stage.entered, "kept": stage.kept, "seconds": stage.seconds}
    if stage.rate is not None:
        found["documents_per_second"] = stage.rate
    return found | {f"dropped {reason}": count for reason, count in stage.dropped.items()}


def funnel_rows(stages: Sequence[StageCounts]) -> list[dict[str, Any]]:
    """A row for each stage and reason to drop a document, `kept` among them."""
    return [
        {"stage": stage.name, "in": stage.entered, "what": what, "documents": count, "seconds": stage.seconds}
        for stage in stages
        for what, count in {"kept": stage.kept, **stage.dropped}.items()
    ]
