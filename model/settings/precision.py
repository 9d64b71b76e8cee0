"""Products in 8 bits (fp8), which need Transformer Engine; what cannot work is refused. Nothing here imports torch."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal

from infra.errors import BadInput
from model.settings.architecture import ModelSettings
from model.settings.layout import ParallelSettings

Fp8 = Literal["none", "hybrid", "e4m3"]
_MULTIPLE = 16  # of rows and columns of matrices that are multiplied in fp8, by cuBLAS


def engine_installed() -> bool:
    """Whether this machine has Transformer Engine."""
    return find_spec("transformer_engine") is not None


def engine_suits(model: ModelSettings, dtype: str) -> bool:
    """Whether Transformer Engine's layers can be a model's: those of gpt and bert without a mixture, in bfloat16."""
    return model.architecture in ("gpt", "bert") and model.mixture is None and dtype == "bfloat16"


def check_fp8(
    fp8: Fp8,
    engine: Literal["auto", "never"],
    model: ModelSettings,
    parallel: ParallelSettings,
    *,
    dtype: str,
    micro_batch_size: int,
    installed: bool,
) -> None:
    """Refuse with BadInput a training in fp8 that cannot work."""
    if fp8 == "none":
        return
    if not engine_suits(model, dtype):
        raise BadInput(
            f"fp8 = {fp8} with model.architecture = {model.architecture}, "
            f"{'a' if model.mixture else 'no'} mixture and dtype = {dtype}",
            "fp8 is for the layers of gpt and bert without a mixture, which compute in bfloat16 otherwise",
            "Set fp8 to none, or dtype to bfloat16 where that is all",
        )
    if engine == "never" or not installed:
        raise BadInput(
            f"fp8 = {fp8} {'with transformer_engine = never' if installed else 'without Transformer Engine'}",
            "products in fp8 are Transformer Engine's",
            "Set transformer_engine to auto and install transformer-engine[pytorch] on GPUs of compute capability "
            "8.9 or higher, or set fp8 to none",
        )
    for name, size in _sizes(model, parallel, micro_batch_size):
        if size % _MULTIPLE:
            raise BadInput(
                f"{name} = {size} with fp8 = {fp8}",
                f"matrices that are multiplied in fp8 have multiples of {_MULTIPLE} rows and columns",
                f"Make it a multiple of {_MULTIPLE}, or set fp8 to none",
            )


def _sizes(model: ModelSettings, parallel: ParallelSettings, micro_batch_size: int) -> Iterator[tuple[str, int]]:
    """Of the matrices that one process multiplies, with how they are made of settings."""
    heads, groups, width, tensor = (
        model.num_attention_heads,
        model.num_query_groups,
        model.kv_channels,
        parallel.tensor,
    )
    yield "hidden_size", model.hidden_size
    yield "ffn_hidden_size / tensor", model.ffn_hidden_size // tensor
    yield "num_attention_heads x kv_channels / tensor", heads * width // tensor
    yield "(num_attention_heads + 2 num_query_groups) x kv_channels / tensor", (heads + 2 * groups) * width // tensor
    yield "micro_batch_size x sequence_length / context", micro_batch_size * model.sequence_length // parallel.context
