"""The cluster: results and errors of single items, and a scheduler that is started elsewhere."""

import math
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from distributed import Client, LocalCluster, Status, get_worker

from infra.cluster import Cluster, open_cluster
from infra.environment import Environment
from infra.errors import BadInput, RunFailed


def test_every_item_is_answered_once(cluster: Cluster) -> None:
    assert sorted(cluster.map(math.factorial, range(40), "factorial")) == sorted(map(math.factorial, range(40)))
    assert cluster.workers == 2
    assert cluster.dashboard.startswith("http://127.0.0.1:")


def test_an_error_names_the_item_and_the_label(cluster: Cluster) -> None:
    with pytest.raises(RunFailed) as caught:
        list(cluster.map(math.sqrt, [1, 2, -3, 4], "root"))
    assert caught.value.value == "root: -3 failed (ValueError: math domain error)"
    assert caught.value.rule == "a shard is tried 3 times"
    assert cluster.run(math.sqrt, 25, "root") == 5


def test_a_scheduler_that_was_started_elsewhere_is_used() -> None:
    local: Any = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1")
    with (
        local as elsewhere,
        open_cluster(Environment(scheduler=elsewhere.scheduler_address, workers=5)) as cluster,
    ):
        assert cluster.workers == 1
        assert cluster.run(math.sqrt, 49, "root") == 7


def test_work_that_no_worker_comes_for_fails() -> None:
    local: Any = LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0")
    with local, Client(local, set_as_default=False) as client:
        cluster = Cluster(client, retries=0, wait_seconds=0.2)
        with pytest.raises(RunFailed, match="root: no Dask worker has been there for 0 s") as caught:
            list(cluster.map(math.sqrt, [1, 2], "root"))
        assert "wait_seconds" in caught.value.rule
        local.scale(1)
        client.wait_for_workers(1)
        slow = Cluster(client, retries=0, wait_seconds=0.05)
        assert list(slow.map(time.sleep, [0.3], "nap")) == [None], "a worker that is busy is there"


def test_a_scheduler_of_the_flow_itself_is_not_awaited() -> None:
    local: Any = LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0")
    with local, Client(local, set_as_default=False) as client:
        cluster = Cluster(client, retries=0, patience_seconds=300)
        local.close()
        with pytest.raises(RunFailed, match="the Dask scheduler of this flow is gone") as caught:
            list(cluster.map(math.sqrt, [4], "root"))
    assert "300" not in str(caught.value)


def test_workers_that_are_awaited_without_end_are_missed_aloud(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("infra.cluster._NO_WORKER_SECONDS", 0.1)
    local: Any = LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0")
    with local, Client(local, set_as_default=False) as client, ThreadPoolExecutor() as threads:
        done = threads.submit(list[float], Cluster(client, retries=0).map(math.sqrt, [4], "root"))
        end = time.monotonic() + 30
        while "root: no Dask worker has been there for" not in caplog.text:
            assert time.monotonic() < end
            time.sleep(0.02)
        local.scale(1)
        assert done.result() == [2]


def leave_before_the_end(item: str) -> str:
    """What a worker does to a shard that takes longer than its job's time."""
    worker = get_worker()
    if item == "long":
        worker.loop.add_callback(worker.close_gracefully)
        while worker.status is not Status.closing:
            time.sleep(0.01)
    return item


def test_an_item_that_no_worker_has_time_enough_for_fails() -> None:
    local: Any = LocalCluster(n_workers=6, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0")
    failed: list[str] = []
    with local, Client(local, set_as_default=False) as client:
        cluster = Cluster(client, retries=0)
        items = ["short", "long", "short"]
        done = list(cluster.map(leave_before_the_end, items, "work", lambda _, error: failed.append(error.value)))
    assert done == ["short", "short"]
    assert [re.sub(r"\d", "N", each) for each in failed] == ["work: long was begun N times and never ended"]


def test_a_scheduler_that_does_not_answer_is_bad_input() -> None:
    with (
        pytest.raises(BadInput, match=r"environment.scheduler=tcp://127.0.0.1:9 does not answer"),
        open_cluster(Environment(scheduler="tcp://127.0.0.1:9")),
    ):
        pytest.fail("it must not open")
