"""How flows name their MLflow runs, and the tags by which runs are found."""

from collections.abc import Mapping
from typing import Literal

from prefect.runtime import deployment, flow_run
from prefect.utilities.urls import url_for

from infra.environment import Environment
from infra.software import software_tags
from infra.tracking import NOTES

Purpose = Literal["corpus", "pretraining", "ablation", "comparison"]
"""Each has an experiment of its own; evaluations belong to the run of their training."""


def experiment(environment: Environment, purpose: Purpose) -> str:
    """The experiment of a purpose: gristmill/corpus."""
    return f"{environment.mlflow_experiment}/{purpose}"


def run_title(title: str | None, name: str, dataset: str, fingerprint: str) -> str:
    """What a run is called in lists: `title or name, dataset NAME/VERSION, first digits of the fingerprint`."""
    return f"{title or name}, {dataset}, {fingerprint[:6]}"


def run_tags(purpose: Purpose, more: Mapping[str, str], notes: str | None = None) -> dict[str, str]:
    """Tags of what was made with what, and of the Prefect run; those without a value are left out."""
    tags = {
        "purpose": purpose,
        NOTES: notes or "",
        "prefect.flow_run_id": str(flow_run.id or ""),
        "prefect.flow_run_url": flow_run_url(),
        "prefect.deployment": str(deployment.name or ""),
        **software_tags(),
        **more,
    }
    return {name: value for name, value in tags.items() if value}


def flow_run_url() -> str:
    """The page of this flow run in the Prefect UI; empty for a server that lives only as long as the flow."""
    return (flow_run.id and url_for("flow-run", obj_id=flow_run.id)) or ""
