"""How much of a crawl one refresh takes: shards in the order of the listing, as long as they fit."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flows.refreshes.settings import RefreshBudget
from infra.errors import BadInput, RunFailed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Amount:
    """Shards, their bytes and the tokens that came of them."""

    shards: int = 0
    bytes: int = 0
    tokens: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.shards + other.shards, self.bytes + other.bytes, self.tokens + other.tokens)

    def fits(self, budget: RefreshBudget) -> bool:
        """Whether no limit is passed."""
        limits = ((self.shards, budget.shards), (self.bytes, budget.bytes), (self.tokens, budget.tokens))
        return all(limit is None or amount <= limit for amount, limit in limits)


@dataclass(frozen=True)
class Rate:
    """What an earlier version gave."""

    tokens: int
    shards: int
    bytes: int | None
    """None where the sizes of its shards are not known."""

    def estimate(self, size: int) -> float:
        """Tokens of a shard of so many bytes: by bytes where they are known, as of any shard otherwise."""
        return self.tokens * (size / self.bytes if self.bytes else 1 / max(self.shards, 1))


def choose(
    paths: Sequence[str],
    budget: RefreshBudget,
    spent: Amount,
    size_of: Callable[[str], int | None],
    rate: Rate | None,
) -> Amount:
    """How many of a listing's next shards fit into what a budget has left; sizes are asked for only where they count.

    BadInput where not even one fits into a budget that nothing was spent of, and where tokens cannot be estimated;
    RunFailed where the server tells no sizes.
    """
    if budget.tokens is not None and rate is None:
        raise BadInput(
            f"refresh.budget.tokens={budget.tokens} for a dataset without a version",
            "tokens are estimated by what an earlier version gave",
            "Give refresh.budget.shards or .bytes for the first version",
        )
    sized = budget.bytes is not None or budget.tokens is not None
    chosen = Amount()
    for path in paths:
        size = _size(path, size_of) if sized else 0
        tokens = rate.estimate(size) if rate is not None and budget.tokens is not None else 0.0
        more = chosen + Amount(1, size, tokens)
        if not (spent + more).fits(budget):
            if not (spent.shards or chosen.shards):
                raise BadInput(
                    f"{path} has {size:,} bytes" + (f", about {tokens:,.0f} tokens" if tokens else ""),
                    f"refresh.budget must hold one shard at least; it is {budget.model_dump(exclude_none=True)}",
                    "Raise the budget",
                )
            break
        chosen = more
    return chosen


def _size(path: str, size_of: Callable[[str], int | None]) -> int:
    if (size := size_of(path)) is None:
        raise RunFailed(
            f"{path}: the server does not say how large it is",
            "a budget of bytes or tokens needs the sizes of shards",
            "Give refresh.budget.shards instead",
        )
    return size
