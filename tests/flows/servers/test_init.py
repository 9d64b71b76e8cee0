"""Passwords that `gristmill init` makes, and docker-compose.yml, which asks for them."""

import json
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from flows.cli import main
from flows.servers.init import SECRETS, init, logins, read_secrets
from infra.errors import BadInput
from infra.launching.launch import JobSpec
from tests.flows.conftest import REPOSITORY

COMPOSE = REPOSITORY / "docker-compose.yml"
ONCE = {"provision", "prefect-migrate", "mlflow-migrate"}
"""Services that end."""


def values(folder: Path) -> dict[str, str]:
    return read_secrets((folder / ".env").read_text())


def test_a_first_time_makes_every_secret_for_its_owner_alone(tmp_path: Path):
    done = CliRunner().invoke(main, ["init", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.output)["made"]) == set(SECRETS)
    made = values(tmp_path)
    assert set(made) == set(SECRETS)
    assert len(set(made.values())) == len(SECRETS)
    assert all(len(value) >= 20 for value in made.values())
    assert not any(value in done.output for value in made.values())
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == [".env"]


def test_what_is_there_stays_and_what_is_missing_or_empty_is_added(tmp_path: Path):
    mine = "# mine\nGRISTMILL_REDIS_PASSWORD='known'\nOTHER=1\nGRISTMILL_MLFLOW_SECRET=\nGRISTMILL_MLFLOW_SECRET=\n"
    (tmp_path / ".env").write_text(mine)
    (tmp_path / ".env").chmod(0o644)
    first = init(tmp_path)
    assert first.closed
    assert first.kept == ("GRISTMILL_REDIS_PASSWORD",)
    assert (tmp_path / ".env").read_text().startswith("# mine\nGRISTMILL_REDIS_PASSWORD='known'\nOTHER=1\n")
    assert values(tmp_path)["GRISTMILL_MLFLOW_SECRET"]
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600

    before = (tmp_path / ".env").read_bytes()
    second = init(tmp_path)
    assert (second.made, second.closed) == ((), False)
    assert (tmp_path / ".env").read_bytes() == before


def test_a_place_where_nothing_can_be_written_is_bad_input(tmp_path: Path):
    (tmp_path / ".env").mkdir()
    with pytest.raises(BadInput, match=r"\.env"):
        init(tmp_path)


def test_servers_of_a_root_get_the_logins_of_the_file(tmp_path: Path):
    init(tmp_path)
    made = values(tmp_path)
    known = logins(str(tmp_path / ".env"), tmp_path / "root")
    assert known["PREFECT_SERVER_API_AUTH_STRING"] == known["PREFECT_API_AUTH_STRING"]
    assert known["PREFECT_API_AUTH_STRING"] == made["GRISTMILL_PREFECT_LOGIN"]
    assert known["MLFLOW_TRACKING_PASSWORD"] == known["MLFLOW_AUTH_ADMIN_PASSWORD"]
    users = Path(known["MLFLOW_AUTH_CONFIG_PATH"]).read_text()
    assert f"sqlite:///{tmp_path}/root/mlflow_users.db" in users
    assert not any(value in users for value in made.values())
    (tmp_path / ".env").write_text("GRISTMILL_PREFECT_LOGIN=a:b\n")
    with pytest.raises(BadInput, match="GRISTMILL_MLFLOW_PASSWORD, GRISTMILL_MLFLOW_SECRET"):
        logins(str(tmp_path / ".env"), tmp_path / "root")
    with pytest.raises(BadInput, match="gristmill init"):
        logins(str(tmp_path / "absent"), tmp_path / "root")


