"""Workers' log records: whose they are, where they go, and that a flood of them does not."""

import contextvars
import logging
import re
import time
from collections.abc import Callable

import pytest

from infra.cluster import Cluster
from infra.launching.ranks import RankOutput
from infra.line_limit import LineLimit


def chatter(lines: int) -> int:
    for number in range(lines):
        logging.getLogger("tasks.chatter").info("line %d of %d", number, lines)
    logging.getLogger("some.library").info("of no interest")
    logging.getLogger("some.library").warning("look here: s3://me:hush@store %s", "x" * 1000)
    return lines


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_records_of_a_worker_arrive_with_its_name_and_the_shard(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert cluster.run(chatter, 2, "chatter") == 2
        wait_until(lambda: any("look here" in each for each in caplog.messages))
    told = [each for each in caplog.records if each.name in ("tasks.chatter", "infra.worker_logs")]
    assert [each.getMessage().partition(" [")[0] for each in told[:2]] == ["line 0 of 2", "line 1 of 2"]
    assert told[2].getMessage().startswith("some.library: look here: s3://me:***@store xxx")
    assert len(told[2].getMessage()) < 300  # of libraries, who knows what they quote
    assert all("[2, worker tcp://127.0.0.1:" in each.getMessage() for each in told)
    assert told[-1].levelname == "WARNING"


def test_records_are_handled_in_the_context_of_who_asked(cluster: Cluster) -> None:
    asker, seen = contextvars.ContextVar[str]("asker"), []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(asker.get(None))

    handler = Keep()
    logging.getLogger("infra.worker_logs").addHandler(handler)
    try:
        asker.set("this test")
        cluster.run(chatter, 0, "chatter")
        wait_until(lambda: bool(seen))
    finally:
        logging.getLogger("infra.worker_logs").removeHandler(handler)
    assert seen == ["this test"]


def test_a_flood_is_cut_and_says_by_how_much(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    lines = 3000
    with caplog.at_level("INFO"):
        cluster.run(chatter, lines, "chatter")
        wait_until(lambda: any("lines were left out [" in each for each in caplog.messages))
    passed = [each for each in caplog.messages if each.startswith(("line ", "some.library"))]
    assert LineLimit().burst / 2 < len(passed) < lines / 2
    notes = re.findall(r"([\d,]+) more lines were left out", "\n".join(caplog.messages))
    assert sum(int(each.replace(",", "")) for each in notes) == lines + 1 - len(passed)


def test_so_many_lines_a_second_pass_whatever_comes() -> None:
    limit = LineLimit(per_second=8, burst=4)
    assert [limit.admit(0.0) for _ in range(6)] == [True] * 4 + [False] * 2
    assert limit.tell() == "2 more lines were left out"
    assert limit.tell() == ""
    assert all(limit.admit(tick / 8) for tick in range(1, 9))
    assert sum(limit.admit(1.0 + tick / 1024) for tick in range(1025)) == 8


def test_a_rank_that_floods_is_cut_and_the_others_are_heard():
    heard: list[str] = []
    output = RankOutput(heard.append, ())
    for number in range(5000):
        output.take(f"[rank1]:line {number}")
    output.take("[rank0]:all is well")
    assert 900 < len(heard) < 1500
    assert heard[-1] == "[rank 0] all is well"
