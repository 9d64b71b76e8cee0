"""The cluster: results and errors of single items, and a scheduler that is started elsewhere."""

from collections.abc import Sequence

import pytest
from distributed import LocalCluster
from shard_functions import describe_item

from infra.cluster import Cluster, open_cluster
from infra.errors import BadInput, RunFailed
from infra.settings import Environment


def test_every_item_is_answered_once(cluster: Cluster) -> None:
    items: Sequence[int] = [n for n in range(40) if n != 3]
    assert sorted(cluster.map(describe_item, items, "describe")) == sorted(f"item {n}" for n in items)
    assert cluster.workers == 2
    assert cluster.dashboard.startswith("http://127.0.0.1:")


def test_an_error_names_the_item_and_the_label(cluster: Cluster) -> None:
    with pytest.raises(RunFailed) as caught:
        list(cluster.map(describe_item, [1, 2, 3, 4], "describe"))
    assert caught.value.value == "describe: 3 failed (LookupError: no such thing)"
    assert caught.value.rule == "a shard is tried 3 times"
    assert cluster.run(describe_item, 5, "describe") == "item 5"


def test_a_scheduler_that_was_started_elsewhere_is_used() -> None:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1") as elsewhere,
        open_cluster(Environment(scheduler=elsewhere.scheduler_address, workers=5)) as cluster,
    ):
        assert cluster.workers == 1
        assert cluster.run(describe_item, 7, "describe") == "item 7"


def test_a_scheduler_that_does_not_answer_is_bad_input() -> None:
    with (
        pytest.raises(BadInput, match=r"environment.scheduler=tcp://127.0.0.1:9 does not answer"),
        open_cluster(Environment(scheduler="tcp://127.0.0.1:9")),
    ):
        pytest.fail("it must not open")
