import math
import random
import threading

import pytest
from distributed import Client

from infra.cluster import open_cluster
from infra.environment import Environment
from infra.rate_limit import RateLimit, TokenBucket


def test_a_burst_passes_and_then_the_rate_rules() -> None:
    bucket = TokenBucket()
    assert [bucket.reserve(1, rate=2, burst=2, now=100.0) for _ in range(5)] == [0, 0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize(("rate", "burst"), [(2.0, 1.0), (0.5, 1.0), (10.0, 4.0)])
def test_no_span_of_time_passes_more_than_a_burst_and_its_rate(rate: float, burst: float) -> None:
    bucket, numbers, now = TokenBucket(), random.Random(1), 0.0
    passed = []
    for _ in range(200):
        now += numbers.choice((0, 0, 0, 0.1, 2.5))
        passed.append(now + bucket.reserve(1, rate, burst, now))
    assert passed == sorted(passed)
    for first, start in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + rate * (passed[last] - start) + 1e-6


def test_bytes_are_paid_for_by_their_number() -> None:
    bucket = TokenBucket()
    assert [bucket.reserve(amount, rate=100, burst=50, now=0.0) for amount in (50, 10, 200)] == [0, 0.1, 2.1]


def test_a_pause_holds_everyone_back() -> None:
    bucket = TokenBucket()
    bucket.pause(3, now=100.0)
    assert bucket.reserve(1, rate=1, burst=1, now=101.0) == 2.0
    assert bucket.reserve(1, rate=1, burst=1, now=101.0) == 3.0
    assert bucket.reserve(0, rate=1, burst=1, now=101.0) == 2.0


def test_pauses_do_not_add_up_and_a_shorter_one_does_not_end_a_longer() -> None:
    bucket = TokenBucket()
    for seconds in (3, 3, 1):
        bucket.pause(seconds, now=100.0)
    assert bucket.reserve(0, rate=1, burst=1, now=100.0) == 3.0


def test_an_infinite_rate_obeys_pauses_alone() -> None:
    limit = RateLimit("x", math.inf, 1)
    assert [limit.reserve() for _ in range(3)] == [0, 0, 0]
    limit.pause(100)
    assert limit.reserve() > 99


def test_who_waits_for_tokens_waits_for_a_pause_that_begins_meanwhile() -> None:
    limit = RateLimit("x", 10, 1)
    limit.reserve()
    threading.Timer(0.02, limit.pause, (0.3,)).start()
    assert limit.wait() > 0.3


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
    # One token every hundred seconds: the first is free, each later one stands behind all before it.
    assert [round(wait / 100) for wait in waits] == [0, 1, 2, 3, 4, 5, 6, 7]


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
        address = cluster._client.scheduler_info()["address"]  # the address of the running scheduler
        with open_cluster(Environment(scheduler=address)) as other, Client(address, set_as_default=False):
            assert other.run(hold, 1, "wait") >= 0
