"""Looks at losses, gradient norms and the speed of processes, and says what is unhealthy.

The detectors are pure: the same numbers give the same finding. Loss and norm are sums over all ranks, of which every
rank has the same bits, so that all ranks decide alike without asking one another.
"""

import math
import socket
import statistics
import time
from collections import deque
from collections.abc import Sequence

import torch

from model.parallel import Place
from model.recovery.events import Kind
from model.settings.safety import HealthSettings, Policy

_MAD_TO_DEVIATION = 1.4826
"""Standard deviations of a normal distribution in one median absolute deviation."""


class Unhealthy(Exception):
    """A step whose update should not be applied as a matter of course; raised before it is."""

    def __init__(self, kind: Kind, value: float, limit: float | None, policy: Policy) -> None:
        super().__init__(f"{kind}: {value}")
        self.kind: Kind = kind
        self.value, self.limit = value, limit
        self.policy: Policy = policy


class Health:
    """Remembers the losses of the last steps, and compares new ones with them."""

    def __init__(self, settings: HealthSettings, losses: Sequence[float] = ()) -> None:
        self.settings = settings
        self.reported: Unhealthy | None = None
        """A finding of the last step that is to be reported only."""
        self._losses: deque[float] = deque(losses, maxlen=settings.window)

    @property
    def losses(self) -> tuple[float, ...]:
        """What a checkpoint has to keep so that a resumed run finds the same."""
        return tuple(self._losses)

    def check_loss(self, step: int, loss: float) -> None:
        """Raise Unhealthy for a loss that is no number or a spike, unless spikes are reported only."""
        self.reported = None
        if not math.isfinite(loss):
            raise Unhealthy("loss not finite", loss, None, self.settings.non_finite)
        limit = self.spike_limit(step)
        if limit is not None and loss > limit:
            spike = Unhealthy("loss spike", loss, limit, self.settings.spike)
            if spike.policy != "report":
                raise spike
            self.reported = spike

    def check_norm(self, norm: float) -> None:
        """Raise Unhealthy for a gradient norm that is no number."""
        if not math.isfinite(norm):
            raise Unhealthy("gradient norm not finite", norm, None, self.settings.non_finite)

    def accept(self, loss: float) -> None:
        """Remember the loss of an update that was made."""
        self._losses.append(loss)

    def restart(self, losses: Sequence[float]) -> None:
        """Go back to the losses that a checkpoint has kept."""
        self._losses = deque(losses, maxlen=self.settings.window)

    def spike_limit(self, step: int) -> float | None:
        """Loss above which a step is a spike; None while too little is known."""
        if step <= self.settings.spike_after or 2 * len(self._losses) < self.settings.window:
            return None
        return spike_limit(self._losses, self.settings.spike_threshold, self.settings.spike_least)


def spike_limit(losses: Sequence[float] | deque[float], threshold: float, least: float) -> float:
    """Median of the losses plus `threshold` robust standard deviations, and at least `least` nats.

    The deviation is 1.4826 times the median absolute deviation, which earlier spikes in the window hardly move.
    """
    median = statistics.median(losses)
    deviation = _MAD_TO_DEVIATION * statistics.median(abs(loss - median) for loss in losses)
    return median + max(threshold * deviation, least)


class Stragglers:
    """Measures every process on the same small work from time to time, and names those that stay slow.

    The times of whole steps tell nothing, because all ranks wait for the slowest; work without communication does.
    """

    def __init__(self, settings: HealthSettings, place: Place) -> None:
        self._settings, self._place = settings, place
        self._slow_before: set[int] = set()

    def due(self, step: int) -> bool:
        """Whether a measurement belongs behind this step."""
        every = self._settings.straggler_every
        return every is not None and self._place.processes > 1 and step % every == 0

    def measure(self) -> list[tuple[str, float, float]]:
        """(rank and host, seconds, limit) of each process that was slow this time and the time before.

        Every rank calls this and gets the same.
        """
        here = (f"rank {self._place.rank} on {socket.gethostname()}", _probe(self._place.device))
        measured = self._place.gather_everywhere(here)
        slow, limit = slow_ranks([seconds for _, seconds in measured], self._settings.straggler_factor)
        twice, self._slow_before = slow & self._slow_before, slow
        return [(measured[rank][0], measured[rank][1], limit) for rank in sorted(twice)]


def slow_ranks(seconds: Sequence[float], factor: float) -> tuple[set[int], float]:
    """Ranks that took more than `factor` times the median of the others and of themselves, and that limit."""
    limit = factor * statistics.median_low(seconds)
    return {rank for rank, each in enumerate(seconds) if each > limit}, limit


def _probe(device: torch.device) -> float:
    """Seconds for a few products of matrices: some milliseconds on any device; the median of three."""
    size, kind = (4096, torch.bfloat16) if device.type == "cuda" else (512, torch.float32)
    matrix = torch.ones(size, size, dtype=kind, device=device)
    times: list[float] = []
    for _ in range(3):
        began = time.perf_counter()
        product = matrix
        for _ in range(4):
            product = matrix @ matrix
        product.flatten()[0].item()  # waits for the device
        times.append(time.perf_counter() - began)
    return statistics.median(times)
