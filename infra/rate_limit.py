"""One token bucket for each server, shared by all workers of a cluster: together they ask no faster than one may.

The buckets live in the Dask scheduler. A worker reserves its tokens there and is told how long to wait; where no
worker runs the code, as in the driver, the buckets are the process's own. When a server says that it is overloaded,
whoever hears it pauses the bucket for all, those included that wait for tokens which they have reserved already.

Source of the algorithm: the virtual-scheduling form of the leaky bucket (ITU-T I.371, annex A).
"""

import math
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from distributed import Scheduler, get_worker
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.utils import sync

_HANDLER = "gristmill_reserve"
_AN_INSTANT = 1e-3
"""Seconds by which clocks and sleeps may err."""


@dataclass
class TokenBucket:
    """A bucket of `burst` tokens that fills by `rate`: no span of t seconds passes more than burst + rate * t."""

    filled_at: float = -math.inf
    """When the tokens that are taken will have come in."""
    paused_until: float = -math.inf

    def reserve(self, amount: float, rate: float, burst: float, now: float) -> float:
        """Take an amount of tokens and return the seconds to wait before using them; 0 waits for pauses alone."""
        start = max(now, self.paused_until)
        if amount == 0:
            return start - now
        # During a pause and a rest the bucket fills, up to a burst.
        self.filled_at = max(self.filled_at, start - burst / rate) + amount / rate
        return max(self.filled_at, start) - now

    def pause(self, seconds: float, now: float) -> None:
        """Let nobody through for some seconds."""
        self.paused_until = max(self.paused_until, now + seconds)


@dataclass
class Buckets:
    """Buckets by name, for the threads of one process."""

    buckets: dict[str, TokenBucket] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reserve(self, name: str, amount: float, rate: float, burst: float, pause: float) -> float:
        """Pause the bucket, if asked to, then take tokens from it; the seconds to wait."""
        with self.lock:
            bucket, now = self.buckets.setdefault(name, TokenBucket()), time.monotonic()
            if pause:
                bucket.pause(pause, now)
            return bucket.reserve(amount, rate, burst, now)


class RateLimitPlugin(SchedulerPlugin):
    """Gives a Dask scheduler its buckets; registering it twice changes nothing."""

    name = "gristmill-rate-limit"
    idempotent = True

    async def start(self, scheduler: Scheduler) -> None:
        """Answer reservations from workers."""
        buckets = Buckets()

        async def reserve(name: str, amount: float, rate: float, burst: float, pause: float) -> float:
            return buckets.reserve(name, amount, rate, burst, pause)

        scheduler.handlers[_HANDLER] = reserve


@dataclass
class RateLimit:
    """A claim on the bucket of one server. An infinite rate obeys pauses alone; without a rate nobody is asked."""

    name: str
    rate: float | None
    burst: float
    _own: Buckets = field(default_factory=Buckets, repr=False)

    def wait(self, amount: float = 1.0) -> float:
        """Take tokens and sleep until they are free; the seconds slept.

        Where a pause has begun meanwhile, the tokens are given up for others behind it: not all who waited before it
        may come at once when it ends.
        """
        slept = 0.0
        while True:
            seconds = self.reserve(amount)
            time.sleep(seconds)
            slept += seconds
            if seconds == 0 or self.reserve(0) < _AN_INSTANT:
                return slept

    def reserve(self, amount: float = 1.0) -> float:
        """Take tokens; the seconds until they may be used."""
        return self._ask(amount, 0.0)

    def pause(self, seconds: float) -> None:
        """Let no worker of the cluster use the server for some seconds."""
        if seconds > 0:
            self._ask(0.0, seconds)

    def _ask(self, amount: float, pause: float) -> float:
        if self.rate is None:
            return 0.0
        request = {"name": self.name, "amount": amount, "rate": self.rate, "burst": self.burst, "pause": pause}
        try:
            worker = get_worker()
        except ValueError:
            return self._own.reserve(**request)
        if worker.scheduler is None:
            return self._own.reserve(**request)
        call: Any = getattr(worker.scheduler, _HANDLER)
        return float(sync(worker.loop, call, **request))
