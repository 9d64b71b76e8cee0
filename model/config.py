"""Settings of a training run and of an evaluation, and the check that a layout can work before anything starts.

A *step* is one update of the weights over one global batch.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from infra.errors import BadInput
from infra.settings import Settings, operational
from model.architecture import ModelSettings, check_divides, check_model
from model.layout import ParallelSettings, check_parallel


class OptimizerSettings(Settings):
    """AdamW (arXiv:1711.05101) with warm-up and a schedule; one-dimensional weights are not decayed."""

    learning_rate: float = Field(default=1e-3, gt=0)
    """Highest learning rate, reached at the end of the warm-up."""
    min_learning_rate: float = Field(default=1e-4, ge=0)
    """Learning rate at the last step; the constant schedule ignores it."""
    schedule: Literal["cosine", "linear", "constant", "inverse-square-root", "warmup-stable-decay"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_steps: int = Field(default=100, ge=0)
    """Steps over which the learning rate rises linearly; 0 starts at learning_rate."""
    decay_fraction: float = Field(default=0.2, gt=0, le=1)
    """Last part of the steps over which warmup-stable-decay falls linearly; the other schedules ignore it."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Part of a weight that is taken away at each step, times the learning rate."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the running mean of gradients."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """Decay of the running mean of squared gradients."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Added to the root of the running mean of squared gradients."""
    clip_gradient_norm: float | None = Field(default=1.0, gt=0)
    """Largest norm of the whole gradient; unset does not clip."""


class CheckpointSettings(Settings):
    """When training state is written."""

    every_steps: int | None = operational(1000, ge=1)
    """Steps between checkpoints; unset writes only the last."""
    keep: int | None = operational(2, ge=1)
    """Newest checkpoints that are kept; unset keeps all."""


class Duration(Settings):
    """How long to train: exactly one of the fields."""

    steps: int | None = Field(default=None, ge=1)
    """Updates of the weights."""
    tokens: int | None = Field(default=None, ge=1)
    """Predicted tokens, rounded up to whole steps."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.steps is None) == (self.tokens is None):
            raise ValueError("give exactly one of duration.steps and duration.tokens")
        return self


class TrainingSettings(Settings):
    """A training run. What is not operational decides the weights and names the run's folder."""

    model: ModelSettings = ModelSettings()
    """Shape of the model."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """Updates of the weights."""
    duration: Duration = Duration(steps=10_000)
    """How long to train."""
    global_batch_size: int = Field(default=64, ge=1)
    """Sequences in each step, over all processes."""
    seed: int = Field(default=1234, ge=0, lt=2**31)
    """Seed of the initial weights and of the order of the data."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type in which layers compute; gradients, master weights and optimizer state are always float32."""
    micro_batch_size: int = operational(8, ge=1)
    """Sequences that go through the layers at once in one process."""
    parallel: ParallelSettings = operational(ParallelSettings())
    """How the work is spread over processes."""
    compiled: bool = operational(True)
    """Whether layers are compiled (torch.compile) on GPUs: some minutes at the start, then faster steps."""
    checkpoint: CheckpointSettings = operational(CheckpointSettings())
    """When training state is written."""
    log_every: int = operational(10, ge=1)
    """Steps between progress lines and between deliveries of metrics to MLflow."""
    verify_shards: bool = operational(True)
    """Whether every token shard's SHA-256 is checked before training; sizes are checked always."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens that are predicted in one step."""
        return self.global_batch_size * self.model.sequence_length

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        if self.duration.steps is not None:
            return self.duration.steps
        assert self.duration.tokens is not None
        return -(-self.duration.tokens // self.tokens_per_step)


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
    prompts: tuple[str, ...] = ()
    """Texts to continue; needs pipeline = 1."""
    sample_tokens: int = Field(default=64, ge=1)
    """Most tokens to add to a prompt; a continuation also stops at the end of the document."""
    temperature: float = Field(default=0.8, ge=0)
    """Divides the logits before sampling; 0 takes the likeliest token each time."""
    top_k: int | None = Field(default=50, ge=1)
    """Samples among so many likeliest tokens; unset samples among all."""
    seed: int = Field(default=1234, ge=0, lt=2**31)
    """Seed of the sampling."""


def validate_layout(settings: TrainingSettings, vocabulary_size: int) -> None:
    """Refuse with BadInput a model or layout that cannot work, before any process starts."""
    check_model(settings.model)
    check_parallel(settings.model, settings.parallel, vocabulary_size)
    share = settings.micro_batch_size * settings.parallel.data
    check_divides(
        "global_batch_size",
        settings.global_batch_size,
        f"micro_batch_size x data processes = {settings.micro_batch_size} x {settings.parallel.data}",
        share,
    )


def validate_evaluation(settings: EvaluationSettings, model: ModelSettings, vocabulary_size: int) -> None:
    """Refuse with BadInput an evaluation that cannot work with this model, before any process starts."""
    check_parallel(model, settings.parallel, vocabulary_size)
    if settings.prompts and settings.parallel.pipeline > 1:
        raise BadInput(
            f"parallel.pipeline = {settings.parallel.pipeline} with {len(settings.prompts)} prompts",
            "text is generated token by token, which needs all layers in one process",
            "Set parallel.pipeline to 1 for this evaluation, whatever the training used, or give no prompts",
        )
