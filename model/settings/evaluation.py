"""Settings of an evaluation, and of those that training makes on its way."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from infra.settings import Settings, operational
from model.settings.benchmarks import BenchmarkSettings
from model.settings.layout import ParallelSettings


class EvaluationSettings(Settings):
    """What is measured on the held-out split, and which texts the model is asked to continue."""

    step: int | None = Field(default=None, ge=1)
    """Step of the checkpoint to evaluate; unset takes the newest."""
    parallel: ParallelSettings = operational(ParallelSettings())
    """Layout of the evaluation; it need not be that of the training."""
    micro_batch_size: int = operational(8, ge=1)
    """Sequences that go through the layers at once in one process."""
    verify_shards: bool = operational(True)
    """Whether the SHA-256 of every shard that is read is checked before."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Held-out tokens to measure on, cut down to whole documents (at least one); unset takes the whole split."""
    benchmarks: BenchmarkSettings = BenchmarkSettings()
    """Tasks of lm-evaluation-harness."""
    groups: tuple[Literal["source", "language", "host"], ...] = ("source", "language")
    """By what the held-out split is told apart, besides being measured as a whole."""
    held_out: tuple[Annotated[str, Field(pattern=r"^[^/]+/[^/]+$")], ...] = ()
    """NAME/VERSION of further datasets, of the same tokenizer, whose held-out splits are measured as wholes."""
    prompts: tuple[str, ...] = ()
    """Texts to continue; needs context = 1."""
    sample_tokens: int = Field(default=64, ge=1)
    """Most tokens to add to a prompt; a continuation also stops at the end of the document."""
    temperature: float = Field(default=0.8, ge=0)
    """Divides the logits before sampling; 0 takes the likeliest token each time."""
    top_k: int | None = Field(default=50, ge=1)
    """Samples among so many likeliest tokens; unset samples among all."""
    seed: int = Field(default=1234, ge=0, lt=2**31)
    """Seed of the sampling."""


class EvaluationDuringTraining(Settings):
    """Evaluations of a run at some of its steps, by its own processes, before it goes on."""

    every_steps: int | None = Field(default=None, ge=1)
    """Steps from one evaluation to the next."""
    every_tokens: int | None = Field(default=None, ge=1)
    """The same in tokens: after the first step that reaches a multiple of so many."""
    of: EvaluationSettings = EvaluationSettings(max_tokens=100_000, benchmarks=BenchmarkSettings(limit=100))
    """What is measured, on a part: its layout and step are those of the training."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.every_steps is None) == (self.every_tokens is None):
            raise ValueError("give one of every_steps and every_tokens")
        return self

    def due(self, step: int, tokens_before: int, tokens: int) -> bool:
        """Whether to evaluate after a step that took the run from some tokens to others."""
        if self.every_steps is not None:
            return step % self.every_steps == 0
        return tokens // (self.every_tokens or 1) > tokens_before // (self.every_tokens or 1)
