"""What the move to Postgres refuses before it asks any database; the move itself is part of the runbook's test."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.to_postgres import move_to_postgres
from infra.errors import BadInput
from infra.running_services import RunningService, StackRecord
from tests.flows.test_backup import write

ADDRESS = "postgresql://nobody:secret-word@127.0.0.1:1/none"


def test_what_would_go_wrong_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    service = RunningService(name="mlflow-server", pid=2**22 + 1, created=1.0, address="", ready="", log="")
    (tmp_path / "services").mkdir()
    record = StackRecord(pid=2**22 + 1, created=1.0, services=(service,))  # left behind by servers that were killed
    (tmp_path / "services/services.json").write_text(record.model_dump_json())
    monkeypatch.delenv("MLFLOW_BACKEND_STORE_URI", raising=False)
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", ADDRESS)
    with pytest.raises(BadInput, match="MLFLOW_BACKEND_STORE_URI is not set"):
        move_to_postgres(str(tmp_path))
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", ADDRESS)
    with pytest.raises(BadInput, match="it has none"):
        move_to_postgres(str(tmp_path))
    write(tmp_path / "mlflow.db", "a run")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as command:  # which does nothing just now
        command.execute("SELECT * FROM runs")
        with pytest.raises(BadInput, match="database is locked"):
            move_to_postgres(str(tmp_path))
    with pytest.raises(BadInput, match="MLFLOW_BACKEND_STORE_URI") as refused:
        move_to_postgres(str(tmp_path))
    assert "secret-word" not in str(refused.value)
