"""Runs a program and ends when all that it has started has ended too: a container ends with its first process.

`python -m infra.outlast SECONDS COMMAND...`: whatever the command leaves behind at its end has so many seconds more.
Prefect's worker, for one, kills its flow runs when it is told to stop, and their ranks then write a checkpoint.
"""

import ctypes
import os
import signal
import sys
from types import FrameType


def main(seconds: str, *command: str) -> None:
    """Run a command, hand SIGTERM and SIGINT on to it, and end with its exit code."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1)  # orphans become children of this process
    # A shell's background job ignores SIGINT, by which Prefect's worker ends itself.
    first = os.posix_spawnp(command[0], command, os.environ, setsigdef=(signal.SIGINT,))

    def hand_on(number: int, frame: FrameType | None) -> None:
        os.kill(first, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hand_on)
    code = _reap(until=first)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(code))
    signal.setitimer(signal.ITIMER_REAL, float(seconds))
    _reap()
    sys.exit(code)


def _reap(until: int | None = None) -> int:
    """Wait until a child, or every one, has ended; returns the exit code of that one as shells count it."""
    while True:
        try:
            child, status = os.wait()
        except ChildProcessError:
            return 0
        if child == until:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main(*sys.argv[1:])
