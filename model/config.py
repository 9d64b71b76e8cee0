"""Settings of a training run and of an evaluation, and the check that a layout can work before anything starts.

A *step* is one update of the weights over one global batch.
"""

from typing import Literal

from pydantic import Field

from infra.errors import BadInput
from infra.settings import Settings, opened, operational
from model.data.settings import DataSettings
from model.estimates.flops import body_parameters
from model.settings.architecture import ModelSettings, check_model
from model.settings.duration import BatchRamp, BatchSizes, Duration, check_batches
from model.settings.evaluation import EvaluationDuringTraining, EvaluationSettings
from model.settings.layout import ParallelSettings, check_parallel
from model.settings.precision import Fp8, check_fp8, engine_installed
from model.settings.safety import CheckpointSettings, HealthSettings


class OptimizerSettings(Settings):
    """Updates by AdamW or Muon with warm-up and a schedule; only matrices decay, norms and biases do not."""

    kind: Literal["adamw", "muon"] = "adamw"
    """adamw (arXiv:1711.05101), its state spread over the data processes; or muon (arXiv:2502.16982) for the matrices
    of the layers and adamw for embeddings, output layer, norms and biases, its state whole in each data process."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Highest learning rate, reached at the end of the warm-up; muon's updates have the size of adamw's."""
    min_learning_rate: float = Field(default=1e-4, ge=0)
    """Learning rate at the last step; the constant schedule ignores it."""
    schedule: Literal["cosine", "linear", "constant", "inverse-square-root", "warmup-stable-decay"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_steps: int = Field(default=100, ge=0)
    """Steps over which the learning rate rises linearly; 0 starts at learning_rate."""
    decay_fraction: float = Field(default=0.2, gt=0, le=1)
    """Last part of the steps over which warmup-stable-decay falls; the other schedules ignore it."""
    decay_shape: Literal["linear", "cosine", "square-root"] = "linear"
    """How warmup-stable-decay falls: square-root is 1 - sqrt of the part done (arXiv:2405.18392)."""
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
    muon_momentum: float = Field(default=0.95, ge=0, lt=1)
    """Decay of muon's sum of gradients, which is used as in Nesterov's method."""


class LossSettings(Settings):
    """What is added to the cross entropy; the loss that is reported is the cross entropy alone."""

    z_loss: float = Field(default=0.0, ge=0)
    """Weight of the squared log-sum-exp of the logits, which keeps them near zero; 1e-4 in PaLM (arXiv:2204.02311)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Part of each label that is spread evenly over the whole vocabulary (arXiv:1512.00567)."""


class ProfileSettings(Settings):
    """A trace of some steps by torch's profiler, for chrome://tracing or Perfetto, in the run's folder `profile/`."""

    first_step: int = operational(10, ge=1)
    """First step that is traced; compiling and other first-time work is over after a few."""
    steps: int = operational(2, ge=1, le=100)
    """Steps that are traced; each takes megabytes."""
    all_ranks: bool = operational(False)
    """Whether every process writes a trace, or only the one that reports."""


class TrainingSettings(Settings):
    """A training run. What is not operational decides the weights and names the run's folder."""

    model: ModelSettings = opened(ModelSettings())
    """Shape of the model; the name of a size may stand for it: 1m, 4m, 15m, 60m, 150m, 350m, 1b, 3.6b, 8b or 70b."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """Updates of the weights."""
    loss: LossSettings = LossSettings()
    """What is made small."""
    data: DataSettings = DataSettings()
    """What text is trained on, and how samples are made of it."""
    duration: Duration = Duration(steps=10_000)
    """How long to train."""
    global_batch_size: int = Field(default=64, ge=1)
    """Sequences in each step, over all processes."""
    batch_ramp: BatchRamp | None = None
    """Smaller batches at first; unset has none. The learning rate goes by steps, whatever their size."""
    start_from: str | None = Field(default=None, pattern=r"^models/[\w.-]+$")
    """Imported model whose weights training goes on from (`gristmill import`); unset draws them."""
    seed: int = Field(default=1234, ge=0, lt=2**31)
    """Seed of the initial weights and of the order of the data."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type in which layers compute; gradients, master weights and optimizer state are always float32."""
    fp8: Fp8 = "none"
    """Type in which layers multiply while training: none is dtype; e4m3 has 4 bits for the exponent and 3 for the
    fraction; hybrid has 5 and 2 for gradients (arXiv:2209.05433). Needs Transformer Engine on GPUs."""
    micro_batch_size: int = operational(8, ge=1)
    """Sequences that go through the layers at once in one process."""
    recompute: Literal["none", "selective", "full"] = operational("none")
    """What is computed again on the way back to save memory: nothing, feed-forward layers, or whole layers."""
    parallel: ParallelSettings = operational(ParallelSettings())
    """How the work is spread over processes."""
    compiled: bool = operational(True)
    """Whether layers are compiled (torch.compile) on GPUs: some minutes at the start, then faster steps."""
    transformer_engine: Literal["auto", "never"] = operational("auto")
    """Whether bfloat16 layers are Transformer Engine's on GPUs where it is installed: they are not compiled then."""
    checkpoint: CheckpointSettings = operational(CheckpointSettings())
    """When and how training state is written."""
    health: HealthSettings = operational(HealthSettings())
    """What is held for unhealthy, and what is done about it."""
    evaluation: EvaluationDuringTraining | None = operational(None)
    """Evaluations while it trains; unset makes none."""
    log_every: int = operational(10, ge=1)
    """Steps between progress lines and between deliveries of metrics to MLflow."""
    verify_shards: bool = operational(True)
    """Whether every token shard's SHA-256 is checked before training; sizes are checked always."""
    profile: ProfileSettings | None = operational(None)
    """Steps to trace; unset traces none."""
    peak_tflops: float | None = operational(None, gt=0)
    """Peak of one device in dense TFLOP/s for `dtype`; unset looks it up by the device's name."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens in a step of full size."""
        return self.global_batch_size * self.model.sequence_length

    @property
    def batches(self) -> BatchSizes:
        """Sequences in each step."""
        return BatchSizes(self.global_batch_size, self.batch_ramp)

    def planned_steps(self, train_tokens: int) -> int:
        """Steps of the whole run on a training split of so many tokens."""
        samples = self.duration.samples(
            sequence_length=self.model.sequence_length,
            train_tokens=train_tokens,
            parameters=body_parameters(self.model, active=True),
        )
        return self.batches.steps(samples) if samples is not None else self.duration.steps or 1


def validate_layout(settings: TrainingSettings, vocabulary_size: int, *, elsewhere: bool = False) -> None:
    """Refuse with BadInput a model or layout that cannot work, before any process starts.

    Where the ranks run `elsewhere`, those machines themselves say what is installed on them.
    """
    check_model(settings.model)
    check_parallel(settings.model, settings.parallel, vocabulary_size)
    _check_optimizer(settings)
    _check_fp8(settings, installed=elsewhere or engine_installed())
    if settings.model.architecture == "lstm" and not settings.data.attend_across_documents:
        raise BadInput(
            "data.attend_across_documents = false with model.architecture = lstm",
            "a recurrent network carries its state from one document of a sample to the next",
            "Set data.attend_across_documents to true",
        )
    if settings.evaluation is not None:
        own = settings.evaluation.of.model_copy(update={"parallel": settings.parallel})
        validate_evaluation(own, settings.model, vocabulary_size)
    data, pipeline = settings.parallel.data, settings.parallel.pipeline
    name = f"micro_batch_size x data processes = {settings.micro_batch_size} x {data}"
    check_batches(settings.batches, settings.micro_batch_size * data, name)
    if settings.parallel.virtual_pipeline is not None:  # whose stages take as many micro-batches at a time as they are
        name = f"micro_batch_size x data x pipeline processes = {settings.micro_batch_size} x {data} x {pipeline}"
        check_batches(settings.batches, settings.micro_batch_size * data * pipeline, name)


def _check_optimizer(settings: TrainingSettings) -> None:
    if settings.optimizer.kind == "muon" and settings.model.mixture is not None:
        raise BadInput(
            "optimizer.kind = muon with a mixture of experts",
            "muon needs whole matrices, and experts are spread over processes of their own",
            "Set optimizer.kind to adamw",
        )


def _check_fp8(settings: TrainingSettings, *, installed: bool) -> None:
    check_fp8(
        settings.fp8,
        settings.transformer_engine,
        settings.model,
        settings.parallel,
        dtype=settings.dtype,
        micro_batch_size=settings.micro_batch_size,
        installed=installed,
    )


def validate_evaluation(settings: EvaluationSettings, model: ModelSettings, vocabulary_size: int) -> None:
    """Refuse with BadInput an evaluation that cannot work with this model, before any process starts."""
    check_parallel(model, settings.parallel, vocabulary_size)
    if (settings.prompts or settings.benchmarks.tasks) and not model.predicts_next_token:
        raise BadInput(
            f"{len(settings.prompts)} prompts and {len(settings.benchmarks.tasks)} tasks with model.architecture = "
            f"{model.architecture}",
            "only a model that predicts the next token continues a text or tells how likely it is",
            "Give neither, or train a gpt",
        )
    if settings.prompts and settings.parallel.context > 1:
        raise BadInput(
            f"parallel.context = {settings.parallel.context} with {len(settings.prompts)} prompts",
            "text is generated token by token, and one position cannot be shared out",
            "Set parallel.context to 1 for this evaluation, whatever the training used, or give no prompts",
        )
