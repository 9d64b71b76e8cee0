"""A dataset as a run of MLflow: what was asked for, what each stage made of it, and what the dataset is.

    datasets/NAME/VERSION/tracked.json    where its MLflow run is

Numbers and reason codes only: no text of a document, no URL and no host goes to MLflow, which others may read than may
read the dataset's report.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from flows.config import TrackingSettings
from flows.reporting import link_mlflow_run
from flows.tracking_tags import experiment, run_tags, run_title
from infra.environment import Environment
from infra.errors import BadInput
from infra.manifest import DatasetManifest
from infra.report import CorpusReport, StageCounts
from infra.run_description import UsedDataset, used_dataset
from infra.store import Store
from infra.tracking import TrackedRun, ending_with, has_run, log_metrics, log_table, open_run
from model.run import LaunchRecord

logger = logging.getLogger(__name__)


def track_corpus(
    store: Store,
    dataset: DatasetManifest,
    report: CorpusReport,
    environment: Environment,
    tracking: TrackingSettings = TrackingSettings(),
    *,
    previous: DatasetManifest | None = None,
    metrics: Mapping[str, float] | None = None,
    tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> TrackedRun | None:
    """Record a published dataset, once; None and a warning where MLflow does not answer.

    A refresh gives the version before, further figures and further tables by their file names: those of its changes.
    """
    try:
        return _track(store, dataset, report, environment, tracking, previous, metrics or {}, tables or {})
    except BadInput as error:  # hours of work are not lost because a server is away
        logger.warning("dataset %s/%s is not in MLflow: %s", dataset.name, dataset.version, error)
        return None


def _track(
    store: Store,
    dataset: DatasetManifest,
    report: CorpusReport,
    environment: Environment,
    tracking: TrackingSettings,
    previous: DatasetManifest | None,
    metrics: Mapping[str, float],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
) -> TrackedRun:
    path = f"{dataset.folder}/tracked.json"
    earlier = LaunchRecord.load(store, path).tracked if store.exists(path) else None
    if earlier is not None and has_run(earlier):
        return earlier
    name = f"{dataset.name}/{dataset.version}"
    tags = {
        "dataset": name,
        "dataset.fingerprint": dataset.fingerprint,
        "mlflow.note.content": tracking.notes or "",
        **tracking.tags,
    }
    tracked = open_run(
        store,
        environment.mlflow_tracking_uri,
        experiment(environment, "corpus"),
        run_title(tracking.title, "corpus", name, dataset.fingerprint),
        datasets=_used(store, dataset, previous),
        tags=run_tags("corpus", tags),
        parameters=dataset.settings,
    )
    with ending_with(tracked):
        log_metrics(tracked, 0, {**corpus_metrics(dataset, report), **metrics})
        log_table(tracked, funnel_rows(report.stages), "funnel.json")
        for file, rows in (tables or {}).items():
            log_table(tracked, rows, file)
    LaunchRecord(tracked=tracked).save(store, path)
    link_mlflow_run(store, tracked)
    return tracked


def _used(store: Store, dataset: DatasetManifest, previous: DatasetManifest | None) -> list[UsedDataset]:
    before = [] if previous is None else [used_dataset(store, previous, "previous")]
    return [used_dataset(store, dataset, "published"), *before]


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
