"""kill -9 of everything that a running flow depends on: what is lost, and how it goes on."""

import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from distributed import Client
from prefect.client.orchestration import SyncPrefectClient

from flows.servers.stack import down, status
from infra.manifest import load_dataset
from infra.store import Store
from tests.e2e.flow_processes import (
    STEPS,
    agent_of,
    ask_patiently,
    await_step,
    build_dataset,
    checkpoints_of,
    completed,
    corpus_parameters,
    engine_of,
    is_alive,
    processes_of,
    ranks_of,
    rows_of,
    start,
    state_of,
    training_parameters,
    until,
    write_many_shards,
)
from tests.flows.stacks import Stack, running_stack

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
MANY = 4000
"""Steps of a training that outlives several servers."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crashes")


@pytest.fixture(scope="module")
def stack(root: Path, clean_environment: dict[str, str], small_crawl: Path) -> Iterator[Stack]:
    """Servers that take a run for dead as early as can be."""
    with running_stack(root, clean_environment, "heartbeats.seconds=30", "heartbeats.missed=3") as running:
        build_dataset(running, small_crawl)
        yield running


def kill(process: psutil.Process) -> None:
    process.send_signal(signal.SIGKILL)


def kill_service(stack: Stack, name: str) -> None:
    """Kill a service of `gristmill up`, and wait until it has been started again and does its work."""
    (before,) = [each for each in status(str(stack.root)).services if each.name == name]
    os.kill(before.pid, signal.SIGKILL)

    def works() -> bool:
        (now,) = [each for each in status(str(stack.root)).services if each.name == name]
        return now.restarts > before.restarts and not now.trouble

    print(f"\n{name}: works again after {until(works, name):.1f} s")


def run_again(stack: Stack, flow_run: str) -> None:
    """What the button "Retry" of the UI does; the run must end well."""
    ended = state_of(stack, flow_run)
    retry = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}}
    assert ask_patiently(f"{stack.api}/flow_runs/{flow_run}/set_state", retry)["status"] == "ACCEPT"
    until(lambda: state_of(stack, flow_run) != ended, "another start")
    completed(stack, flow_run)


@pytest.mark.parametrize("part", ["rank", "agent", "engine"])
def test_a_killed_part_of_a_training(stack: Stack, part: str) -> None:
    """The run ends at once, keeps its last checkpoint, and goes on there when it is run again."""
    name = f"killed-{part}"
    flow_run = start(stack, "pretrain", training_parameters(name))
    await_step(stack, name, 120)
    victim = {"rank": lambda run: ranks_of(run)[-1], "agent": agent_of, "engine": engine_of}[part]
    kill(victim(flow_run))
    ended = "CRASHED" if part == "engine" else "FAILED"
    seconds = until(lambda: state_of(stack, flow_run) == ended, ended, 120)
    gone = until(lambda: not processes_of(flow_run), "the end of all processes", 90)
    reached, kept = len(rows_of(stack, name)), checkpoints_of(stack, name)[-1]
    print(f"\n{part}: {ended} after {seconds:.1f} s, all gone {gone:.1f} s later, step {reached}, checkpoint {kept}")
    assert kept == reached if part == "engine" else kept == reached // 100 * 100
    if part == "engine":
        time.sleep(15)  # Prefect's worker may report the crash once more some seconds later, which would end a Retry
    run_again(stack, flow_run)
    assert [row["step"] for row in rows_of(stack, name)] == list(range(1, STEPS + 1))


def test_killed_servers_do_not_stop_a_training(stack: Stack) -> None:
    """Worker, MLflow and Prefect's server die one after the other; the run ends Completed and MLflow has every step."""
    more = {"training.duration.steps": MANY, "training.checkpoint.every_steps": None}
    flow_run = start(stack, "pretrain", training_parameters("served", **more))
    await_step(stack, "served", 20)
    for name in ("prefect-worker", "mlflow-server", "prefect-server"):
        kill_service(stack, name)
        assert len(ranks_of(flow_run)) == 2, f"{name} has taken the ranks with it"
        assert state_of(stack, flow_run) == "RUNNING"
        print(f"step {len(rows_of(stack, 'served'))}")
    completed(stack, flow_run)
    search = {"experiment_ids": [each["experiment_id"] for each in _experiments(stack)]}
    (run,) = [
        each
        for each in ask_patiently(f"{stack.mlflow}/api/2.0/mlflow/runs/search", search)["runs"]
        if "served" in each["info"]["run_name"]
    ]
    assert run["info"]["status"] == "FINISHED"
    history = ask_patiently(
        f"{stack.mlflow}/api/2.0/mlflow/metrics/get-history?max_results=10000"
        f"&metric_key=loss&run_id={run['info']['run_id']}"
    )
    assert {int(each["step"]) for each in history["metrics"]} == set(range(1, MANY + 1))


