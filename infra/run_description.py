"""What is said of an MLflow run beside its metrics: parameters, tags, and the datasets that it used or made."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from infra.manifest import DatasetManifest
from infra.settings import Settings, flatten
from infra.store import Store

# What MLflow takes.
_MOST_IN_REQUEST = 100
_LONGEST_PARAMETER = 6000
_LONGEST_KEY = 250
_LONGEST_TAG = 5000
_LONGEST_DIGEST = 36
_REFUSED = re.compile(r"[^\w.\-: /]")

HELD_OUT = " held out"
"""Follows the name of a dataset whose held-out text was measured on: MLflow keeps one context for each name."""

Context = Literal["training", "evaluation", "published", "previous"]
"""What a dataset was to a run: trained on, measured on, made by it, or what it was compared with."""


class UsedDataset(Settings):
    """A dataset as an input of a run."""

    name: str
    """NAME/VERSION, perhaps with HELD_OUT."""
    digest: str
    """Fingerprint of the manifest."""
    source: str
    """Where the manifest is, as MLflow writes sources: a JSON object."""
    context: Context


def used_dataset(store: Store, dataset: DatasetManifest, context: Context) -> UsedDataset:
    """A dataset as an input of a run."""
    name = f"{dataset.name}/{dataset.version}{HELD_OUT if context == 'evaluation' else ''}"
    source = json.dumps({"uri": store.full_path(f"{dataset.folder}/manifest.json")})
    return UsedDataset(name=name, digest=dataset.fingerprint, source=source, context=context)


def set_tags(client: Any, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags in few requests, each cut to what MLflow takes."""
    from mlflow.entities import RunTag

    found = [RunTag(allowed_key(key), str(value)[:_LONGEST_TAG]) for key, value in tags.items()]
    for start in range(0, len(found), _MOST_IN_REQUEST):
        client.log_batch(run_id, tags=found[start : start + _MOST_IN_REQUEST])


def log_inputs(client: Any, run_id: str, datasets: Sequence[UsedDataset]) -> None:
    """Add datasets to the inputs of a run; those that it has already stay as they are."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = [
        DatasetInput(
            Dataset(each.name, each.digest[:_LONGEST_DIGEST], source_type="local", source=each.source),
            [InputTag("mlflow.data.context", each.context)],
        )
        for each in datasets
    ]
    if inputs:
        client.log_inputs(run_id, inputs)


def log_parameters(client: Any, run_id: str, parameters: Mapping[str, Any]) -> None:
    """Flatten settings into dotted parameters, cut to what MLflow takes, and keep them whole as an artifact."""
    from mlflow.entities import Param

    flat = {allowed_key(key): _cut(str(value)) for key, value in flatten(parameters).items()}
    found = [Param(key, value) for key, value in flat.items()]
    for start in range(0, len(found), _MOST_IN_REQUEST):
        client.log_batch(run_id, params=found[start : start + _MOST_IN_REQUEST])
    client.log_dict(run_id, dict(parameters), "parameters.json")


def allowed_key(name: str) -> str:
    """A name of a metric, parameter or tag as MLflow takes it."""
    return _REFUSED.sub("_", name)[:_LONGEST_KEY]


def _cut(value: str) -> str:
    end = " ... (cut: parameters.json has it whole)"
    return value if len(value) <= _LONGEST_PARAMETER else value[: _LONGEST_PARAMETER - len(end)] + end
