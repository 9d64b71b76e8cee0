"""MLflow: one run for each training run, whoever launches it and however often.

Without a server, runs are recorded into SQLite and a folder of artifacts under the root. MLflow is imported when it is
first used, because most ranks of a job never log. A server that cannot be reached stops nothing: metrics wait in memory
(and stand in `metrics.jsonl` in any case) and are delivered when it answers again.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from infra.errors import BadInput
from infra.manifest import DatasetManifest
from infra.settings import Settings, flatten
from infra.store import Store

logger = logging.getLogger(__name__)

_ROWS_PER_BATCH = 150  # MLflow takes at most 1000 metrics in a batch
_RETRY_SECONDS = 30.0
_MAX_DIGEST = 36  # MLflow refuses longer ones


class TrackedRun(Settings):
    """Where a run is recorded. It holds no password: MLflow reads those from its own environment variables."""

    tracking_uri: str
    experiment: str
    run_id: str


def default_tracking_uri(store: Store) -> str:
    """SQLite under the root; BadInput where the root is not a folder of this machine."""
    if not store.is_local:
        raise BadInput(
            f"mlflow_tracking_uri unset with root {store.root}",
            "SQLite needs a folder of this machine",
            "Set mlflow_tracking_uri to the address of an MLflow server",
        )
    return f"sqlite:///{store.local_path('mlflow.db').absolute()}"


def open_run(
    store: Store,
    tracking_uri: str | None,
    experiment: str,
    name: str,
    *,
    dataset: DatasetManifest | None = None,
    tags: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    previous: TrackedRun | None = None,
) -> TrackedRun:
    """Continue the previous run if it is still there, or start one; tags are set either way.

    The dataset becomes an input whose digest is the manifest's fingerprint. `tracking_uri` None means SQLite under
    the root. BadInput if the address holds a password or the server does not answer.
    """
    uri = tracking_uri or default_tracking_uri(store)
    refuse_password(uri)
    try:
        client = open_client(uri)
        run = _continued(client, uri, experiment, previous) or _created(client, store, uri, experiment, name)
        for key, value in (tags or {}).items():
            client.set_tag(run.run_id, key, value)
        if previous != run:
            _describe(client, run.run_id, dataset, store, parameters or {})
    except tracking_errors() as error:
        raise BadInput(
            f"mlflow_tracking_uri = {uri} ({_first_line(error)})",
            "the MLflow server must answer before a run starts",
            "Start the server, or unset mlflow_tracking_uri to record into SQLite under the root",
        ) from error
    return run


def refuse_password(uri: str) -> None:
    """BadInput for an address that holds a password."""
    if urlsplit(uri).password:
        raise BadInput(
            "mlflow_tracking_uri holds a password",
            "addresses are written to files and logs",
            "Put it in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        )


def open_client(uri: str) -> Any:
    """A client of MLflow that is not patient: one more try, ten seconds for each."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    # MLflow's own patience is four minutes for each request, during which training would stand still.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow.tracking import MlflowClient

    # Alembic announces each migration of a new database.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def tracking_errors() -> tuple[type[Exception], ...]:
    """What a client raises for a server that does not answer or refuses."""
    from mlflow.exceptions import MlflowException

    return (MlflowException, OSError)


def _continued(client: Any, uri: str, experiment: str, previous: TrackedRun | None) -> TrackedRun | None:
    from mlflow.exceptions import MlflowException

    if previous is None or (previous.tracking_uri, previous.experiment) != (uri, experiment):
        return None
    try:
        client.get_run(previous.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    client.update_run(previous.run_id, status="RUNNING")
    return previous


def has_run(run: TrackedRun) -> bool:
    """Whether a run is still where it was recorded; BadInput if the server does not answer."""
    from mlflow.exceptions import MlflowException

    try:
        found = open_client(run.tracking_uri).get_run(run.run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise BadInput(
            f"mlflow_tracking_uri = {run.tracking_uri} ({_first_line(error)})",
            "the MLflow server must answer",
            "Start the server",
        ) from error
    return found.info.lifecycle_stage == "active"


def _created(client: Any, store: Store, uri: str, experiment: str, name: str) -> TrackedRun:
    found = client.get_experiment_by_name(experiment)
    if found is None:
        under_root = store.local_path("mlflow-artifacts").absolute().as_uri() if uri.startswith("sqlite:") else None
        tags = {"mlflow.experimentKind": "custom_model_development"}  # else the UI takes it for a chat application
        experiment_id = client.create_experiment(experiment, artifact_location=under_root, tags=tags)
    else:
        experiment_id = found.experiment_id
    run = client.create_run(experiment_id, run_name=name)
    return TrackedRun(tracking_uri=uri, experiment=experiment, run_id=run.info.run_id)


def _describe(
    client: Any, run_id: str, dataset: DatasetManifest | None, store: Store, parameters: Mapping[str, Any]
) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    flat = [Param(key, str(value)) for key, value in flatten(parameters).items()]
    client.log_batch(run_id, params=flat)
    if dataset is not None:
        source = _source(store, dataset)
        name = f"{dataset.name}/{dataset.version}"
        entity = Dataset(name=name, digest=dataset.fingerprint[:_MAX_DIGEST], source_type="local", source=source)
        client.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])


