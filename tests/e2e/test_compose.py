"""The services of docker-compose.yml, as processes: Postgres, Redis, an object store, passwords on both servers.

Needs Debian's postgresql and redis-server and docker-compose, and the rights to run each as another user.
"""

import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import psutil
import psycopg2
import pytest

from flows.copying import copy_dataset
from flows.servers.init import SECRETS
from infra.manifest import DatasetManifest, dataset_versions, load_dataset
from infra.store import Store
from model.data.shards import verify_shards
from tests.e2e.compose_processes import PERSON, Composed, confined, programs, wait
from tests.e2e.logins import ask, refused
from tests.flows.small_crawls import settings, write_crawls

pytestmark = pytest.mark.e2e
MEMORY = 4 << 30
"""What all services together may take before they work: a laptop has twice as much."""
FIRST, SECOND = "CC-MAIN-2026-05", "CC-MAIN-2026-10"
CRAWLS = {FIRST: [list(range(20))], SECOND: [[*range(10, 30)], list(range(30, 40))]}
OBJECT_ROOT = "s3://gristmill/root"


@pytest.fixture(scope="module")
def composed() -> Iterator[Composed]:
    """All of them, with two small crawls in the volume of data."""
    found = programs()
    if found is None:
        pytest.skip("needs root, docker-compose, and Debian's postgresql and redis-server")
    with tempfile.TemporaryDirectory(prefix="compose-") as folder:
        secrets = {name: make() for name, make in SECRETS.items()}
        services = Composed(Path(folder), found, secrets, {"GRISTMILL_DASK_WORKERS": "2"})
        mirror = services.volume("data") / "mirror"
        mirror.mkdir()
        write_crawls(mirror, CRAWLS)
        subprocess.run(["chown", "-R", str(PERSON), str(mirror)], check=True)
        with services:
            yield services


def admin(composed: Composed) -> str:
    return f"admin:{composed.secrets['GRISTMILL_MLFLOW_PASSWORD']}"


def person(composed: Composed) -> str:
    return composed.secrets["GRISTMILL_PREFECT_LOGIN"]


def prefect(composed: Composed, path: str, body: Mapping[str, Any] | None = None) -> Any:
    return ask(f"{composed.prefect}/api{path}", body, person(composed))


