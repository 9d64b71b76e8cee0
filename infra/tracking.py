"""MLflow: one run for each training, corpus or ablation, whoever launches it and however often.

Without a server, runs are recorded into SQLite and a folder of artifacts under the root. MLflow is imported when it is
first used, because the ranks of a job never log. A server that cannot be reached stops nothing: metrics stand in files
(see infra.metric_rows) and are delivered when it answers again.

Every dataset that a run used or made is an *input* of it whose digest is the manifest's fingerprint, so that
`dataset.digest = '0123456789ab'` finds every run of a dataset, in the UI and by `mlflow.search_runs`.
"""

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from infra.address import without_password
from infra.errors import BadInput
from infra.run_description import UsedDataset, allowed_key, log_inputs, log_parameters, set_tags
from infra.settings import Settings
from infra.store import Store

logger = logging.getLogger(__name__)

_MOST_METRICS = 1000  # in one request
_STORAGE_ERRORS: Mapping[str, Sequence[str]] = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "boto3.exceptions": ("Boto3Error",),
    "google.api_core.exceptions": ("GoogleAPIError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "azure.core.exceptions": ("AzureError",),
}
"""Of libraries by which MLflow's client reaches artifacts itself, where a server does not pass them on."""

_SQLITE = "sqlite:///"

NOTES = "notes"
"""The tag of what a person said of a run."""

Ending = Literal["FINISHED", "FAILED", "KILLED"]


class TrackedRun(Settings):
    """Where a run is recorded. It holds no password: MLflow reads those from its own environment variables."""

    tracking_uri: str
    """By which it was reached last: a server may get another address, and a database another server."""
    experiment: str
    run_id: str
    """Tells it from all others, in whatever database it is."""


def default_tracking_uri(store: Store) -> str:
    """SQLite under the root; BadInput where the root is not a folder of this machine."""
    if not store.is_local:
        raise BadInput(
            f"mlflow_tracking_uri unset with root {store.root}",
            "SQLite needs a folder of this machine",
            "Set mlflow_tracking_uri to the address of an MLflow server",
        )
    return f"{_SQLITE}{store.local_path('mlflow.db').absolute()}"


def open_run(
    store: Store,
    tracking_uri: str | None,
    experiment: str,
    name: str,
    *,
    datasets: Sequence[UsedDataset] = (),
    tags: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    previous: TrackedRun | None = None,
    started: datetime | None = None,
) -> TrackedRun:
    """Continue the previous run if this server has it, or start one; tags and inputs are set either way.

    Parameters are flattened into dotted names and, whole, an artifact `parameters.json`. `tracking_uri` None means
    SQLite under the root; `started` is for what is recorded after it was done. BadInput if the address holds a
    password, or the server does not answer or refuses.
    """
    uri = tracking_uri or default_tracking_uri(store)
    refuse_password(uri)
    try:
        client = open_client(uri)
        run = _continued(client, uri, experiment, name, previous) or _created(
            client, store, uri, experiment, name, started
        )
        set_tags(client, run.run_id, tags or {})
        log_inputs(client, run.run_id, datasets)
        if parameters and (previous is None or previous.run_id != run.run_id):
            log_parameters(client, run.run_id, parameters)
    except tracking_errors() as error:
        raise _as_bad_input(uri, error) from error
    return run