def _source(store: Store, dataset: DatasetManifest) -> str:
    """Where a dataset's manifest is, as MLflow writes sources: a JSON object."""
    return json.dumps({"uri": store.full_path(f"{dataset.folder}/manifest.json")})


def run_url(run: TrackedRun) -> str | None:
    """The page of a run in the MLflow UI; None where no server shows it."""
    if not run.tracking_uri.startswith("http"):
        return None
    experiment_id = open_client(run.tracking_uri).get_run(run.run_id).info.experiment_id
    return f"{run.tracking_uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{run.run_id}"


def log_metrics(run: TrackedRun, step: int, metrics: Mapping[str, float]) -> None:
    """Record numbers at one step; a warning if the server does not answer."""
    with _Tolerant("metrics"):
        _log_rows(open_client(run.tracking_uri), run.run_id, [{"step": step, **metrics}])


def log_file(run: TrackedRun, path: Path, folder: str | None = None) -> None:
    """Copy a file into the run's artifacts; a warning if the server does not answer."""
    with _Tolerant(path.name):
        open_client(run.tracking_uri).log_artifact(run.run_id, str(path), folder)


def log_dict(run: TrackedRun, value: Mapping[str, Any], path: str) -> None:
    """Write a value into the run's artifacts as JSON or YAML, by the path's ending; a warning on no answer."""
    with _Tolerant(path):
        open_client(run.tracking_uri).log_dict(run.run_id, dict(value), path)


def log_text(run: TrackedRun, text: str, path: str) -> None:
    """Write text, such as a page in Markdown, into the run's artifacts; a warning if the server does not answer."""
    log_figure(run, text.encode(), path)


def describe_run(run: TrackedRun, page: str) -> None:
    """Write what the UI shows at the top of a run's page, in Markdown; a warning if the server does not answer."""
    with _Tolerant("the run's description"):
        open_client(run.tracking_uri).set_tag(run.run_id, "mlflow.note.content", page)


def log_figure(run: TrackedRun, image: bytes, path: str) -> None:
    """Write a figure (SVG or PNG, by the path's ending) into the run's artifacts; a warning on no answer.

    A path such as `figures/benchmarks.svg`: the UI shows the figure when the artifact is chosen.
    """
    folder, _, name = path.rpartition("/")
    with _Tolerant(path), tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / name
        file.write_bytes(image)
        open_client(run.tracking_uri).log_artifact(run.run_id, str(file), folder or None)


def log_table(
    run: TrackedRun, rows: Sequence[Mapping[str, Any]], path: str = "samples.json", step: int | None = None
) -> None:
    """Write rows as a table that the UI shows, columns as in the first row; a warning if the server does not answer.

    With a step, the rows get a first column `step` and take the place of the rows of that step only: the table grows
    from step to step, and a step that is measured again stands there once. Without, they are the whole table.
    """
    with _Tolerant(path):
        client = open_client(run.tracking_uri)
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


def finish_run(run: TrackedRun, *, failed: bool = False) -> None:
    """Mark the run as ended; a warning if the server does not answer."""
    with _Tolerant("the end of the run"):
        open_client(run.tracking_uri).set_terminated(run.run_id, "FAILED" if failed else "FINISHED")


def _log_rows(client: Any, run_id: str, rows: Sequence[Mapping[str, float]]) -> None:
    """Each row holds `step`, perhaps `time` in milliseconds since 1970, and metrics."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [
        Metric(key, float(value), int(row.get("time", now)), int(row["step"]))
        for row in rows
        for key, value in row.items()
        if key not in ("step", "time")
    ]
    client.log_batch(run_id, metrics=metrics)


class MetricWriter:
    """Delivers rows of metrics in batches, each step once.

    Rows that an earlier, killed process of the same run could not deliver are passed as `earlier`: the server is asked
    for the last step that it has, and only later rows are sent.
    """

    def __init__(self, run: TrackedRun, key: str, earlier: Sequence[Mapping[str, float]] = ()) -> None:
        self._run, self._key = run, key
        self._waiting: list[Mapping[str, float]] = list(earlier)
        self._asked = False
        self._retry_at = 0.0

    def add(self, row: Mapping[str, float]) -> None:
        """Keep a row (with `step`, and `key` among its metrics) until the next flush."""
        self._waiting.append({**row, "time": int(time.time() * 1000)})

    def flush(self, *, last: bool = False) -> None:
        """Send what waits. After a failure nothing is tried for half a minute, except at the last flush."""
        if not self._waiting or (time.monotonic() < self._retry_at and not last):
            return
        self._retry_at = time.monotonic() + _RETRY_SECONDS
        with _Tolerant(f"metrics of {len(self._waiting)} steps, kept for later,"):
            client = open_client(self._run.tracking_uri)
            if not self._asked:
                history = client.get_metric_history(self._run.run_id, self._key)
                delivered = max((metric.step for metric in history), default=0)
                self._waiting = [row for row in self._waiting if row["step"] > delivered]
                self._asked = True
            while self._waiting:
                _log_rows(client, self._run.run_id, self._waiting[:_ROWS_PER_BATCH])
                self._waiting = self._waiting[_ROWS_PER_BATCH:]
            self._retry_at = 0.0


class _Tolerant:
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
