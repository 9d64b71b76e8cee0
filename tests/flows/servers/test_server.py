"""The Prefect server that a command brings along."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.servers.server import _port, ensure_prefect_server, has_own_server, reach_prefect_server
from infra.errors import RunFailed
from tests.flows.conftest import REPOSITORY

HOLD = """
import sys, time
from pathlib import Path
from flows.servers.server import ensure_prefect_server
ensure_prefect_server(Path(sys.argv[1]))
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any setting of Prefect's."""
    for name in list(os.environ):
        if name.startswith("PREFECT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_it_ends_with_a_command_that_is_killed(newcomer: Path):
    (newcomer / "prefect").mkdir(mode=0o755)  # by a command of an earlier version
    command = [sys.executable, "-c", HOLD, str(newcomer / "prefect")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "up\n"
        (server,) = psutil.Process(holder.pid).children()
        ((host, port),) = {tuple(each.laddr) for each in server.net_connections() if each.status == "LISTEN"}
        assert host == "127.0.0.1"
        assert may_ask(int(port), f"http://localhost:{port}")
        assert not may_ask(int(port), "http://elsewhere.test")
        assert {each.stat().st_mode & 0o077 for each in (newcomer / "prefect", newcomer / "prefect/prefect.db")} == {0}
        os.kill(holder.pid, signal.SIGKILL)
    end = time.monotonic() + 30
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(0.1)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


def may_ask(port: int, origin: str) -> bool:
    """Whether a browser lets the pages of another address read what the server answers."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/ready", headers={"Origin": origin})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers["Access-Control-Allow-Origin"] in ("*", origin)


@pytest.mark.parametrize("name", ["PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_HOME"])
def test_the_users_own_server_is_left_to_prefect(newcomer: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, "http://127.0.0.1:9/api")
    before = dict(os.environ)
    ensure_prefect_server(newcomer / "unused")
    assert dict(os.environ) == before
    assert not (newcomer / "unused").exists()


def test_the_active_profile_counts(newcomer: Path):
    assert not has_own_server()
    (newcomer / ".prefect").mkdir()
    profiles = newcomer / ".prefect/profiles.toml"
    profiles.write_text('active = "team"\n[profiles.team]\nPREFECT_API_URL = "http://prefect.test/api"\n')
    assert has_own_server()
    profiles.write_text('active = "local"\n[profiles.local]\n[profiles.team]\nPREFECT_API_URL = "http://p.test/api"\n')
    assert not has_own_server()


@pytest.mark.parametrize("address", ["http://me:hunter2@127.0.0.1:9/api", "localhost:4200"])
def test_a_server_that_cannot_be_reached_is_named(address: str):
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert not reach_prefect_server()
    with temporary_settings({PREFECT_API_URL: address}), pytest.raises(RunFailed, match="cannot be used") as failed:
        reach_prefect_server()
    assert "hunter2" not in str(failed.value)


def test_two_commands_that_start_together_do_not_choose_one_port() -> None:
    (one, first), (other, second) = _port(), _port()
    assert one != other
    first.close()
    second.close()