def run_deployment(composed: Composed, name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A run of FLOW/NAME, once it has ended."""
    deployment = prefect(composed, f"/deployments/name/{name}")["id"]
    run = prefect(composed, f"/deployments/{deployment}/create_flow_run", {"parameters": parameters})
    ended = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    log = next(each.log for each in composed.processes if each.name == "worker")
    wait(lambda: prefect(composed, f"/flow_runs/{run['id']}")["state_type"] in ended, log, 900)
    return prefect(composed, f"/flow_runs/{run['id']}")


def objects(composed: Composed, bucket: str) -> list[str]:
    keys = {
        "aws_access_key_id": composed.secrets["GRISTMILL_S3_ACCESS_KEY"],
        "aws_secret_access_key": composed.secrets["GRISTMILL_S3_SECRET_KEY"],
        "region_name": "us-east-1",
    }
    with closing(boto3.client("s3", endpoint_url=composed.s3, **keys)) as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [each["Key"] for page in pages for each in page.get("Contents", ())]


def test_every_service_is_healthy_within_the_memory_of_a_laptop(composed: Composed):
    assert {each.name for each in composed.processes} == set(composed.services)
    memory = composed.memory()
    print({each.name: round(each.seconds, 1) for each in composed.processes})
    print({name: f"{size / 2**20:.0f} MiB" for name, size in memory.items()}, f"{sum(memory.values()) / 2**20:.0f} MiB")
    assert sum(memory.values()) < MEMORY


def test_nothing_listens_beyond_loopback(composed: Composed):
    assert not composed.listening()


def test_both_servers_refuse_whom_they_do_not_know(composed: Composed):
    flows, experiments = f"{composed.prefect}/api/flows/filter", f"{composed.mlflow}/api/2.0/mlflow/experiments/search"
    assert refused(flows, {}) == 401
    assert refused(flows, {}, "gristmill:wrong") == 401
    assert ask(flows, {}, person(composed))
    assert refused(experiments, {"max_results": 1}) == 401
    assert refused(experiments, {"max_results": 1}, "admin:password1234") == 401
    assert ask(experiments, {"max_results": 1}, admin(composed))["experiments"]


def test_mlflows_pages_may_ask_it_where_links_lead(composed: Composed):
    host = f"mlflow.localhost:{composed.ports['GRISTMILL_MLFLOW_PORT']}"
    search = f"{composed.mlflow}/ajax-api/2.0/mlflow/experiments/search"
    browser = {"Host": host, "Origin": f"http://{host}"}
    assert ask(search, {"max_results": 1}, admin(composed), browser)["experiments"]


def test_each_database_is_its_owners_alone(composed: Composed):
    with pytest.raises(psycopg2.OperationalError, match="permission denied"):
        connect(composed, "prefect", "mlflow", composed.secrets["GRISTMILL_MLFLOW_DATABASE_PASSWORD"])
    with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
        connect(composed, "prefect", "prefect", composed.secrets["GRISTMILL_MLFLOW_DATABASE_PASSWORD"])


def connect(composed: Composed, database: str, user: str, password: str) -> Any:
    port = composed.ports["5432"]
    return psycopg2.connect(host="127.0.0.1", port=port, dbname=database, user=user, password=password)


def test_a_second_provision_changes_nothing(composed: Composed):
    (process,) = [each for each in composed.processes if each.name == "provision"]
    again = [*confined(process.user), *process.arguments]
    subprocess.run(again, env=dict(process.environment), cwd="/", check=True, timeout=120)
    assert prefect(composed, "/flows/filter", {"limit": 1})


def test_deployments_the_automation_and_the_queue_for_gpus_are_there(composed: Composed):
    queues = prefect(composed, "/work_pools/gristmill/queues/filter", {})
    assert {each["name"] for each in queues} == {"default", "gpu"}
    names = {each["entrypoint"] for each in prefect(composed, "/deployments/filter", {})}
    assert {"flows.corpus.build_corpus", "flows.refresh.refresh_corpus", "flows.pretraining.pretrain"} <= names
    assert prefect(composed, "/automations/filter", {})


def refresh(composed: Composed, dataset: str, **environment: str) -> list[DatasetManifest]:
    """Run `refresh_corpus` over both crawls; the versions that it made, oldest first."""
    known = prefect(composed, "/deployments/name/refresh_corpus/default")["parameters"]["environment"]
    given = settings(composed.volume("data") / "mirror", dataset=dataset, first_crawl=FIRST)
    parameters = {
        "refresh": given.model_dump(mode="json", exclude_unset=True),
        "environment": {**known, **environment},
    }
    run = run_deployment(composed, "refresh_corpus/default", parameters)
    assert run["state_type"] == "COMPLETED", run["state"]
    store = Store(environment.get("root", str(composed.volume("data"))))
    return [load_dataset(store, dataset, version) for version in dataset_versions(store, dataset)]


def test_a_refresh_on_the_volume(composed: Composed):
    first, second = refresh(composed, "on-volume")
    assert (first.version, second.version) == ("2026.05", "2026.10")
    assert first.tokens("train") > 1000
    assert (composed.volume("data") / second.folder / "report.html").exists()


def test_a_refresh_wholly_in_the_object_store(composed: Composed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (worker,) = [each for each in composed.processes if each.name == "worker"]
    for name, value in worker.environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    made = refresh(composed, "in-store", root=OBJECT_ROOT)
    volume = Store(str(composed.volume("data")))
    same = [load_dataset(volume, "on-volume", version) for version in dataset_versions(volume, "on-volume")]
    assert [each.fingerprint for each in made] == [each.fingerprint for each in same]

    store, disk = Store(OBJECT_ROOT), Store(str(tmp_path))
    assert store.exists(f"{made[-1].folder}/report.html")
    copy_dataset(store, disk, "in-store")
    verify_shards(disk, made[-1], made[-1].shards, content=True)


def test_artifacts_go_through_mlflow_into_the_object_store(composed: Composed):
    search = f"{composed.mlflow}/api/2.0/mlflow/runs/search"
    experiments = ask(f"{composed.mlflow}/api/2.0/mlflow/experiments/search", {"max_results": 99}, admin(composed))
    body = {"experiment_ids": [each["experiment_id"] for each in experiments["experiments"]]}
    runs = {each["info"]["run_id"] for each in ask(search, body, admin(composed))["runs"]}
    assert len(runs) >= 4, "a run for each version"
    stored = [key.split("/") for key in objects(composed, "mlflow")]
    assert {part for key in stored for part in key} & runs


def test_no_secret_is_written_anywhere(composed: Composed):
    """After the runs above: in files of every kind, the databases, what Prefect and MLflow show, and arguments."""
    texts = {f"arguments of {name}": text for name, text in arguments(composed).items()}
    for database in ("prefect", "mlflow"):
        environment = {**os.environ, "PGPASSWORD": composed.secrets["GRISTMILL_POSTGRES_PASSWORD"]}
        command = [composed.programs["postgres"] / "pg_dump", "-h", "127.0.0.1", "-p", composed.ports["5432"]]
        dump = subprocess.run([*command, "-U", "postgres", database], env=environment, capture_output=True, check=True)
        assert len(dump.stdout) > 10_000
        texts[f"database {database}"] = dump.stdout
    # While a flow run goes on, Prefect keeps its environment in a folder that only the worker's user can read.
    (worker,) = [each for each in composed.processes if each.name == "worker"]
    wait(lambda: not list(composed.volume("scratch").glob("prefect-workspace-attempt-*")), worker.log, 120)
    given = composed.folder / "tmp" / "redis-tmp" / "redis.conf"
    assert stat.S_IMODE(given.stat().st_mode) == 0o600
    files = [each for each in composed.folder.rglob("*") if each.is_file() and each != given]
    assert len(files) > 100
    for name, text in [*texts.items(), *((str(each), each.read_bytes()) for each in files)]:
        for secret in secret_parts(composed.secrets):
            assert secret not in text, f"a secret in {name}"
    for key in objects(composed, "gristmill"):
        assert not any(secret.decode() in key for secret in secret_parts(composed.secrets))


def secret_parts(secrets: Mapping[str, str]) -> list[bytes]:
    """What must appear nowhere; a login's first half is no secret, and neither is an access key's name."""
    return [value.rpartition(":")[2].encode() for name, value in secrets.items() if name != "GRISTMILL_S3_ACCESS_KEY"]


def arguments(composed: Composed) -> dict[str, bytes]:
    return {each.name: " ".join(one.cmdline()).encode() for each in composed.processes for one in each.family()}


def test_nothing_is_left_when_all_is_stopped(composed: Composed):
    """The last test of this module."""
    family = [member for each in composed.processes for member in each.family()]
    assert len(family) > len(composed.services) - 2
    composed.__exit__()
    assert not [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    (worker,) = [each for each in composed.processes if each.name == "worker"]
    assert re.search(r"(?i)stopp|shut|signal", worker.log.read_text()[-2000:])
