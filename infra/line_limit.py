"""A bound on how many lines a second a process may log; what is too much is counted and said."""

import math
from dataclasses import dataclass, field


@dataclass
class LineLimit:
    """Lets so many lines through and counts the rest."""

    per_second: float = 10.0
    burst: int = 100
    """Lines that may come at once after a quiet time."""
    _withheld: int = field(default=0, repr=False)
    _free: float = field(default=-math.inf, repr=False)
    """When the lines that were let through are paid for, on the clock of `now`."""

    def admit(self, now: float) -> bool:
        """Whether a line may pass at some time in seconds."""
        start = max(self._free, now - self.burst / self.per_second)
        if start + 1 / self.per_second > now:
            self._withheld += 1
            return False
        self._free = start + 1 / self.per_second
        return True

    def tell(self) -> str:
        """What to say of the lines that were withheld; empty if none were, or it was said before."""
        withheld, self._withheld = self._withheld, 0
        return f"{withheld:,} more lines were left out" if withheld else ""
