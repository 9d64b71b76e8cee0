"""A flow run whose worker has ended sees by itself that it is cancelled, or that `gristmill up` is gone."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from uuid import uuid4

import pytest

from flows.outliving import _servers_have_ended
from infra.left_behind import VARIABLE
from infra.running_services import StackRecord, identity
from tests.flows.conftest import REPOSITORY

RUN = """
import os, sys, time
from flows import outliving, progress
from prefect._internal.control_listener import get_intent
from prefect.exceptions import TerminationSignal
from prefect.utilities.engine import capture_sigterm
outliving.INTERVAL_SECONDS = 0.05
with capture_sigterm():
    progress.let_through()
    print("started", flush=True)
    try:
        time.sleep(60)
    except TerminationSignal:
        with open(sys.argv[1], "w") as out:
            print(get_intent(), os.environ.get("PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS"), file=out)
"""


@pytest.fixture
def api(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server of Prefect's that knows one flow run, in the state of the parameter."""

    class FlowRuns(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state = {"type": request.param, "name": request.param.title()}
            known = {"id": self.path.rpartition("/")[2], "flow_id": str(uuid4()), "name": "run", "state": state}
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(known).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), FlowRuns) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()


def outlived(folder: Path, api: str) -> str:
    """What a flow run found when it was told to end, after the reader of its output had gone."""
    told = folder / "told"
    environment = {
        **os.environ,
        "PREFECT__FLOW_RUN_ID": str(uuid4()),
        "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
        "PREFECT_API_URL": api,
        "PREFECT_HOME": str(folder),
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
        VARIABLE: str(folder),
    }
    command = [sys.executable, "-c", RUN, str(told)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, cwd=REPOSITORY) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"started\n"
        assert not told.exists()
        run.stdout.close()
        try:
            assert run.wait(60) in (0, 120)  # 120: standard output could not be flushed
        finally:
            run.send_signal(signal.SIGKILL)
    return told.read_text()


@pytest.mark.parametrize("api", ["CANCELLING"], indirect=True)
def test_a_cancelled_run_ends_as_cancelled(api: str, tmp_path: Path) -> None:
    StackRecord(**identity(os.getpid()), services=()).write(tmp_path)
    assert outlived(tmp_path, api) == "cancel true\n"


def test_the_end_of_gristmill_up_is_seen_by_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not _servers_have_ended(), "a worker of somebody's own has no record"
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert _servers_have_ended()
    record = StackRecord(**identity(os.getpid()), services=())
    record.write(tmp_path)
    assert not _servers_have_ended()
    record.model_copy(update={"boot_mark": "another"}).write(tmp_path)
    assert _servers_have_ended()
