"""Settings of the model itself: which architecture, how large, and what makes it impossible."""

from pydantic import Field

from infra.errors import BadInput
from infra.settings import Settings


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


def padded_vocabulary(vocabulary_size: int) -> int:
    """Rows of the embedding: the vocabulary rounded up to a multiple of 128.

    The multiple does not depend on the layout, so that every layout holds the same model.
    """
    return -(-vocabulary_size // 128) * 128


def check_model(model: ModelSettings) -> None:
    """Refuse with BadInput a model that cannot be built."""
    check_divides("hidden_size", model.hidden_size, "num_attention_heads", model.num_attention_heads)
    check_divides("num_attention_heads", model.num_attention_heads, "num_query_groups", model.num_query_groups)
    width = model.hidden_size // model.num_attention_heads
    if width % 2:
        raise BadInput(
            f"hidden_size / num_attention_heads = {width}",
            "rotary positions turn pairs of numbers, so the width of a head is even",
            f"Set hidden_size to {model.num_attention_heads * (width + 1)}",
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
