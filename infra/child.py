"""Child processes that do not outlive their parent, even one that is killed.

`python -m infra.child PARENT MODULE ARGUMENTS...` runs a module as a program after asking Linux to send SIGTERM when
the parent, whose process id is given, ends. A program that has not ended by itself some time after that is ended.
"""

import ctypes
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence

LINGER = "GRISTMILL_LINGER_SECONDS"
"""Variable with the time that a program has to end after its parent did; torchrun's agent, for one, was seen to wait
for ever on a lock after all its ranks had ended."""


def child_command(module: str, arguments: Sequence[str]) -> list[str]:
    """The command line that runs a Python module as a child of this process."""
    return [sys.executable, "-m", "infra.child", str(os.getpid()), module, *arguments]


def die_with_parent(number: signal.Signals) -> None:
    """Have Linux send this process a signal when its parent ends; no effect elsewhere."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, int(number))


def main(parent: str, module: str, *arguments: str) -> None:
    """Run a module as if it had been started by itself."""
    die_with_parent(signal.SIGTERM)
    if os.getppid() != int(parent):  # the parent ended before the line above
        raise SystemExit(1)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background jobs
        signal.signal(signal.SIGINT, signal.default_int_handler)  # by which Prefect's worker ends itself
    threading.Thread(target=_end_after, args=(int(parent),), daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_after(parent: int) -> None:
    """End this process some time after its parent, whatever it is waiting for."""
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(float(os.environ.get(LINGER, "90")))
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
