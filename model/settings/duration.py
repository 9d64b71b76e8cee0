"""How long a run trains, and how many sequences each of its steps takes: arithmetic over settings.

Steps are counted from 1. Samples are sequences of `model.sequence_length` tokens; the order in which they come does not
depend on the sizes of the batches, so that a ramp changes when a sample is seen but not which one is next.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from pydantic import Field, model_validator

from infra.errors import BadInput
from infra.settings import Settings
from model.settings.architecture import check_divides

TOKENS_PER_PARAMETER = 20
"""Training tokens for each parameter at which loss is lowest for a given amount of computing (arXiv:2203.15556)."""


class Duration(Settings):
    """How long to train: exactly one of the fields; all but steps are rounded up to whole steps."""

    steps: int | None = Field(default=None, ge=1)
    """Updates of the weights."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens of text that go through the model."""
    epochs: float | None = Field(default=None, gt=0)
    """Times the dataset's training split, counted in tokens."""
    chinchilla: float | None = Field(default=None, gt=0)
    """Multiples of 20 tokens for each parameter outside the embeddings (arXiv:2203.15556); active ones of a mixture."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for value in (self.steps, self.tokens, self.epochs, self.chinchilla)) != 1:
            raise ValueError(
                "give exactly one of duration.steps, duration.tokens, duration.epochs and duration.chinchilla"
            )
        return self

    def samples(self, *, sequence_length: int, train_tokens: int, parameters: int) -> int | None:
        """Sequences to train on, or None where steps are given; `parameters` are those outside the embeddings."""
        if self.steps is not None:
            return None
        if self.tokens is not None:
            tokens = self.tokens
        elif self.epochs is not None:
            tokens = round(self.epochs * train_tokens)
        else:
            assert self.chinchilla is not None
            tokens = round(self.chinchilla * TOKENS_PER_PARAMETER * parameters)
        return max(1, -(-tokens // sequence_length))


class BatchRamp(Settings):
    """Small batches at first, because many small updates teach more than few large ones early on (arXiv:2005.14165)."""

    start: int = Field(default=16, ge=1)
    """Sequences in the first step."""
    increment: int = Field(default=16, ge=1)
    """Sequences by which batches grow each time, up to global_batch_size."""
    samples: int = Field(default=100_000, ge=1)
    """Sequences over which the batches grow, the same number for each size."""


@dataclass(frozen=True)
class BatchSizes:
    """Sequences in each step of a run."""

    final: int
    ramp: BatchRamp | None = None

    def stages(self) -> Iterator[tuple[int, int]]:
        """(size, steps of that size), in order; the final size, which has no end, is left out."""
        if self.ramp is None:
            return
        sizes = range(self.ramp.start, self.final, self.ramp.increment)
        done = 0
        for number, size in enumerate(sizes, 1):
            steps = -(-(self.ramp.samples * number // len(sizes) - done) // size)
            if steps > 0:
                yield size, steps
                done += size * steps

    def sizes(self) -> list[int]:
        """Every size that occurs, ascending."""
        return [*(size for size, _ in self.stages()), self.final]

    def at(self, step: int) -> int:
        """Sequences in a step."""
        for size, steps in self.stages():
            if step <= steps:
                return size
            step -= steps
        return self.final

    def samples(self, steps: int) -> int:
        """Sequences in the first so many steps together."""
        total = 0
        for size, count in self.stages():
            taken = min(count, steps)
            total, steps = total + size * taken, steps - taken
        return total + steps * self.final

    def steps(self, samples: int) -> int:
        """Fewest steps that take at least so many sequences."""
        total = 0
        for size, count in self.stages():
            taken = min(count, -(-samples // size))
            total, samples = total + taken, samples - size * taken
        return total + max(0, -(-samples // self.final))


def check_batches(batches: BatchSizes, share: int, name: str) -> None:
    """Refuse with BadInput batches of which some does not divide by `share`, whose parts `name` says."""
    check_divides("global_batch_size", batches.final, name, share)
    if (ramp := batches.ramp) is None:
        return
    if ramp.start >= batches.final:
        raise BadInput(
            f"batch_ramp.start = {ramp.start} with global_batch_size = {batches.final}",
            "batches grow from start to global_batch_size",
            f"Set batch_ramp.start below {batches.final}, or leave batch_ramp unset",
        )
    check_divides("batch_ramp.start", ramp.start, name, share)
    check_divides("batch_ramp.increment", ramp.increment, name, share)
