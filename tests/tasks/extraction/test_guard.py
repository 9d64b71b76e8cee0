"""Guard: one item that hangs, explodes or crashes costs one item, whatever code it hangs in."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tasks.extraction.guard import Failure, Guard, Limits

LIMITS = Limits(cpu_seconds=0.3, memory_bytes=256 << 20)


def double(item: int) -> int:
    return item * 2


def act(item: str) -> str:
    """What an item asks for: the ways in which a parser can fail."""
    if item == "hang":  # in C, with the interpreter lock held: no thread and no signal handler comes through
        pow(7, 10**9, 10**400_000 + 1)
    if item == "loop":
        while True:
            pass
    if item == "sleep":
        time.sleep(60)
    if item == "explode":
        block = b"x" * (400 << 20)
        time.sleep(5)
        return str(len(block))
    if item == "explode at once":
        return str(len(bytearray(1 << 40)))
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "abort":
        os.abort()
    if item == "raise":
        raise KeyError(item)
    return f"{item} done"


def results(items: list[str], limits: Limits = LIMITS) -> list[str]:
    with Guard(act, limits) as guard:
        answers = [guard(item) for item in items]
    return [answer.reason if isinstance(answer, Failure) else answer for answer in answers]


def children() -> set[str]:
    """Process ids of the children of all threads of this process."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


def test_results_come_in_order_whatever_their_size() -> None:
    with Guard(double, LIMITS) as guard:
        assert [guard(number) for number in range(200)] == [2 * number for number in range(200)]
    large = "x" * (5 << 20)
    assert results([large, "", large]) == [f"{large} done", " done", f"{large} done"]


def test_without_limits_nothing_is_forked() -> None:
    with Guard(lambda _: os.getpid(), Limits()) as guard:
        assert guard(0) == os.getpid()
    with Guard(lambda _: os.getpid(), LIMITS) as guard:
        assert guard(0) == guard(1) != os.getpid()


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("hang", "timeout"),
        ("loop", "timeout"),
        ("explode", "memory"),
        ("explode at once", "memory"),
        ("crash", "crash"),
        ("abort", "crash"),
    ],
)
def test_a_failing_item_costs_itself_alone(item: str, reason: str) -> None:
    before = children()
    assert results([item]) == [reason]
    assert results(["a", item, "b", item, item, "c"]) == ["a done", reason, "b done", reason, reason, "c done"]
    assert children() == before


def test_a_sleeping_item_is_stopped_too() -> None:
    limits = Limits(cpu_seconds=5, stall_seconds=0.2)
    assert results(["a", "sleep", "b"], limits) == ["a done", "timeout", "b done"]


def test_the_limit_of_time_is_for_each_item_and_counts_processor_time() -> None:
    def burn(seconds: float) -> float:
        time.sleep(0.05)
        start = time.process_time()
        while time.process_time() - start < seconds:
            pass
        return seconds

    with Guard(burn, Limits(cpu_seconds=0.2)) as guard:
        assert [guard(0.05) for _ in range(8)] == [0.05] * 8
        assert isinstance(guard(1.0), Failure)


def test_failures_say_what_happened_and_the_same_every_time() -> None:
    with Guard(act, LIMITS) as guard:
        first, second = ([guard(item) for item in ("hang", "explode", "crash")] for _ in range(2))
    assert first == second
    assert [failure.value for failure in first if isinstance(failure, Failure)] == [0.3, 256 << 20, 11]
    assert [failure.detail for failure in first if isinstance(failure, Failure)] == [
        "more than 0.3 processor seconds",
        "more than 268435456 bytes",
        "SIGSEGV",
    ]


def test_exceptions_are_raised_where_the_guard_is_called() -> None:
    with Guard(act, LIMITS) as guard:
        with pytest.raises(KeyError, match="raise"):
            guard("raise")
        assert guard("a") == "a done"


def test_it_works_beside_other_threads() -> None:
    stop = threading.Event()
    others = [threading.Thread(target=lambda: [str(number) for number in iter(stop.is_set, True)]) for _ in range(3)]
    for thread in others:
        thread.start()
    collected: list[list[str]] = []
    worker = threading.Thread(target=lambda: collected.append(results(["a", "hang", "b"])))
    worker.start()
    worker.join(30)
    stop.set()
    for thread in others:
        thread.join()
    assert collected == [["a done", "timeout", "b done"]]


def test_no_child_outlives_a_killed_parent(tmp_path: Path) -> None:
    program = (
        "import os, time\n"
        "from tasks.extraction.guard import Guard, Limits\n"
        "def work(item):\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "    time.sleep(600)\n"
        "with Guard(work, Limits(cpu_seconds=60)) as guard:\n"
        "    guard(0)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).resolve().parents[2])
    wait_for(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))
    child = int((tmp_path / "pid").read_text())
    parent.kill()
    parent.wait()
    wait_for(lambda: not is_running(child))


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_for(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
