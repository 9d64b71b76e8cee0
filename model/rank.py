"""What every rank does before its work: quiet libraries, one form of log line, and a wish to stop that can be asked."""

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from infra.launching.ranks import reporting_failures
from model.gpu import speed_up
from model.megatron import on_cpu

logger = logging.getLogger(__name__)

STOPPED = 128 + signal.SIGTERM
"""Exit code after a request to stop, as a shell would report SIGTERM."""


class StopRequest:
    """Notes stop signals instead of dying of them, so that the loop can finish its step and write a checkpoint.

    Python's own handlers wait until the main thread leaves a collective or a file write, which may be never. A thread
    is told of the signal at once through a pipe, and ends the process when the grace period is over: checkpoints are
    whole or absent, so that nothing is lost but the steps since the last one.
    """

    def __init__(self, signals: Sequence[str] = ("SIGTERM",), grace_seconds: float = 55) -> None:
        self.requested = False
        self._grace_seconds = grace_seconds
        self._over = threading.Event()
        self._numbers = {signal.Signals[name] for name in signals}

    def __enter__(self) -> "StopRequest":
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, self._note) for number in self._numbers}
        self._watch = threading.Thread(target=self._enforce, name="stop request", daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._over.set()
        os.close(self._writing)
        self._watch.join()
        os.close(self._reading)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def _enforce(self) -> None:
        while not self.requested:
            heard = os.read(self._reading, 16)
            if not heard:  # the pipe is closed: training is over
                return
            self.requested = any(number in self._numbers for number in heard)
        if not self._over.wait(self._grace_seconds):
            logger.error("not stopped %s s after being asked to: leaving without a checkpoint", self._grace_seconds)
            sys.stdout.flush()
            os._exit(STOPPED)


def quiet_libraries() -> None:
    """Ignore warnings of absent optional libraries and deprecations inside Megatron-Core and torch, on every rank."""
    warnings.filterwarnings("ignore", module=r"(megatron|torch)\..*")


@contextmanager
def rank_process() -> Iterator[None]:
    """Around a rank's main function; afterwards Megatron-Core can be imported."""
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.WARNING, force=True)
    for ours in ("model", "infra"):
        logging.getLogger(ours).setLevel(logging.INFO)
    quiet_libraries()
    with reporting_failures():
        on_cpu.install()
        speed_up.install()
        yield
