"""Checkpoints in MLflow: one *logged model* for each, found by its metrics, whether or not it is ever registered.

It says where the weights are and holds none. A checkpoint is told by the digest of its files, so whoever logs it again
(the run that made it, a promotion) finds the same one. `mlflow.search_logged_models` finds the best:

    metrics.`heldout/bits_per_byte` < 1.1 AND tags.`checkpoint.removed` = 'false'

MLflow takes names with dots and slashes in backticks; in double quotes they find nothing.
"""

import math
import time
from collections.abc import Collection, Mapping
from typing import Any

from infra.run_description import allowed_key
from infra.settings import Settings
from infra.tracking import TrackedRun

CHECKPOINT = "checkpoint"
REMOVED = "checkpoint.removed"
_MOST_METRICS = 1000  # in one request


class Checkpoint(Settings):
    """Where a checkpoint is, and what is known of it."""

    name: str
    """Of the model in the experiment: run and step."""
    digest: str
    """Of its bytes."""
    step: int
    dataset: tuple[str, str]
    """Name and fingerprint of what was measured on."""
    tags: dict[str, str]
    """Run, step, datasets, evaluation: what people look for."""
    parameters: dict[str, Any]
    """Of its architecture."""
    metrics: dict[str, float]
    """Of its evaluation; none before there is one."""


def log_checkpoint(client: Any, run: TrackedRun, checkpoint: Checkpoint) -> str:
    """The id of a checkpoint's logged model, which is made if it is not there; tags and new metrics are added."""
    from mlflow.entities import LoggedModelOutput

    experiment = client.get_run(run.run_id).info.experiment_id
    filters = f"source_run_id = '{run.run_id}' AND tags.{CHECKPOINT} = '{checkpoint.digest}'"
    tags = {**checkpoint.tags, CHECKPOINT: checkpoint.digest, REMOVED: "false"}
    found = client.search_logged_models([experiment], filters, order_by=[_OLDEST_FIRST])
    if found:
        model = found[0]
        client.set_logged_model_tags(model.model_id, tags)
    else:
        parameters = {allowed_key(key): str(value) for key, value in checkpoint.parameters.items()}
        kind = "gristmill checkpoint"
        model = client.create_logged_model(
            experiment, checkpoint.name, run.run_id, tags=tags, params=parameters, model_type=kind
        )
        client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, checkpoint.step)])
    _log_metrics(client, run, checkpoint, model)
    client.finalize_logged_model(model.model_id, "READY")
    return model.model_id


_OLDEST_FIRST: Mapping[str, Any] = {"field_name": "creation_timestamp", "ascending": True}


def _log_metrics(client: Any, run: TrackedRun, checkpoint: Checkpoint, model: Any) -> None:
    """Only those that the model does not have yet: each also becomes a point of the run's curves.

    A database may keep the last digit of a number otherwise.
    """
    from mlflow.entities import Metric

    known = {metric.key: metric.value for metric in model.metrics or ()}
    now = int(time.time() * 1000)
    metrics = [
        Metric(key, value, now, checkpoint.step, model.model_id, *checkpoint.dataset, run_id=run.run_id)
        for key, value in checkpoint.metrics.items()
        if key not in known or not math.isclose(known[key], value, rel_tol=1e-12)
    ]
    for start in range(0, len(metrics), _MOST_METRICS):
        client.log_batch(run.run_id, metrics=metrics[start : start + _MOST_METRICS])


def mark_removed(client: Any, run: TrackedRun, there: Collection[str]) -> None:
    """Tag the logged models of a run whose checkpoints, told by their digests, are there no more."""
    experiment = client.get_run(run.run_id).info.experiment_id
    filters = f"source_run_id = '{run.run_id}' AND tags.`{REMOVED}` = 'false'"
    for model in client.search_logged_models([experiment], filters):
        if model.tags.get(CHECKPOINT) not in there:
            client.set_logged_model_tags(model.model_id, {REMOVED: "true"})
