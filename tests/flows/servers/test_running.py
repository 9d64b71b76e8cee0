"""Commands beside a `gristmill up`: which servers they use. Two small web servers stand in its place."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.servers.init import init
from flows.servers.running import beside, running_stack
from flows.servers.stack import StackSettings, services_folder, settings_path
from infra.environment import Environment
from infra.services import Service, Services
from infra.store import Store
from tests.flows.conftest import free_port


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Variables of a newcomer, which may be changed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    changed = {**kept, "HOME": str(tmp_path)}
    monkeypatch.setattr(os, "environ", changed)
    return changed


@contextmanager
def up(root: Path) -> Iterator[StackSettings]:
    """The servers that a root would have."""
    settings = StackSettings(prefect_port=free_port(), mlflow_port=free_port())
    folder = services_folder(str(root))
    with Services(folder) as services:
        settings_path(folder).write_text(settings.model_dump_json())
        for name, port in (("prefect-server", settings.prefect_port), ("mlflow-server", settings.mlflow_port)):
            url = f"http://127.0.0.1:{port}"
            services.start(Service(name, "http.server", [str(port), "--bind", "127.0.0.1"], url, url, [port]))
        yield settings


def test_the_servers_of_the_root_are_used(tmp_path: Path, environment: dict[str, str]) -> None:
    store = Store(str(tmp_path))
    assert running_stack(store) is None
    with up(tmp_path) as settings:
        found = running_stack(store)
        assert found is not None
        assert found == settings
        told = beside(found, Environment(root=str(tmp_path), workers=2), tmp_path)
    assert told == Environment(root=str(tmp_path), workers=2, mlflow_tracking_uri=settings.mlflow_url)
    assert environment["PREFECT_API_URL"] == f"{settings.prefect_url}/api"
    assert running_stack(store) is None


def test_what_the_user_has_stated_stays(tmp_path: Path, environment: dict[str, str]) -> None:
    environment["PREFECT_API_URL"] = "http://prefect.test/api"
    stated, before = Environment(mlflow_tracking_uri="http://mlflow.test"), dict(environment)
    init(tmp_path)
    assert beside(StackSettings(secrets=str(tmp_path / ".env")), stated, tmp_path) == stated
    assert environment == before, "no other server is to be told the passwords"


def test_logins_come_from_the_file_of_the_stack(tmp_path: Path, environment: dict[str, str]) -> None:
    init(tmp_path)
    beside(StackSettings(secrets=str(tmp_path / ".env")), Environment(), tmp_path)
    assert environment["PREFECT_API_AUTH_STRING"].startswith("gristmill:")
    assert environment["MLFLOW_TRACKING_USERNAME"] == "admin"
    assert "MLFLOW_TRACKING_PASSWORD" in environment
    assert "PREFECT_SERVER_API_AUTH_STRING" not in environment
