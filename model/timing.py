"""Where the time of a step goes, without waiting for the device, and traces of it.

Megatron-Core calls `config.timers(name).start()` and `.stop()` around what it does; a `Clock` takes that place. On a
GPU a span is a pair of events in the stream, whose distance is read when both have passed: nothing waits, and the time
of the last spans of a step is told with the next step. On a CPU a span is wall time. Seconds are of five kinds:

    data             until this rank's part of a batch is on the device
    compute          forwards and backwards through the layers, collectives of tensor and context parallelism included
    communication    what the stream waits for between ranks: neighbours in the pipeline, gradients, updated weights;
                     with overlap only what is left to wait for
    optimizer        norm and clipping of gradients, update of master weights, copies between the types
    checkpoint       until training goes on

What is left of a step is pipeline bubbles of interleaved schedules, Python, and the journal.
"""

import logging
import platform
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from model.config import ProfileSettings

logger = logging.getLogger(__name__)

KINDS: tuple[str, ...] = ("data", "compute", "communication", "optimizer", "checkpoint", "evaluation")
_COMPUTE = ("forward-compute", "backward-compute")
_OUTER = "forward-backward"


class Clock:
    """Adds up spans by kind; stands in for Megatron-Core's timers."""

    def __init__(self, device: torch.device) -> None:
        self._spans: dict[str, _Span] = {}
        self._span = _DeviceSpan if device.type == "cuda" else _Span

    def attach(self, chunks: Sequence[Any], optimizer: Any) -> None:
        """Have Megatron-Core's schedules and optimizers tell their times."""
        for chunk in chunks:
            chunk.config.timers = self
        for each in optimizer.chained_optimizers:
            each.config.timers = self

    def __call__(self, name: str, log_level: int | None = None) -> "_Span":
        """The span of a name, as Megatron-Core asks for it."""
        return self._spans.setdefault(name, self._span())

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Count the time that the device takes for what is asked of it inside towards a name."""
        span = self(name)
        span.start()
        yield
        span.stop()

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Count the time that the host spends inside towards a name."""
        span = self._spans.setdefault(name, _Span())
        span.start()
        yield
        span.stop()

    def take(self) -> dict[str, float]:
        """Seconds of each kind since this was called last, as far as they are known."""
        seconds = dict.fromkeys(KINDS, 0.0)
        for name, span in self._spans.items():
            taken = span.take()
            if name != _OUTER:
                seconds[_kind_of(name)] += taken
        return seconds


class _Span:
    """Wall time between starts and stops."""

    def __init__(self) -> None:
        self._started, self._seconds = 0.0, 0.0

    def start(self, barrier: bool = False) -> None:
        """Begin; never a barrier, which would make every rank wait."""
        self._started = time.perf_counter()

    def stop(self, barrier: bool = False) -> None:
        """End."""
        self._seconds += time.perf_counter() - self._started

    def take(self) -> float:
        """Seconds since this was called last."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class _DeviceSpan(_Span):
    """Time of the device's stream between starts and stops."""

    def __init__(self) -> None:
        super().__init__()
        self._pairs: list[tuple[Any, Any]] = []
        self._first: Any = None

    def start(self, barrier: bool = False) -> None:
        self._first = torch.cuda.Event(enable_timing=True)
        self._first.record()

    def stop(self, barrier: bool = False) -> None:
        last = torch.cuda.Event(enable_timing=True)
        last.record()
        self._pairs.append((self._first, last))

    def take(self) -> float:
        passed = 0
        milliseconds = 0.0
        for first, last in self._pairs:
            if not last.query():
                break
            milliseconds += first.elapsed_time(last)
            passed += 1
        self._pairs = self._pairs[passed:]
        return milliseconds / 1000


def _kind_of(name: str) -> str:
    if name in KINDS:
        return name
    if name in _COMPUTE:
        return "compute"
    return "optimizer" if name.startswith("optimizer") else "communication"


def used_memory(device: torch.device) -> float:
    """Most memory, in GiB, that this process has had: on the GPU what tensors took, else what was resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident / (2**30 if sys.platform == "darwin" else 2**20)


def device_name(device: torch.device) -> str:
    """What the driver calls a GPU, else the kind of processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"


class Profiler:
    """Traces some steps into a Chrome trace in a folder; does nothing without settings."""

    def __init__(self, settings: ProfileSettings | None, folder: Path, *, rank: int, steps: int) -> None:
        """`steps` is the number of the run's last step."""
        self._folder, self._rank = folder, rank
        self._first = settings.first_step if settings else 0
        self._last = min(steps, settings.first_step + settings.steps - 1) if settings else -1
        self._running: Any = None

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Belongs around a step; behind the last one that is traced, the trace is written and its path logged."""
        if self._running is None and self._first == step:
            self._running = torch.profiler.profile()
            self._running.__enter__()
        yield
        if self._running and step >= self._last:
            self._write()

    def _write(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._running.__exit__(None, None, None)
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"steps-{self._first:08d}-{self._last:08d}-rank-{self._rank:04d}.json"
        self._running.export_chrome_trace(str(path))
        self._running = None
        logger.info("trace of steps %d to %d in %s", self._first, self._last, path)
