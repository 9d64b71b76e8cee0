"""Leaving an evaluation when training is asked to stop, on all ranks together and before everything is measured."""

from model.parallel import Place
from model.rank import StopRequest


class Interrupted(Exception):
    """An evaluation was left, because a rank was asked to stop; raised on every rank."""


class Interruption:
    """Whether ranks go on. Without a request to listen to they always do, at no cost."""

    def __init__(self, place: Place, stop: StopRequest | None = None) -> None:
        self._place, self._stop = place, stop

    @property
    def wished(self) -> bool:
        """Whether this rank was asked to stop: what it does until the next check is for nothing."""
        return self._stop is not None and self._stop.requested

    def check(self) -> None:
        """Raise Interrupted if any rank was asked to stop; every rank calls this together with the others."""
        if self._stop is not None and self._place.sum_over_all([float(self._stop.requested)])[0] > 0:
            raise Interrupted
