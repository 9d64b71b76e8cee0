from distributed import Client

from infra.cluster import open_cluster
from infra.rate_limit import RateLimit, TokenBucket
from infra.settings import Environment


def test_a_burst_passes_and_then_the_rate_rules() -> None:
    bucket = TokenBucket()
    assert [bucket.reserve(1, rate=2, burst=2, now=100.0) for _ in range(5)] == [0, 0, 0, 0.5, 1.0]


def test_a_pause_holds_everyone_back() -> None:
    bucket = TokenBucket()
    bucket.pause(3, now=100.0)
    assert bucket.reserve(1, rate=1, burst=1, now=101.0) == 2.0
    assert bucket.reserve(1, rate=1, burst=1, now=101.0) == 3.0


def test_without_a_rate_nothing_waits() -> None:
    limit = RateLimit("x", None, 1)
    limit.pause(100)
    assert limit.wait() == 0


def test_without_a_cluster_the_process_has_its_own_bucket() -> None:
    limit = RateLimit("x", 50, 1)
    assert sum(limit.wait() for _ in range(6)) > 0.04


def take(number: int) -> float:
    return RateLimit("server", 0.01, 1).reserve()


def test_all_workers_share_one_bucket() -> None:
    with open_cluster(Environment(workers=2)) as cluster:
        waits = sorted(cluster.map(take, range(8), "take"))
    # One token every hundred seconds: the first two are free, each later one stands behind all before it.
    assert [round(wait / 100) for wait in waits] == [0, 0, 1, 2, 3, 4, 5, 6]


def hold(number: int) -> float:
    limit = RateLimit("paused", 1000.0, 1)
    if number == 0:
        limit.pause(1000)
    return limit.reserve()


def test_a_pause_that_one_worker_asks_for_holds_the_others() -> None:
    with open_cluster(Environment(workers=2)) as cluster:
        cluster.run(hold, 0, "pause")
        assert min(cluster.map(hold, [1, 2, 3, 4], "wait")) > 900


def test_a_second_client_of_the_same_scheduler_keeps_the_buckets() -> None:
    with open_cluster(Environment(workers=1)) as cluster:
        address = cluster._client.scheduler.address  # the address of the running scheduler
        with open_cluster(Environment(scheduler=address)) as other, Client(address, set_as_default=False):
            assert other.run(hold, 1, "wait") >= 0
