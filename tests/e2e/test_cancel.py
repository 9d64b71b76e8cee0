"""Cancelling flow runs as the UI's button does: what is being made stays whole, and nothing is left running."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client

from flows.servers.stack import status
from infra.store import Store
from tests.e2e.flow_processes import (
    STEPS,
    TRAINING,
    await_step,
    build_dataset,
    cancel,
    checkpoints_of,
    completed,
    corpus_parameters,
    environment_of,
    is_alive,
    logs_of,
    processes_of,
    ranks_of,
    rows_of,
    start,
    state_of,
    training_parameters,
    until,
    write_many_shards,
)
from tests.flows.conftest import REPOSITORY
from tests.flows.stacks import Stack, nested, running_stack
from tests.flows.test_end_to_end import SETTINGS
from tests.infra.launching.test_launch import job
from tests.tasks.records import CRAWL

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str], small_crawl: Path
) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("cancel"), clean_environment) as running:
        build_dataset(running, small_crawl)
        yield running


def await_cancelled(stack: Stack, flow_run: str) -> float:
    """Seconds until no process of a flow run is left; its state is Cancelled then or soon."""
    seconds = until(lambda: not processes_of(flow_run), "the end of all processes")
    until(lambda: state_of(stack, flow_run) == "CANCELLED", "state Cancelled")
    return seconds


def test_training_writes_a_checkpoint_frees_its_ranks_and_goes_on(stack: Stack) -> None:
    parameters = training_parameters("cancelled", **{"training.checkpoint.every_steps": None})
    first = start(stack, "pretrain", parameters)
    await_step(stack, "cancelled", 20)
    assert len(ranks_of(first)) == 2
    cancel(stack, first)
    print(f"\ncancelled training: {await_cancelled(stack, first):.1f} s")
    reached = len(rows_of(stack, "cancelled"))
    assert checkpoints_of(stack, "cancelled") == [reached]
    assert reached < STEPS

    again = start(stack, "pretrain", parameters)
    completed(stack, again)
    assert any(f"from step {reached}" in line for line in logs_of(stack, again))
    assert [row["step"] for row in rows_of(stack, "cancelled")] == list(range(1, STEPS + 1))


def test_a_training_whose_worker_was_killed_can_be_cancelled(stack: Stack) -> None:
    first = start(stack, "pretrain", training_parameters("outlived", **{"training.checkpoint.every_steps": None}))
    await_step(stack, "outlived", 20)
    (worker,) = [each for each in status(str(stack.root)).services if each.name == "prefect-worker"]
    os.kill(worker.pid, signal.SIGKILL)
    time.sleep(2)
    cancel(stack, first)
    print(f"\ncancelled without its worker: {await_cancelled(stack, first):.1f} s")
    assert checkpoints_of(stack, "outlived") == [len(rows_of(stack, "outlived"))]


def test_the_whole_chain_is_cancelled_in_its_subflow(stack: Stack, small_crawl: Path) -> None:
    source = {"corpus.source.base_url": str(small_crawl), "corpus.source.crawl": CRAWL, "dataset.name": "chain"}
    corpus = {name: value for name, value in SETTINGS.items() if not name.startswith("training.")}
    corpus["evaluation.prompts"] = ["The module "]
    addresses = {f"environment.{name}": value for name, value in environment_of(stack).items()}
    settings = nested({**corpus, **source, **TRAINING, **addresses, "run": "chain"})
    chain = start(stack, "crawl_to_model", {"settings": settings})
    await_step(stack, "chain", 5)
    cancel(stack, chain)
    print(f"\ncancelled chain: {await_cancelled(stack, chain):.1f} s")
    assert checkpoints_of(stack, "chain")[-1] == len(rows_of(stack, "chain")) < STEPS
    states = {each["state_type"] for each in stack.flow_runs()}
    until(lambda: not {"RUNNING", "PENDING"} & {each["state_type"] for each in stack.flow_runs()}, f"{states}")


def test_a_corpus_stops_between_shards_with_nothing_half_written(stack: Stack, tmp_path: Path) -> None:
    parameters = corpus_parameters(write_many_shards(tmp_path / "crawl"), "stopped")
    first = start(stack, "build_corpus", parameters)
    records = stack.root / "stages"
    until(lambda: len(list(records.glob("extract/*/shards/*.json"))) > 6, "some shards of a stage")
    cancel(stack, first)
    print(f"\ncancelled corpus: {await_cancelled(stack, first):.1f} s")
    assert not Store(str(stack.root)).exists("datasets/stopped")
    with Client(stack.dask, set_as_default=False) as client:
        asked: Any = client
        until(lambda: not any(asked.processing().values()), "idle workers", 30)

    again = start(stack, "build_corpus", parameters)
    completed(stack, again)
    left = [path for path in records.rglob("*") if path.suffix == ".tmp" or path.name.startswith(".")]
    assert not left


def test_ranks_outlive_a_flow_run_that_is_killed_while_it_waits_for_them(tmp_path: Path) -> None:
    """Prefect kills a cancelled flow run after 30 seconds; ranks that need longer still write their checkpoint."""
    body = """
        from infra.launching.ranks import reporting_failures
        from model.rank import StopRequest
        with reporting_failures(), StopRequest() as stop:
            print("pid", os.getpid(), flush=True)
            while not stop.requested:
                time.sleep(0.05)
            time.sleep(4)
            open(os.path.join(os.path.dirname(__file__), f"saved-{rank}"), "w").close()
        """
    spec = job(tmp_path, body).model_copy(update={"grace_seconds": 20})
    script = f"""
from infra.launching.launch import JobSpec, LocalLauncher
def stop(line, ready=[]):
    ready.append(line)
    if len(ready) == 2:
        print(line, flush=True)
        raise KeyboardInterrupt
LocalLauncher().run(JobSpec.model_validate_json({spec.model_dump_json()!r}), stop)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as flow:
        assert flow.stdout is not None
        rank = psutil.Process(int(flow.stdout.readline().split()[-1]))
        agent = rank.parent()
        assert agent is not None
        ranks = agent.children()
        time.sleep(2)
        flow.kill()
    until(lambda: not any(map(is_alive, ranks)), "the end of the ranks", 60)
    until(lambda: not is_alive(agent), "the end of torchrun's agent", 90)
    assert sorted(path.name for path in tmp_path.glob("saved-*")) == ["saved-0", "saved-1"]
