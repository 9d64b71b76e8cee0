"""Settings of the model itself: which architecture, how large, and what makes it impossible."""

from typing import Any, Literal

from pydantic import Field, model_validator

from infra.errors import BadInput
from infra.settings import Settings
from model.settings.sizes import with_size


class RopeScaling(Settings):
    """Rotary positions stretched to sequences longer than the model first saw."""

    kind: Literal["linear", "llama3"] = "llama3"
    """linear divides every frequency by the factor (arXiv:2306.15595); llama3 only the low ones (arXiv:2407.21783)."""
    factor: float = Field(default=8.0, ge=1)
    """By how much the lowest frequencies are divided."""
    low_frequency_factor: float = Field(default=1.0, gt=0)
    """llama3: waves longer than original_length / this are divided wholly."""
    high_frequency_factor: float = Field(default=4.0, gt=0)
    """llama3: waves shorter than original_length / this stay; between the two the division fades out."""
    original_length: int = Field(default=8192, ge=1)
    """llama3: tokens of the sequences that the frequencies were first trained on."""


class MixtureSettings(Settings):
    """A mixture of experts in place of each feed-forward layer; no token is dropped (arXiv:2211.15841)."""

    experts: int = Field(default=8, ge=2)
    """Experts in each layer."""
    top_k: int = Field(default=2, ge=1)
    """Experts that each token is sent to; their softmax weights add up to one (arXiv:2401.04088)."""
    expert_ffn_hidden_size: int | None = Field(default=None, ge=8)
    """Width inside each expert; unset takes ffn_hidden_size."""
    shared_ffn_hidden_size: int | None = Field(default=None, ge=8)
    """Width inside an expert that every token passes as well (arXiv:2401.06066); unset has none."""
    load_balancing: float = Field(default=0.01, ge=0)
    """Weight of the loss that spreads the tokens of each sequence over the experts (arXiv:2101.03961)."""
    router_z_loss: float = Field(default=0.001, ge=0)
    """Weight of the squared log-sum-exp of the router's logits (arXiv:2202.08906)."""


