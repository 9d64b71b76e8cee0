"""The runbook, step by step on one root: backup under load, restore, the move to Postgres, backup and restore there."""

import json
import os
import pwd
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.compose_processes import confined
from tests.flows.conftest import free_port, running
from tests.flows.stacks import BIN, Stack, ask, nested, running_stack, wait_until
from tests.flows.test_end_to_end import SETTINGS
from tests.tasks.records import CRAWL

pytestmark = pytest.mark.e2e
PROGRAMS = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


def gristmill(environment: Mapping[str, str], *arguments: str) -> dict[str, Any]:
    command = [str(BIN / "gristmill"), *arguments, "--json"]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def refused(environment: Mapping[str, str], *arguments: str) -> str:
    """What is wrong, by a command that must fail."""
    command = [str(BIN / "gristmill"), *arguments, "--json"]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=300)
    assert done.returncode, done.stdout
    return json.loads(done.stdout)["error"]["value"]


def sql(address: str, statement: str) -> str:
    """What Postgres answers."""
    assert PROGRAMS is not None
    command = [str(PROGRAMS / "psql"), address.replace("+asyncpg", ""), "--no-psqlrc", "-Atc", statement]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def alter(path: Path, statement: str) -> None:
    """Change a table of SQLite."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement)


@contextmanager
def postgres(folder: Path) -> Iterator[dict[str, str]]:
    """A Postgres with two empty databases; yields the variables that name them."""
    if PROGRAMS is None or os.getuid() != 0:
        pytest.skip("no Postgres, or no right to start it as another user: apt-get install postgresql")
    user, port = pwd.getpwnam("postgres"), free_port()
    folder.mkdir(mode=0o755)
    os.chown(folder, user.pw_uid, user.pw_gid)
    for parent in folder.parents:
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    (folder / "password").write_text("a password: with/signs")
    run = {"env": {"PATH": f"{PROGRAMS}:/usr/bin:/bin"}, "cwd": "/", "check": True, "capture_output": True}
    options = ["-U", "postgres", "-A", "scram-sha-256", "--no-sync", f"--pwfile={folder / 'password'}"]
    subprocess.run([*confined(user.pw_uid), "initdb", "-D", str(folder / "data"), *options], **run)
    serve = ["-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    command = [*confined(user.pw_uid), str(PROGRAMS / "postgres"), "-D", str(folder / "data"), *serve]
    with running(command, {"PATH": f"{PROGRAMS}:/usr/bin:/bin"}, folder.parent / "postgres.log"):
        login = {**os.environ, "PGPASSWORD": "a password: with/signs"}
        psql = [str(PROGRAMS / "psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-c"]
        ready = [str(PROGRAMS / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
        wait_until(lambda: subprocess.run(ready, capture_output=True).returncode == 0, folder.parent / "postgres.log")
        for name in ("prefect", "mlflow", "prefect_again", "mlflow_again"):
            subprocess.run([*psql, f"CREATE DATABASE {name}"], env=login, check=True, capture_output=True)
        yield addresses(port)


def addresses(port: int, suffix: str = "") -> dict[str, str]:
    at = f"postgres:a%20password%3A%20with%2Fsigns@127.0.0.1:{port}"
    return {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{at}/prefect{suffix}",
        "MLFLOW_BACKEND_STORE_URI": f"postgresql://{at}/mlflow{suffix}",
    }


def known(stack: Stack) -> dict[str, Any]:
    """What both servers tell of the runs."""
    experiments = ask(f"{stack.mlflow}/api/2.0/mlflow/experiments/search", {"max_results": 100})["experiments"]
    search = {"experiment_ids": [each["experiment_id"] for each in experiments]}
    runs = ask(f"{stack.mlflow}/api/2.0/mlflow/runs/search", search)["runs"]
    return {
        "flow runs": {each["id"]: (each["name"], each["state_type"]) for each in stack.flow_runs()},
        "artifacts": {each["id"]: each["data"] for each in stack.artifacts()},
        "runs": {each["info"]["run_id"]: (each["info"]["status"], each["data"]["metrics"]) for each in runs},
    }


def chain(root: Path, mlflow: str, crawl: Path) -> dict[str, Any]:
    chosen = {
        **SETTINGS,
        "evaluation.prompts": ["The module "],
        "environment.root": str(root),
        "environment.mlflow_tracking_uri": mlflow,
        "corpus.source.base_url": str(crawl),
        "corpus.source.crawl": CRAWL,
        "training.dtype": "float32",
    }
    return {"settings": nested(chosen)}


def nothing_moves_by_halves(root: Path, environment: Mapping[str, str]) -> None:
    prefect, mlflow = environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"], environment["MLFLOW_BACKEND_STORE_URI"]
    sql(mlflow, "CREATE TABLE somebodys (name text); INSERT INTO somebodys VALUES ('a row')")
    assert "rows in somebodys" in refused(environment, "to-postgres", "--root", str(root))
    assert sql(prefect, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == "0"
    sql(mlflow, "DROP TABLE somebodys")
    alter(root / "mlflow.db", "ALTER TABLE runs RENAME COLUMN name TO its_name")
    assert "runs.name" in refused(environment, "to-postgres", "--root", str(root))
    assert sql(prefect, "SELECT count(*) FROM flow_run") == "0"
    alter(root / "mlflow.db", "ALTER TABLE runs RENAME COLUMN its_name TO name")


def test_the_runbook(tmp_path: Path, small_crawl: Path, clean_environment: dict[str, str]):
    root, saved = tmp_path / "mill", tmp_path / "backup"
    root.mkdir()
    with running_stack(root, clean_environment) as stack:
        run = stack.start("crawl_to_model/default", chain(root, stack.mlflow, small_crawl))
        wait_until(lambda: (root / "stages").exists(), stack.log)
        gristmill(stack.environment, "backup", str(saved), "--root", str(root))  # while the chain runs
        assert stack.finished(run["id"])["state_type"] == "COMPLETED"
        before = known(stack)
        record = gristmill(stack.environment, "backup", str(saved), "--root", str(root))
        assert record["copied"] > 0
    digests = sorted(path.name for path in root.glob("datasets/*/*"))

    root.rename(tmp_path / "lost")
    gristmill(clean_environment, "restore", str(saved), "--root", str(root))
    with running_stack(root, clean_environment) as stack:
        assert known(stack) == before
        assert sorted(path.name for path in root.glob("datasets/*/*")) == digests
        again = stack.start("crawl_to_model/default", chain(root, stack.mlflow, small_crawl))
        assert stack.finished(again["id"])["state_type"] == "COMPLETED"
        before = known(stack)

    with postgres(tmp_path / "postgres") as where:
        nothing_moves_by_halves(root, {**clean_environment, **where})
        moved = gristmill({**clean_environment, **where}, "to-postgres", "--root", str(root))["rows"]
        assert moved["prefect.flow_run"] == len(before["flow runs"])
        assert moved["mlflow.runs"] == len(before["runs"])
        for database in ("prefect/prefect.db", "mlflow.db"):
            (root / database).rename(tmp_path / Path(database).name)
        with running_stack(root, {**clean_environment, **where}) as stack:
            assert known(stack) == before
            more = stack.start("crawl_to_model/default", chain(tmp_path / "fresh", stack.mlflow, small_crawl))
            assert stack.finished(more["id"])["state_type"] == "COMPLETED"  # new rows get new numbers
            before = known(stack)
        assert not (root / "mlflow.db").exists()
        assert not (root / "prefect/prefect.db").exists()

        gristmill({**clean_environment, **where}, "backup", str(tmp_path / "second"), "--root", str(root))
        port = int(where["MLFLOW_BACKEND_STORE_URI"].rpartition(":")[2].partition("/")[0])
        other = {**clean_environment, **addresses(port, "_again")}
        root.rename(tmp_path / "lost again")
        full = refused({**clean_environment, **where}, "restore", str(tmp_path / "second"), "--root", str(root))
        assert "PREFECT_SERVER_DATABASE_CONNECTION_URL names has" in full
        assert not root.exists()
        gristmill(other, "restore", str(tmp_path / "second"), "--root", str(root))
        with running_stack(root, other) as stack:
            assert known(stack) == before
