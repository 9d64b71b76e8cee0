"""A process that is asked to stop while it waits in a place where Python's handlers do not run."""

import os
import signal
import subprocess
import sys
import time

import pytest

from model.rank import STOPPED, StopRequest

# As in a collective whose other ranks are gone: the main thread waits inside C for what never comes.
WAITING = """
import ctypes, sys
from model.rank import StopRequest
with StopRequest(("SIGTERM", "SIGUSR1"), grace_seconds=1):
    print("waiting", flush=True)
    while True:
        ctypes.CDLL(None).sleep(600)
"""


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGUSR1])
def test_a_waiting_process_ends_within_its_grace_period(asked) -> None:
    with subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        began = time.monotonic()
        process.send_signal(asked)
        assert process.wait(30) == STOPPED
        assert 0.9 < time.monotonic() - began < 20


def test_a_signal_is_noted_and_forgotten_when_training_is_over() -> None:
    before = signal.getsignal(signal.SIGUSR2)
    with StopRequest(("SIGUSR2",), grace_seconds=60) as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGUSR2)
        assert stop.requested
    assert signal.getsignal(signal.SIGUSR2) == before
