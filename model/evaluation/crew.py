"""One rank leads, the others follow.

The harness runs on rank 0 alone, but everything that touches the model is done by all ranks together. So rank 0 says
what is due, and every rank does it:

    with Crew(place, {"score": scorer.score}) as crew:
        if place.rank == 0:
            ...                                 crew.ask("score", requests), as often as wanted
        else:
            crew.follow()                       returns when rank 0 leaves the block
"""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from model.evaluation.interruption import Interruption
from model.parallel import Place

Work = Callable[[Any], Any]
"""Done by every rank with the same argument, among them collectives."""


class Crew:
    """See the module docstring."""

    def __init__(self, place: Place, works: Mapping[str, Work], interruption: Interruption | None = None) -> None:
        """With an interruption, ranks look after each work whether they go on."""
        self._place, self._works = place, works
        self._interruption = interruption or Interruption(place)
        self._at_work = False

    def __enter__(self) -> "Crew":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """On rank 0 let the others go, whatever happened.

        After an error amid a collective they are elsewhere and cannot be reached: then this rank's end ends the job.
        After an interruption they have left by themselves.
        """
        if self._place.rank == 0 and not self._at_work:
            self._place.share((None, error is None))

    def ask(self, work: str, argument: Any) -> Any:
        """Rank 0: have all ranks do some work, and return its result."""
        assert self._place.rank == 0, "only rank 0 leads"
        self._at_work = True
        self._place.share((work, argument))
        result = self._works[work](argument)
        self._interruption.check()
        self._at_work = False
        return result

    def follow(self) -> bool:
        """The other ranks: work until rank 0 is done. Returns whether it was without an error."""
        while True:
            work, argument = self._place.share(None)
            if work is None:
                return argument
            self._works[work](argument)
            self._interruption.check()