class ModelSettings(Settings):
    """The shape of a model; the defaults are a small decoder in the form that Llama and Qwen share.

    A name from `model.settings.sizes` may stand for the whole (`model = "150m"`), or as `size` for what is not given
    beside it.
    """

    architecture: Literal["gpt", "bert", "t5", "lstm"] = "gpt"
    """gpt predicts the next token; bert fills in masked ones (arXiv:1810.04805); t5 reads a text with gaps and writes
    what was in them (arXiv:1910.10683); lstm is a recurrent baseline that predicts the next token."""
    num_layers: int = Field(default=8, ge=1, le=1024)
    """Layers; t5 has as many in its encoder and again in its decoder."""
    hidden_size: int = Field(default=512, ge=8)
    """Width of the residual stream, or of the state of an lstm, which has no other width and none of the attention."""
    num_attention_heads: int = Field(default=8, ge=1)
    """Query heads."""
    num_query_groups: int = Field(default=4, ge=1)
    """Key and value heads, each shared by num_attention_heads / num_query_groups query heads (arXiv:2305.13245)."""
    head_width: int | None = Field(default=None, ge=2)
    """Width of each head; unset takes hidden_size / num_attention_heads."""
    ffn_hidden_size: int = Field(default=1408, ge=8)
    """Width inside the feed-forward layer."""
    sequence_length: int = Field(default=1024, ge=8)
    """Tokens of text in each training sample; those that are predicted in it for gpt and lstm."""
    normalization: Literal["RMSNorm", "LayerNorm"] = "RMSNorm"
    """Norm before attention and feed-forward (arXiv:1910.07467, arXiv:1607.06450)."""
    activation: Literal["swiglu", "gelu", "squared-relu"] = "swiglu"
    """Inside the feed-forward layer; swiglu has a third matrix (arXiv:2002.05202, arXiv:2109.08668)."""
    biases: bool = False
    """Whether the linear layers add biases."""
    positions: Literal["rope", "learned", "none"] = "rope"
    """How a token knows its place: rotary (arXiv:2104.09864), a learned vector for each, or not at all."""
    rope_base: int = Field(default=10_000, ge=100)
    """Base period of the rotary positions."""
    rope_scaling: RopeScaling | None = None
    """Unset leaves the rotary positions as they are."""
    norm_epsilon: float = Field(default=1e-5, gt=0)
    """Added to the mean square in the norms."""
    tied_embeddings: bool = True
    """Whether the output layer is the transposed input embedding."""
    init_std: float = Field(default=0.02, gt=0)
    """Standard deviation of the initial weights; layers that add to the residual stream get it / sqrt(2 num_layers)."""
    qk_norm: bool = True
    """Whether queries and keys are normalised for each head (arXiv:2302.05442); never in t5's cross-attention."""
    sliding_window: int | None = Field(default=None, ge=1)
    """Tokens that a position sees, itself included, in layers with a window; unset sees all (arXiv:2310.06825)."""
    full_attention_every: int | None = Field(default=None, ge=1)
    """With a window: every so many layers one sees everything; unset has the window in all layers."""
    hidden_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Part of what attention and feed-forward add to the residual stream that is zeroed in training."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Part of the attention weights that is zeroed in training."""
    mixture: MixtureSettings | None = None
    """Experts in the feed-forward layers; gpt only."""
    masked_fraction: float = Field(default=0.15, gt=0, lt=1)
    """bert and t5: part of the tokens that is to be predicted."""
    mean_span: float = Field(default=3.0, ge=1)
    """t5: mean length of a gap in tokens."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return with_size(value)

    @property
    def kv_channels(self) -> int:
        """Width of each head."""
        return self.head_width or self.hidden_size // self.num_attention_heads

    @property
    def predicts_next_token(self) -> bool:
        """Whether the model gives a text a likelihood, so that it can be measured in bits per byte and continued."""
        return self.architecture in ("gpt", "lstm")


def padded_vocabulary(vocabulary_size: int) -> int:
    """Rows of the embedding: the vocabulary rounded up to a multiple of 128.

    The multiple does not depend on the layout, so that every layout holds the same model.
    """
    return -(-vocabulary_size // 128) * 128


def special_tokens(model: ModelSettings) -> int:
    """Rows of the embedding after the tokenizer's vocabulary: bert's mask; t5's start of output, then its sentinels."""
    if model.architecture == "bert":
        return 1
    return 2 + gaps(model, model.sequence_length)[1] if model.architecture == "t5" else 0


def embedding_rows(model: ModelSettings, vocabulary_size: int) -> int:
    """Rows of the model's embedding, its own special tokens included."""
    return padded_vocabulary(vocabulary_size + special_tokens(model))


def gaps(model: ModelSettings, tokens: int) -> tuple[int, int]:
    """Of a text of so many tokens (at least two), those that t5 has to write, and the gaps that they leave."""
    missing = min(max(round(tokens * model.masked_fraction), 1), tokens - 1)
    return missing, min(max(round(missing / model.mean_span), 1), missing, tokens - missing)


def lengths(model: ModelSettings) -> tuple[int, int]:
    """Positions that go through the encoder (0 without one) and through the decoder for each sample.

    t5's are what a sample with gaps and what was in them take, rounded up to a multiple of 8.
    """
    if model.architecture == "bert":
        return model.sequence_length, 0
    if model.architecture != "t5":
        return 0, model.sequence_length
    missing, count = gaps(model, model.sequence_length)
    return _eights(model.sequence_length - missing + count), _eights(missing + count + 1)


