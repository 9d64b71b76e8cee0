"""What every rank does before its work: quiet libraries, one form of log line, and a wish to stop that can be asked."""

import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from infra.launch import reporting_failures
from model import megatron_cpu, megatron_gpu


class StopRequest:
    """Notes SIGTERM instead of dying of it, so that the loop can finish its step and write a checkpoint."""

    def __init__(self) -> None:
        self.requested = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


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
        megatron_cpu.install()
        megatron_gpu.install()
        yield
