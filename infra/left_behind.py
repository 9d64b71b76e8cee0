"""Programs that services have started and that outlive them: found by a variable that each inherits, and ended.

Prefect's worker is such a service: its flow runs go on when it dies, and so do their ranks while they write a
checkpoint. Each has a session of its own, so that no group of processes has them all.
"""

import logging
import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import psutil

logger = logging.getLogger(__name__)
VARIABLE = "GRISTMILL_SERVICES"
"""Names the folder of the services that a process descends from."""


def inherited(folder: Path) -> dict[str, str]:
    """The variable that the services of a folder are started with."""
    return {VARIABLE: str(folder.resolve())}


def left_behind(folder: Path, sessions: Collection[int] = ()) -> list[psutil.Process]:
    """What the services of a folder have started and still runs; not what is in the sessions of services themselves."""
    found, named = [], inherited(folder)[VARIABLE]
    for each in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            ours = each.environ().get(VARIABLE) == named and each.status() != psutil.STATUS_ZOMBIE
            if ours and each.pid != os.getpid() and os.getsid(each.pid) not in sessions:
                found.append(each)
    return found


def end_all(find: Callable[[], list[psutil.Process]], seconds: float) -> None:
    """Tell what is found to end, and wait until nothing is: flow runs end in order, and their ranks write a checkpoint.

    What is late is killed.
    """
    told: set[psutil.Process] = set()
    end = time.monotonic() + seconds
    while left := find():
        if time.monotonic() > end:
            _kill(left)
            return
        for each in _to_tell(left):
            if each not in told:
                told.add(each)
                with suppress(psutil.NoSuchProcess):
                    each.terminate()
        time.sleep(0.2)


def _kill(processes: list[psutil.Process]) -> None:
    logger.warning("%d programs have not ended in time and are killed", len(processes))
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(processes, timeout=5)


def _to_tell(left: list[psutil.Process]) -> list[psutil.Process]:
    """Those with nobody above who tells them; programs of `infra.child` are told by the kernel.

    A program that tells and awaits others itself must not lose them before.
    """
    numbers = {each.pid for each in left}
    found = []
    for each in left:
        with suppress(psutil.NoSuchProcess):
            if each.ppid() not in numbers and "infra.child" not in each.cmdline()[:3]:
                found.append(each)
    return found