def test_a_limited_run_keeps_its_place_when_the_server_dies(stack: Stack) -> None:
    """Prefect ends a run that cannot renew its lease, minutes after its server was started again."""
    limited = ask_patiently(f"{stack.api}/deployments/name/refresh_corpus/default")["id"]
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()  # no worker takes it
    later = {"type": "SCHEDULED", "state_details": {"scheduled_time": tomorrow}}
    made = ask_patiently(f"{stack.api}/deployments/{limited}/create_flow_run", {"state": later})
    flow_run = f"{stack.api}/flow_runs/{made['id']}"
    pending = ask_patiently(f"{flow_run}/set_state", {"state": {"type": "PENDING"}})
    lease = pending["state"]["state_details"]["deployment_concurrency_lease_id"]
    kill_service(stack, "prefect-server")
    with SyncPrefectClient(stack.api) as client:
        client.renew_concurrency_lease(UUID(lease), 300)
    ask_patiently(f"{flow_run}/set_state", {"state": {"type": "CANCELLED"}})


def _experiments(stack: Stack) -> list[dict[str, str]]:
    return ask_patiently(f"{stack.mlflow}/api/2.0/mlflow/experiments/search", {"max_results": 100})["experiments"]


def test_a_corpus_outlives_scheduler_and_workers(stack: Stack, tmp_path: Path) -> None:
    flow_run = start(stack, "build_corpus", corpus_parameters(write_many_shards(tmp_path / "crawl"), "survivor"))
    records = stack.root / "stages"

    def shards(stage: str, number: int) -> None:
        until(lambda: len(list(records.glob(f"{stage}/*/shards/*.json"))) >= number, f"{number} shards of {stage}")

    before = len(list(records.glob("extract/*/shards/*.json")))
    shards("extract", before + 3)
    kill_service(stack, "dask-scheduler")
    shards("extract", before + 10)
    kill_service(stack, "dask-workers")
    shards("extract", before + 20)
    with Client(stack.dask, set_as_default=False) as client:
        pids: Any = client.run(os.getpid)
        kill(psutil.Process(next(iter(pids.values()))))
    completed(stack, flow_run)
    assert load_dataset(Store(str(stack.root)), "survivor").tokens("train") > 5_000


def test_a_run_whose_worker_died_too_does_not_stay_running(stack: Stack) -> None:
    flow_run = start(stack, "pretrain", training_parameters("zombie"))
    await_step(stack, "zombie", 20)
    (worker,) = [each for each in status(str(stack.root)).services if each.name == "prefect-worker"]
    engine = engine_of(flow_run)
    os.kill(worker.pid, signal.SIGKILL)
    kill(engine)
    until(lambda: not ranks_of(flow_run), "the end of the ranks", 90)
    until(lambda: not processes_of(flow_run), "the end of all processes", 90)
    assert state_of(stack, flow_run) == "RUNNING"
    assert checkpoints_of(stack, "zombie")[-1] == len(rows_of(stack, "zombie"))
    print(f"\nCrashed after {until(lambda: state_of(stack, flow_run) == 'CRASHED', 'Crashed'):.0f} s")
    assert "No heartbeat for 90 seconds" in ask_patiently(f"{stack.api}/flow_runs/{flow_run}")["state"]["message"]
    run_again(stack, flow_run)


def test_gristmill_up_is_killed(stack: Stack, clean_environment: dict[str, str]) -> None:
    """The last test: nothing is left running, and the next `gristmill up` has the run end and go on."""
    flow_run = start(stack, "pretrain", training_parameters("orphan"))
    await_step(stack, "orphan", 20)
    services = [psutil.Process(each.pid) for each in status(str(stack.root)).services]
    family = [child for each in services for child in (each, *each.children(recursive=True))]
    starter = services[0].parent()
    assert starter is not None
    kill(starter)
    gone = until(lambda: not any(map(is_alive, family)) and not processes_of(flow_run), "the end of all", 150)
    print(f"\nall gone after {gone:.0f} s")
    assert checkpoints_of(stack, "orphan")[-1] == len(rows_of(stack, "orphan"))
    addresses = {"prefect_port": stack.prefect, "mlflow_port": stack.mlflow, "dask_port": stack.dask}
    ports = [f"{name}={address.rpartition(':')[2]}" for name, address in addresses.items()]
    with running_stack(stack.root, clean_environment, "heartbeats.seconds=30", "heartbeats.missed=3", *ports) as again:
        seconds = until(lambda: state_of(again, flow_run) in ("CRASHED", "CANCELLED", "FAILED"), "an end", 300)
        print(f"{state_of(again, flow_run)} {seconds:.0f} s after the next start")
        run_again(again, flow_run)
        down_while_training(again)


def down_while_training(stack: Stack) -> None:
    """`gristmill down` waits for the checkpoint, of a run too whose worker was killed, and says how the run ended."""
    more = {"training.duration.steps": MANY, "training.checkpoint.every_steps": None}
    flow_run = start(stack, "pretrain", training_parameters("downed", **more))
    await_step(stack, "downed", 20)
    kill_service(stack, "prefect-worker")
    down(str(stack.root))
    assert not processes_of(flow_run)
    assert checkpoints_of(stack, "downed") == [len(rows_of(stack, "downed"))]
    with sqlite3.connect(stack.root / "prefect/prefect.db") as database:
        (state,) = database.execute("SELECT state_type FROM flow_run WHERE id = ?", (flow_run,)).fetchone()
    assert state == "CRASHED"
