"""A real MLflow server for tests and benchmarks."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.flows.conftest import running


@contextmanager
def mlflow_server(address: str, database: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server at http://127.0.0.1:PORT with a database; artifacts and its log lie in a folder."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    port = str(urlsplit(address).port)
    command = [str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1", "--port", port]
    command += ["--workers", "1", "--backend-store-uri", database, "--artifacts-destination", str(folder / "artifacts")]
    ready = f"{address}/api/2.0/mlflow/experiments/get?experiment_id=0"
    with running(command, environment, folder / "mlflow.log", ready) as process:
        yield process
