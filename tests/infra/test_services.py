"""Services that are started, watched, and stopped by another process."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from infra.errors import BadInput, RunFailed
from infra.running_services import RunningService, StackRecord, read_record, stop
from infra.services import Service, Services
from tests.flows.conftest import free_port

STARTER = """
import signal, sys, threading
from pathlib import Path
from infra.services import Service, Services

asked = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: asked.set())
port = sys.argv[2]
with Services(Path(sys.argv[1])) as services:
    address = f"http://127.0.0.1:{port}/"
    services.start(Service("files", "http.server", [port, "--bind", "127.0.0.1"], address, address))
    services.start(Service("sleeper", "timeit", ["-n", "1", "-r", "1", "-s", "import time", "time.sleep(600)"]))
    print("ready", flush=True)
    asked.wait()
"""


@pytest.fixture
def starter(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path), str(free_port())], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_another_process_stops_them(starter: "subprocess.Popen[str]", tmp_path: Path) -> None:
    record = read_record(tmp_path)
    assert record is not None
    files, sleeper = record.services
    assert not files.trouble()
    assert not sleeper.trouble()
    stop(tmp_path)
    assert starter.wait(10) == 0
    assert files.process is None
    assert sleeper.process is None
    assert "has ended" in files.trouble()
    assert read_record(tmp_path) is None
    with pytest.raises(BadInput, match="only what runs can be stopped"):
        stop(tmp_path)


def test_they_end_with_the_process_that_started_them(starter: "subprocess.Popen[str]", tmp_path: Path) -> None:
    record = read_record(tmp_path)
    assert record is not None
    starter.kill()
    starter.wait()
    end = time.monotonic() + 10
    while any(each.process for each in record.services) and time.monotonic() < end:
        time.sleep(0.05)
    assert [each.trouble().partition(";")[0] for each in record.services] == ["has ended", "has ended"]
    with Services(tmp_path) as services:  # what is left behind stops nobody
        services.look_after()


def test_a_second_set_of_services_is_refused_from_the_beginning(tmp_path: Path) -> None:
    with Services(tmp_path):
        record = read_record(tmp_path)
        assert record is not None
        with pytest.raises(RunFailed, match="run already"), Services(tmp_path):
            pass
        assert read_record(tmp_path) == record
        (tmp_path / "services.json").unlink()  # as if the second had looked before the first wrote it
        with pytest.raises(RunFailed, match="under way already"), Services(tmp_path):
            pass


def test_asking_to_stop_what_was_killed_takes_its_record_away(tmp_path: Path) -> None:
    gone = {"pid": 2**22 + 1, "created": 1.0}  # a number that no process has
    service = RunningService(name="files", address="", ready="", log="", **gone)
    (tmp_path / "services.json").write_text(StackRecord(services=(service,), **gone).model_dump_json())
    with pytest.raises(BadInput, match="only what runs can be stopped"):
        stop(tmp_path)
    assert read_record(tmp_path) is None


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(RunFailed, match=r"nothing did not start: .*No module named nothing"),
        Services(tmp_path) as own,
    ):
        own.start(Service("nothing", "nothing", [], ready="http://127.0.0.1:9/"), seconds=20)
    assert read_record(tmp_path) is None


def test_a_program_on_its_port_is_named_before_it_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs, Services(tmp_path) as own:
        port = theirs.getsockname()[1]
        with pytest.raises(RunFailed, match=rf"files: process {os.getpid()} \(.+\) listens on port {port} already"):
            own.start(Service("files", "http.server", [str(port)], ports=[port]), seconds=20)
    assert not (tmp_path / "files.log").exists()


QUICKER = """
import subprocess, sys, time
port = sys.argv[1]
other = subprocess.Popen([sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1"], start_new_session=True)
time.sleep(2)
other.terminate()
sys.exit("too late")
"""


def test_the_answer_of_a_program_that_was_quicker_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quicker.py").write_text(QUICKER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    with Services(tmp_path / "own") as own, pytest.raises(RunFailed, match=r"server did not start: .*too late"):
        own.start(Service("server", "quicker", [str(port)], address, address, [port]), seconds=20)


SERVER = """
import http.server, os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=sys.argv[2:] == ["apart"])
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def look_after(services: Services, holds: Callable[[], bool]) -> None:
    """For at most half a minute, as `gristmill up` does."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        services.look_after()
        time.sleep(0.05)


@pytest.mark.parametrize("go_on", [True, False])
def test_one_that_is_killed_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, go_on: bool
) -> None:
    (tmp_path / "their_server.py").write_text(SERVER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    port = str(free_port())
    address = f"http://127.0.0.1:{port}/"
    with Services(tmp_path / "own") as services:
        apart = ["apart"] if go_on else []  # as Prefect's worker starts flow runs
        service = Service("server", "their_server", [port, *apart], address, address, children_go_on=go_on)
        first = services.start(service).process
        assert first is not None
        (child,) = first.children()
        first.kill()
        look_after(services, lambda: read(tmp_path / "own").restarts == 1)
        again = read(tmp_path / "own")
        look_after(services, lambda: not again.trouble())
        assert again.pid != first.pid
        assert is_alive(child) == go_on
        assert "server: ended by itself (code -9), starts again in 1 s" in caplog.text
    assert not is_alive(child)
    assert again.process is None


def test_one_that_ends_again_and_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.services.FIRST_PAUSE_SECONDS", 0.01)
    with Services(tmp_path) as services:
        services.start(Service("brief", "timeit", ["-n", "1", "-r", "1", "pass"]))
        with pytest.raises(RunFailed, match="brief ended by itself 6 times in a row"):
            look_after(services, lambda: False)


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def read(folder: Path) -> RunningService:
    record = read_record(folder)
    assert record is not None
    (service,) = record.services
    return service