def _eights(number: int) -> int:
    return -(-number // 8) * 8


def check_model(model: ModelSettings) -> None:
    """Refuse with BadInput a model that cannot be built."""
    if model.architecture == "lstm":
        return _check_lstm(model)
    _check_heads(model)
    _check_positions(model)
    _check_mixture(model)
    if model.full_attention_every is not None and model.sliding_window is None:
        raise BadInput(
            f"full_attention_every = {model.full_attention_every} without sliding_window",
            "all layers see everything where none has a window",
            "Set sliding_window, or leave full_attention_every unset",
        )
    if model.architecture == "t5":
        _check_t5(model)


def _check_lstm(model: ModelSettings) -> None:
    for name in ("sliding_window", "mixture", "rope_scaling"):
        if getattr(model, name) is not None:
            raise BadInput(
                f"{name} with architecture = lstm",
                "a recurrent network has neither attention nor a feed-forward layer",
                f"Leave {name} unset, or set architecture to gpt",
            )


def _check_heads(model: ModelSettings) -> None:
    if model.head_width is None:
        check_divides("hidden_size", model.hidden_size, "num_attention_heads", model.num_attention_heads)
    check_divides("num_attention_heads", model.num_attention_heads, "num_query_groups", model.num_query_groups)


def _check_positions(model: ModelSettings) -> None:
    width = model.kv_channels
    if model.positions == "rope" and width % 2:
        remedy = f"hidden_size to {model.num_attention_heads * (width + 1)}"
        raise BadInput(
            f"hidden_size / num_attention_heads = {width}" if model.head_width is None else f"head_width = {width}",
            "rotary positions turn pairs of numbers, so the width of a head is even",
            f"Set {remedy if model.head_width is None else f'head_width to {width + 1}'}",
        )
    if model.positions == "none" and model.architecture != "gpt":
        raise BadInput(
            f"positions = none with architecture = {model.architecture}",
            "without causal attention a model that is not told positions sees a bag of tokens",
            "Set positions to learned or rope",
        )
    scaling = model.rope_scaling
    if scaling is not None and model.positions != "rope":
        raise BadInput(
            f"rope_scaling with positions = {model.positions}",
            "only rotary positions can be stretched",
            "Leave rope_scaling unset, or set positions to rope",
        )
    if scaling and scaling.kind == "llama3" and scaling.low_frequency_factor >= scaling.high_frequency_factor:
        raise BadInput(
            f"rope_scaling.low_frequency_factor = {scaling.low_frequency_factor} with "
            f"high_frequency_factor = {scaling.high_frequency_factor}",
            "the lower bound of frequencies lies below the higher one",
            f"Set low_frequency_factor below {scaling.high_frequency_factor}",
        )


def _check_mixture(model: ModelSettings) -> None:
    if (mixture := model.mixture) is None:
        return
    if model.architecture != "gpt":
        raise BadInput(
            f"mixture with architecture = {model.architecture}",
            "mixtures of experts are built into decoders only",
            "Leave mixture unset, or set architecture to gpt",
        )
    if mixture.top_k > mixture.experts:
        raise BadInput(
            f"mixture.top_k = {mixture.top_k} with mixture.experts = {mixture.experts}",
            "a token is sent to different experts",
            f"Set top_k to at most {mixture.experts}",
        )
    if model.biases:
        raise BadInput(
            "biases = true with a mixture",
            "what several experts compute is added up, and Megatron-Core keeps no biases apart for that",
            "Set biases to false",
        )


def _check_t5(model: ModelSettings) -> None:
    if model.num_query_groups != model.num_attention_heads:
        raise BadInput(
            f"num_query_groups = {model.num_query_groups} with num_attention_heads = {model.num_attention_heads}",
            "Megatron-Core's cross-attention has a key and value head for each query head",
            f"Set num_query_groups to {model.num_attention_heads}",
        )
    if model.sliding_window is not None:
        raise BadInput(
            f"sliding_window = {model.sliding_window} with architecture = t5",
            "positions of the encoder and of the decoder have no distance from each other",
            "Leave sliding_window unset",
        )


def check_divides(name: str, value: int, divisor_name: str, divisor: int) -> None:
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
