"""Whether what was started still runs, and its end, as another process finds them."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from infra.errors import RunFailed
from infra.running_services import (
    RunningProcess,
    RunningService,
    StackRecord,
    answers,
    ask_loopback_directly,
    identity,
    read_record,
    stop,
)

SLEEPER = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, getattr(signal, sys.argv[1])); print(); time.sleep(60)"
)


@pytest.fixture
def counts() -> Iterator[str]:
    """The address of a server that says it has two workers."""

    class Counts(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"workers": 2}')

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Counts) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_server_must_say_what_is_asked_of_it(counts: str) -> None:
    assert answers(counts)
    assert answers(counts, {"workers": 2})
    assert not answers(counts, {"workers": 3})
    assert not answers(counts, {"cores": 1})


def test_no_proxy_stands_between_us_and_our_own_servers(counts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "example.org, localhost")
    assert answers(counts)
    ask_loopback_directly()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "example.org,localhost,127.0.0.1"


def test_setting_the_clock_makes_no_process_another_one() -> None:
    own = identity(os.getpid())
    assert RunningProcess(**{**own, "created": own["created"] - 3600}).process is not None
    assert RunningProcess(**{**own, "boot_mark": own["boot_mark"] + "0"}).process is None
    assert RunningProcess(pid=os.getpid(), created=own["created"]).process is not None
    assert RunningProcess(pid=os.getpid(), created=own["created"] - 3600).process is None


@pytest.fixture
def started(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[StackRecord]:
    """The record of a process that does with SIGTERM what the parameter says, and that nobody reaps."""
    with subprocess.Popen([sys.executable, "-c", SLEEPER, request.param], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        record = StackRecord(**identity(process.pid), services=())
        record.write(tmp_path)
        yield record
        process.kill()


@pytest.mark.parametrize("started", ["SIG_DFL"], indirect=True)
def test_a_process_that_nobody_reaps_has_ended(started: StackRecord, tmp_path: Path) -> None:
    stop(tmp_path, seconds=30)
    assert started.process is None
    assert read_record(tmp_path) is None


@pytest.mark.parametrize("started", ["SIG_IGN"], indirect=True)
def test_a_process_that_does_not_end_is_named_and_stays_on_record(started: StackRecord, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=rf"process {started.pid}, .* has not ended: it must within 0 seconds"):
        stop(tmp_path, seconds=0.2)
    assert read_record(tmp_path) == started


def test_what_does_not_answer_says_what_it_should(counts: str) -> None:
    service = RunningService(**identity(os.getpid()), name="workers", address="", ready=counts, log="LOG")
    assert not service.trouble()
    few = service.model_copy(update={"at_least": {"workers": 3}})
    assert few.trouble() == f"does not answer with at least 3 workers at {counts}; read LOG"