def test_compose_asks_for_these_secrets_and_no_others():
    asked = re.findall(r"\$\{(\w+):\?run gristmill init\}", COMPOSE.read_text())
    assert set(asked) == set(SECRETS)
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE.read_text()))
    assert not set(defaults) & set(SECRETS)


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What docker-compose makes of its file and of what `gristmill init` has made."""
    command = shutil.which("docker-compose")
    if command is None:
        pytest.skip("docker-compose is not installed")
    folder = tmp_path_factory.mktemp("compose")
    init(folder)
    arguments = [command, "--file", str(COMPOSE), "--env-file", str(folder / ".env"), "--profile", "gpu", "config"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return yaml.safe_load(done.stdout)["services"]


def test_compose_without_secrets_says_what_to_do(tmp_path: Path, clean_environment: dict[str, str]):
    command = shutil.which("docker-compose")
    if command is None:
        pytest.skip("docker-compose is not installed")
    (tmp_path / ".env").touch()
    arguments = [command, "--file", str(COMPOSE), "--env-file", str(tmp_path / ".env"), "config", "--quiet"]
    done = subprocess.run(arguments, capture_output=True, text=True, env=clean_environment)
    assert done.returncode != 0
    assert "run gristmill init" in done.stderr


def test_every_service_is_bounded_confined_and_watched(compose: dict[str, Any]):
    assert {"postgres", "redis", "s3", "prefect-server", "prefect-services", "mlflow", "worker", "worker-gpu"} < set(
        compose
    )
    for name, service in compose.items():
        assert {"mem_limit", "cpus", "pids_limit"} <= set(service), name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"]["max-size"], name
        assert ("healthcheck" in service) != (name in ONCE), name
        assert service["restart"] == ("on-failure:3" if name in ONCE else "unless-stopped"), name
        if "build" not in service:
            assert re.search(r":\d[\w.-]*$", service["image"]), f"{name}: a version"
            assert service["user"] not in ("root", "0"), name


def test_workers_leave_ranks_time_for_a_checkpoint(compose: dict[str, Any]):
    for name in ("worker", "worker-gpu"):
        command = compose[name]["command"]
        given = " ".join(command) if isinstance(command, list) else command
        seconds = re.search(r"python -m infra\.outlast (\d+) prefect worker start", given)
        assert seconds is not None, given
        assert JobSpec(module="model.train").grace_seconds < int(seconds[1])
        assert int(seconds[1]) < int(compose[name]["stop_grace_period"].removesuffix("s"))


def test_mlflows_pages_may_ask_it_where_links_lead(compose: dict[str, Any]):
    links = re.search(r"environment\.mlflow_tracking_uri=(\S+)", " ".join(compose["worker"]["command"]))
    assert links is not None
    assert links[1] in compose["mlflow"]["environment"]["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")


def test_nothing_is_published_beyond_loopback_and_databases_not_at_all(compose: dict[str, Any]):
    published = {name: service["ports"] for name, service in compose.items() if "ports" in service}
    assert set(published) == {"prefect-server", "mlflow", "dask-scheduler"}
    assert all(each.startswith("127.0.0.1:") for ports in published.values() for each in ports)
    workers = [service for name, service in compose.items() if name.startswith(("worker", "dask"))]
    assert not any("storage" in service.get("networks", {}) for service in workers)


def test_secrets_are_in_environments_and_never_in_commands(compose: dict[str, Any], tmp_path: Path):
    init(tmp_path)
    secrets = set(values(tmp_path).values())
    command = ["docker-compose", "--file", str(COMPOSE), "--env-file", str(tmp_path / ".env"), "config"]
    services = yaml.safe_load(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["services"]
    for service in services.values():
        rest = json.dumps({name: value for name, value in service.items() if name != "environment"})
        assert not any(secret in rest for secret in secrets)
        for name, value in service["environment"].items():
            if any(word in name for word in ("PASSWORD", "SECRET", "AUTH_STRING", "LOGIN", "ACCESS_KEY")):
                assert any(secret in value for secret in secrets), name


def test_runs_have_time_to_write_a_checkpoint(compose: dict[str, Any]):
    assert compose["worker"]["stop_grace_period"] == "120s"
    assert compose["worker-gpu"]["stop_grace_period"] == "120s"
    (device,) = compose["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_the_image_runs_as_a_person_without_rights_and_from_the_lock():
    text = (REPOSITORY / "infra/Dockerfile").read_text()
    stages = [stage.splitlines() for stage in re.split(r"^FROM ", text, flags=re.M)[1:]]
    assert [stage[0].split(" AS ")[1] for stage in stages] == ["installed", "project", "gpu"]
    assert re.match(r"python:3\.\d+-slim-\w+ ", stages[0][0])
    assert "RUN pip install --requirement requirements.lock" in stages[0]
    assert "RUN pip install --no-deps --no-build-isolation --editable . && python -m compileall -q /app" in stages[0]
    for stage in stages[1:]:
        assert [line for line in stage if line.startswith("USER ")][-1] == "USER 1000:1000"
    assert not any("apt-get" in line or "pip install" in line for line in stages[1])
    copied = {line.split()[1] for line in stages[0] if line.startswith("COPY ")}
    allowed = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied - {"requirements.lock", "pyproject.toml", "README.md", "LICENSE"} == {
        "flows",
        "tasks",
        "model",
        "infra",
    }
    assert copied <= allowed
