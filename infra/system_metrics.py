"""Load of a machine while a run uses it, under the names that MLflow's page of system metrics knows.

MLflow's own monitor ends for good when its server does not answer once, and needs a run of the calling process. So its
probes are used, and what they measured waits until it is taken.
"""

import logging
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

_KEPT = 10_000
"""Most samples that wait for a server: a day at ten seconds each."""


class SystemMetrics:
    """Samples processor, memory, disk, network and, where nvidia-ml-py is installed, GPUs, in a thread."""

    def __init__(self, seconds: float, node: int | None = None) -> None:
        """A sample every so many seconds; nodes of a job that has several are told apart by their number."""
        self._seconds, self._prefix = seconds, "system/" if node is None else f"system/node-{node}/"
        self._samples: deque[tuple[int, dict[str, float]]] = deque(maxlen=_KEPT)
        self._over = threading.Event()
        self._probes = _probes()
        self._thread = threading.Thread(target=self._watch, name="system metrics", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        over = False
        while not over:
            over = self._over.wait(self._seconds)  # and once more at the end: a short run has one sample
            metrics: dict[str, float] = {}
            for probe in self._probes:
                with suppress(Exception):  # a probe that fails, as of a network that went away, is left out
                    probe.collect_metrics()
                    metrics |= probe.aggregate_metrics()
                probe.clear_metrics()
            named = {f"{self._prefix}{name}": value for name, value in metrics.items()}
            self._samples.append((int(time.time() * 1000), named))

    def waiting(self) -> list[tuple[int, dict[str, float]]]:
        """Samples that were not delivered: milliseconds since 1970, and metrics."""
        return list(self._samples)

    def delivered(self, samples: int) -> None:
        """Forget so many of the oldest samples."""
        for _ in range(min(samples, len(self._samples))):
            self._samples.popleft()

    def close(self) -> None:
        """Sample no more."""
        self._over.set()
        self._thread.join()


def _probes() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
    probes: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(Exception):  # there is no nvidia-ml-py, no driver or no GPU
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        probes.append(GPUMonitor())
    return probes
