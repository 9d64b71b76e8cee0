"""Settings of a training run and of an evaluation, and the check that a layout can work before anything starts.

A *step* is one update of the weights over one global batch. A *layout* says how the work is spread over processes:
`tensor` processes share each layer, `pipeline` processes share the layers among them, and the remaining factor,
`data`, works on different sequences. A layout changes speed and memory but not results (up to rounding), so it is
operational: a run started under one layout may be resumed under another.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from infra.errors import BadInput
from infra.settings import Settings, operational


class ModelSettings(Settings):
    """A decoder-only transformer: RMSNorm, SwiGLU, rotary positions, grouped queries, no biases, no dropout."""

    num_layers: int = Field(default=8, ge=1, le=1024)
    """Transformer layers."""
    hidden_size: int = Field(default=512, ge=8)
    """Width of the residual stream."""
    num_attention_heads: int = Field(default=8, ge=1)
    """Query heads; each is hidden_size / num_attention_heads wide."""
    num_query_groups: int = Field(default=4, ge=1)
    """Key and value heads, each shared by num_attention_heads / num_query_groups query heads (arXiv:2305.13245)."""
    ffn_hidden_size: int = Field(default=1408, ge=8)
    """Width inside the SwiGLU feed-forward layer (arXiv:2002.05202)."""
    sequence_length: int = Field(default=1024, ge=8)
    """Tokens that are predicted in each training sample."""
    rope_base: int = Field(default=10_000, ge=100)
    """Base period of the rotary positions (arXiv:2104.09864)."""
    norm_epsilon: float = Field(default=1e-5, gt=0)
    """Added to the mean square in RMSNorm."""
    tied_embeddings: bool = True
    """Whether the output layer is the transposed input embedding."""
    init_std: float = Field(default=0.02, gt=0)
    """Standard deviation of the initial weights; layers that add to the residual stream get it / sqrt(2 num_layers)."""
    qk_norm: bool = True
    """Whether queries and keys are normalised for each head (arXiv:2302.05442)."""


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


class ParallelSettings(Settings):
    """A layout; see the module docstring."""

    processes: int = operational(1, ge=1)
    """Processes in all, one for each GPU; data = processes / (tensor * pipeline)."""
    tensor: int = operational(1, ge=1)
    """Processes that share each layer."""
    pipeline: int = operational(1, ge=1)
    """Processes among which the layers are shared out in order."""
    sequence_parallel: bool = operational(False)
    """Whether tensor-parallel processes also share activations between layers by position; saves memory."""
    overlap: bool = operational(False)
    """Whether gradients are reduced and weights gathered while computing goes on; worth it with data > 1 on GPUs."""
    bucket_size: int | None = operational(None, ge=1)
    """Parameters in each piece of the overlapped reduction; unset leaves the choice to Megatron-Core."""

    @property
    def data(self) -> int:
        """Processes that work on different sequences."""
        return self.processes // (self.tensor * self.pipeline)


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


def padded_vocabulary(vocabulary_size: int) -> int:
    """Rows of the embedding: the vocabulary rounded up to a multiple of 128.

    The multiple does not depend on the layout, so that every layout holds the same model.
    """
    return -(-vocabulary_size // 128) * 128


def validate_layout(settings: TrainingSettings, vocabulary_size: int) -> None:
    """Refuse with BadInput a model or layout that cannot work, before any process starts."""
    _check_model(settings.model)
    _check_parallel(settings.model, settings.parallel, vocabulary_size)
    share = settings.micro_batch_size * settings.parallel.data
    _divides(
        "global_batch_size",
        settings.global_batch_size,
        f"micro_batch_size x data processes = {settings.micro_batch_size} x {settings.parallel.data}",
        share,
    )


def validate_evaluation(settings: EvaluationSettings, model: ModelSettings, vocabulary_size: int) -> None:
    """Refuse with BadInput an evaluation that cannot work with this model, before any process starts."""
    _check_parallel(model, settings.parallel, vocabulary_size)
    if settings.prompts and settings.parallel.pipeline > 1:
        raise BadInput(
            f"parallel.pipeline = {settings.parallel.pipeline} with {len(settings.prompts)} prompts",
            "text is generated token by token, which needs all layers in one process",
            "Set parallel.pipeline to 1 for this evaluation, whatever the training used, or give no prompts",
        )


def _check_model(model: ModelSettings) -> None:
    _divides("hidden_size", model.hidden_size, "num_attention_heads", model.num_attention_heads)
    _divides("num_attention_heads", model.num_attention_heads, "num_query_groups", model.num_query_groups)
    width = model.hidden_size // model.num_attention_heads
    if width % 2:
        raise BadInput(
            f"hidden_size / num_attention_heads = {width}",
            "rotary positions turn pairs of numbers, so the width of a head is even",
            f"Set hidden_size to {model.num_attention_heads * (width + 1)}",
        )


def _check_parallel(model: ModelSettings, parallel: ParallelSettings, vocabulary_size: int) -> None:
    grid = parallel.tensor * parallel.pipeline
    _divides(
        "parallel.processes", parallel.processes, f"tensor x pipeline = {parallel.tensor} x {parallel.pipeline}", grid
    )
    _divides("num_attention_heads", model.num_attention_heads, "parallel.tensor", parallel.tensor)
    _divides("num_query_groups", model.num_query_groups, "parallel.tensor", parallel.tensor)
    _divides("ffn_hidden_size", model.ffn_hidden_size, "parallel.tensor", parallel.tensor)
    _divides("the padded vocabulary", padded_vocabulary(vocabulary_size), "parallel.tensor", parallel.tensor)
    _divides("num_layers", model.num_layers, "parallel.pipeline", parallel.pipeline)
    if parallel.sequence_parallel:
        _divides("sequence_length", model.sequence_length, "parallel.tensor (sequence_parallel)", parallel.tensor)


def _divides(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """Raise BadInput unless the divisor divides the value, naming the nearest values that would work."""
    if value % divisor == 0:
        return
    below, above = value // divisor * divisor, -(-value // divisor) * divisor
    nearest = f"{below} or {above}" if below else f"{above}"
    fitting = max(each for each in range(1, divisor + 1) if value % each == 0)
    raise BadInput(
        f"{name} = {value} with {divisor_name} = {divisor}",
        f"{name} must be a multiple of {divisor_name}",
        f"Set {name} to {nearest}, or the latter to {fitting}",
    )
