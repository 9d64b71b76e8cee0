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

from flows.init import SECRETS
from infra.manifest import DatasetManifest
from infra.store import Store
from tests.e2e.compose_processes import PERSON, Composed, confined, programs, wait
from tests.e2e.logins import ask, refused
from tests.flows.stacks import nested
from tests.tasks.records import CRAWL

pytestmark = pytest.mark.e2e
MEMORY = 4 << 30
"""What all services together may take before they work: a laptop has twice as much."""
CORPUS = {
    "corpus.source.crawl": CRAWL,
    "corpus.tokenizer.vocabulary_size": 512,
    "corpus.heldout.fraction": 0.1,
}


@pytest.fixture(scope="module")
def composed(small_crawl: Path) -> Iterator[Composed]:
    """All of them, with a small crawl in the volume of data."""
    found = programs()
    if found is None:
        pytest.skip("needs root, docker-compose, and Debian's postgresql and redis-server")
    with tempfile.TemporaryDirectory(prefix="compose-") as folder:
        secrets = {name: make() for name, make in SECRETS.items()}
        services = Composed(Path(folder), found, secrets, {"GRISTMILL_DASK_WORKERS": "2"})
        crawl = services.volume("data") / "crawl"
        subprocess.run(["cp", "-r", str(small_crawl), str(crawl)], check=True)
        subprocess.run(["chown", "-R", str(PERSON), str(crawl)], check=True)
        with services:
            yield services


def login(composed: Composed, server: str) -> str:
    mlflow = f"admin:{composed.secrets['GRISTMILL_MLFLOW_PASSWORD']}"
    return mlflow if server == "mlflow" else composed.secrets["GRISTMILL_PREFECT_LOGIN"]


def prefect(composed: Composed, path: str, body: Mapping[str, Any] | None = None) -> Any:
    return ask(f"{composed.prefect}/api{path}", body, login(composed, "prefect"))


def run_deployment(composed: Composed, name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A run of FLOW/NAME, once it has ended."""
    deployment = prefect(composed, f"/deployments/name/{name}")["id"]
    run = prefect(composed, f"/deployments/{deployment}/create_flow_run", {"parameters": parameters})
    ended = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    log = next(each.log for each in composed.processes if each.name == "worker")
    wait(lambda: prefect(composed, f"/flow_runs/{run['id']}")["state_type"] in ended, log, 500)
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
    assert ask(flows, {}, login(composed, "prefect"))
    assert refused(experiments, {"max_results": 1}) == 401
    assert refused(experiments, {"max_results": 1}, "admin:password1234") == 401
    assert ask(experiments, {"max_results": 1}, login(composed, "mlflow"))["experiments"]


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


def test_the_deployments_and_the_automation_are_there(composed: Composed):
    names = {each["entrypoint"] for each in prefect(composed, "/deployments/filter", {})}
    assert "flows.corpus.build_corpus" in names
    assert prefect(composed, "/automations/filter", {})


def test_a_corpus_on_the_volume(composed: Composed):
    data = composed.volume("data")
    parameters = nested({**CORPUS, "corpus.source.base_url": str(data / "crawl"), "dataset.name": "on-volume"})
    run = run_deployment(composed, "build_corpus/default", parameters)
    assert run["state_type"] == "COMPLETED", run["state"]
    (manifest,) = (data / "datasets/on-volume").glob("*/manifest.json")
    assert DatasetManifest.model_validate_json(manifest.read_text()).tokens("train") > 1000
    assert run["parameters"]["environment"]["scheduler"] == f"tcp://127.0.0.1:{composed.ports['8786']}"


def test_a_corpus_wholly_in_the_object_store(composed: Composed, monkeypatch: pytest.MonkeyPatch):
    environment = prefect(composed, "/deployments/name/build_corpus/default")["parameters"]["environment"]
    given = {**CORPUS, "corpus.source.base_url": str(composed.volume("data") / "crawl"), "dataset.name": "in-store"}
    parameters = {**nested(given), "environment": {**environment, "root": "s3://gristmill/root"}}
    run = run_deployment(composed, "build_corpus/default", parameters)
    assert run["state_type"] == "COMPLETED", run["state"]
    (worker,) = [each for each in composed.processes if each.name == "worker"]
    for name, value in worker.environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    store = Store("s3://gristmill/root")
    (version,) = store.names("datasets/in-store")
    manifest = DatasetManifest.load(store, f"datasets/in-store/{version}/manifest.json")
    (local,) = (composed.volume("data") / "datasets/on-volume").glob("*/manifest.json")
    assert manifest.fingerprint == DatasetManifest.model_validate_json(local.read_text()).fingerprint
    assert store.exists(f"datasets/in-store/{version}/report.html")
    for shard in manifest.shards:
        assert store.sha256(shard.path) == shard.sha256


def test_artifacts_go_through_mlflow_into_the_object_store(composed: Composed, tmp_path: Path):
    known = {
        "MLFLOW_TRACKING_URI": composed.mlflow,
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": composed.secrets["GRISTMILL_MLFLOW_PASSWORD"],
    }
    (tmp_path / "figure.txt").write_text("a figure")
    code = "import mlflow; mlflow.set_experiment('store'); mlflow.start_run(); mlflow.log_artifact('figure.txt')"
    subprocess.run(
        [str(Path(composed.processes[0].environment["PATH"].split(os.pathsep)[0]) / "python"), "-c", code],
        env={**os.environ, **known}, cwd=tmp_path, check=True, timeout=300,
    )  # fmt: skip
    assert [each for each in objects(composed, "mlflow") if each.endswith("/artifacts/figure.txt")]


def test_no_secret_is_written_anywhere(composed: Composed):
    """After the runs above: in files of every kind, the databases, what Prefect and MLflow show, and arguments."""
    texts = {f"arguments of {name}": text for name, text in arguments(composed).items()}
    for database in ("prefect", "mlflow"):
        environment = {**os.environ, "PGPASSWORD": composed.secrets["GRISTMILL_POSTGRES_PASSWORD"]}
        command = [composed.programs["postgres"] / "pg_dump", "-h", "127.0.0.1", "-p", composed.ports["5432"]]
        dump = subprocess.run([*command, "-U", "postgres", database], env=environment, capture_output=True, check=True)
        assert len(dump.stdout) > 10_000
        texts[f"database {database}"] = dump.stdout
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