def refuse_password(uri: str) -> None:
    """BadInput for an address that holds a password."""
    try:
        without_password(uri)
    except ValueError:
        raise BadInput(
            "mlflow_tracking_uri holds a password",
            "addresses are written to files and logs",
            "Put it in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        ) from None


def open_client(uri: str) -> Any:
    """A client of MLflow that is not patient: one more try, ten seconds for each."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    # MLflow's own patience is four minutes for each request, during which training would stand still.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout is for what a command answers
    from mlflow.tracking import MlflowClient

    # Alembic announces each migration of a new database.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def client_of(run: TrackedRun) -> Any:
    """A client of where a run is recorded; FileNotFoundError for SQLite that is gone, which MLflow would make anew."""
    if run.tracking_uri.startswith(_SQLITE):
        Path(run.tracking_uri.removeprefix(_SQLITE).partition("?")[0]).stat()
    return open_client(run.tracking_uri)


def tracking_errors() -> tuple[type[Exception], ...]:
    """What a client raises for a server, or a store of artifacts, that does not answer or refuses.

    Of libraries that are loaded by now, as one is that has raised an error; ImportError is for one that is missing.
    """
    from mlflow.exceptions import MlflowException

    loaded = [(sys.modules[name], kinds) for name, kinds in _STORAGE_ERRORS.items() if name in sys.modules]
    return (MlflowException, OSError, ImportError, *(getattr(each, kind) for each, kinds in loaded for kind in kinds))


def _as_bad_input(uri: str, error: Exception) -> BadInput:
    """An error of tracking_errors() for a person: is the server away, or does it or the artifacts' store refuse."""
    from mlflow.exceptions import MlflowException

    value = f"mlflow_tracking_uri = {uri} ({_first_line(error)})"
    if isinstance(error, MlflowException) and error.get_http_status_code() < 500:
        return BadInput(
            value,
            "the MLflow server answers, and must take what is recorded",
            "Correct what it names; a login goes into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        )
    if isinstance(error, MlflowException | OSError):
        return BadInput(
            value,
            "the MLflow server must answer before a run starts",
            "Start the server, or unset mlflow_tracking_uri to record into SQLite under the root",
        )
    return BadInput(
        value,
        "the server has artifacts written by those who make them, into a store that this machine must reach",
        "Give this machine the store's library and credentials, or start the server with --artifacts-destination",
    )


def _continued(client: Any, uri: str, experiment: str, name: str, previous: TrackedRun | None) -> TrackedRun | None:
    if previous is None or previous.experiment != experiment or not _has(client, previous.run_id):
        return None
    client.update_run(previous.run_id, status="RUNNING", name=name)
    return previous.model_copy(update={"tracking_uri": uri})


def _has(client: Any, run_id: str) -> bool:
    """Whether a run is there and nobody has deleted it."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False


def run_at(run: TrackedRun, uri: str) -> TrackedRun | None:
    """A run as it is reached by an address, whatever it was recorded by; None if it is not there, or was deleted.

    BadInput if the server does not answer.
    """
    found = run.model_copy(update={"tracking_uri": uri})
    try:
        return found if _has(client_of(found), run.run_id) else None
    except FileNotFoundError:
        return None
    except tracking_errors() as error:
        raise _as_bad_input(uri, error) from error


def _created(client: Any, store: Store, uri: str, experiment: str, name: str, started: datetime | None) -> TrackedRun:
    run = client.create_run(
        _experiment(client, store, uri, experiment),
        run_name=name,
        start_time=None if started is None else int(started.timestamp() * 1000),
    )
    return TrackedRun(tracking_uri=uri, experiment=experiment, run_id=run.info.run_id)


def _experiment(client: Any, store: Store, uri: str, name: str) -> str:
    """The experiment's id; it is made if it is not there, whoever else makes it at the same time."""
    from mlflow.exceptions import MlflowException

    if (found := client.get_experiment_by_name(name)) is not None:
        if found.lifecycle_stage != "active":
            raise BadInput(
                f"MLflow's experiment {name} was deleted",
                "its name stays taken, and runs are recorded in an experiment that is there",
                f"Restore it: MLFLOW_TRACKING_URI={uri} mlflow experiments restore -x {found.experiment_id}; "
                "or set environment.mlflow_experiment",
            )
        return found.experiment_id
    under_root = store.local_path("mlflow-artifacts").absolute().as_uri() if uri.startswith("sqlite:") else None
    tags = {"mlflow.experimentKind": "custom_model_development"}  # else the UI takes it for a chat application
    try:
        return client.create_experiment(name, artifact_location=under_root, tags=tags)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_experiment_by_name(name).experiment_id


def run_url(run: TrackedRun) -> str | None:
    """The page of a run in the MLflow UI; None where no server shows it, with a warning where it does not answer."""
    if run.tracking_uri.startswith("http"):
        with Tolerant("the question for a run's page"):
            experiment_id = client_of(run).get_run(run.run_id).info.experiment_id
            return f"{run.tracking_uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{run.run_id}"
    return None


def log_metrics(run: TrackedRun, step: int, metrics: Mapping[str, float]) -> None:
    """Record numbers at one step; a warning if the server does not answer."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    found = [Metric(allowed_key(name), float(value), now, step) for name, value in metrics.items()]
    with Tolerant("metrics"):
        for start in range(0, len(found), _MOST_METRICS):
            client_of(run).log_batch(run.run_id, metrics=found[start : start + _MOST_METRICS])


def log_file(run: TrackedRun, path: Path, folder: str | None = None) -> None:
    """Copy a file into the run's artifacts; a warning if the server does not answer."""
    with Tolerant(path.name):
        client_of(run).log_artifact(run.run_id, str(path), folder)


def log_dict(run: TrackedRun, value: Mapping[str, Any], path: str) -> None:
    """Write a value into the run's artifacts as JSON or YAML, by the path's ending; a warning on no answer."""
    with Tolerant(path):
        client_of(run).log_dict(run.run_id, dict(value), path)


def log_text(run: TrackedRun, text: str, path: str) -> None:
    """Write text, such as a page in Markdown, into the run's artifacts; a warning if the server does not answer."""
    log_figure(run, text.encode(), path)


def describe_run(run: TrackedRun, page: str) -> None:
    """Write what the UI shows at the top of a run's page, in Markdown; a warning if the server does not answer.

    Before it stands what a person said of the run, behind it the way to the Prefect run that made it.
    """
    with Tolerant("the run's description"):
        client = client_of(run)
        tags = client.get_run(run.run_id).data.tags
        link = f"[Flow run in Prefect]({tags['prefect.flow_run_url']})" if "prefect.flow_run_url" in tags else ""
        parts = [part for part in (tags.get(NOTES, ""), page, link) if part]
        if parts:
            client.set_tag(run.run_id, "mlflow.note.content", "\n\n".join(parts))


def log_figure(run: TrackedRun, image: bytes, path: str) -> None:
    """Write a figure (SVG or PNG, by the path's ending) into the run's artifacts; a warning on no answer.

    A path such as `figures/benchmarks.svg`: the UI shows the figure when the artifact is chosen.
    """
    folder, _, name = path.rpartition("/")
    with Tolerant(path), tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / name
        file.write_bytes(image)
        client_of(run).log_artifact(run.run_id, str(file), folder or None)


def log_table(
    run: TrackedRun, rows: Sequence[Mapping[str, Any]], path: str = "samples.json", step: int | None = None
) -> None:
    """Write rows as a table that the UI shows, columns as in the first row; a warning if the server does not answer.

    With a step, the rows get a first column `step` and take the place of the rows of that step only: the table grows
    from step to step, and a step that is measured again stands there once. Without, they are the whole table.
    """
    with Tolerant(path):
        client = client_of(run)
        if step is not None:
            rows = _with_other_steps(_read_table(client, run.run_id, path), rows, step)
        columns = list(dict.fromkeys(name for row in rows for name in row))
        table = {"columns": columns, "data": [[row.get(name) for name in columns] for row in rows]}
        client.log_text(run.run_id, json.dumps(table), path)
        tags = client.get_run(run.run_id).data.tags
        tables = json.loads(tags.get("mlflow.loggedArtifacts", "[]"))  # by which the UI knows what is a table
        if (entry := {"path": path, "type": "table"}) not in tables:
            client.set_tag(run.run_id, "mlflow.loggedArtifacts", json.dumps([*tables, entry]))


def _with_other_steps(
    earlier: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], step: int
) -> list[Mapping[str, Any]]:
    others = [row for row in earlier if row.get("step") != step]
    return sorted([*others, *({"step": step, **row} for row in rows)], key=lambda row: row["step"])


def _read_table(client: Any, run_id: str, path: str) -> list[dict[str, Any]]:
    """Rows of a table among a run's artifacts; none if it is not there."""
    folder = path.rpartition("/")[0] or None
    if path not in [each.path for each in client.list_artifacts(run_id, folder)]:
        return []
    with tempfile.TemporaryDirectory() as temporary:
        table = json.loads(Path(client.download_artifacts(run_id, path, temporary)).read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def is_open(run: TrackedRun) -> bool:
    """Whether nobody has marked a run as ended; infra.tracking.tracking_errors() if the server does not answer."""
    return client_of(run).get_run(run.run_id).info.status == "RUNNING"


def finish_run(run: TrackedRun, ending: Ending = "FINISHED") -> None:
    """Mark the run as ended; a warning if the server does not answer."""
    with Tolerant("the end of the run"):
        client_of(run).set_terminated(run.run_id, ending)


@contextmanager
def ending_with(run: TrackedRun) -> Iterator[None]:
    """Around what a run records: FINISHED if it ends well, FAILED for an error, KILLED for a cancellation."""
    try:
        yield
    except BaseException as error:
        finish_run(run, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    finish_run(run)


class Tolerant:
    """Turns errors of the tracking server into a warning: a run's result does not depend on it."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> bool:
        if error is None or not isinstance(error, tracking_errors()):
            return False
        logger.warning("MLflow did not take %s (%s)", self._what, _first_line(error))
        return True


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
