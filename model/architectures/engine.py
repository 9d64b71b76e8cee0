"""Layers of NVIDIA's Transformer Engine, taken on GPUs where it is installed; nothing needs it.

Its linear layers, each with the norm before it, take the place of Megatron-Core's own; attention stays ours, which
knows documents, windows and context parallelism, and so do embedding, output layer and loss. `model.gpu` then leaves
the layers alone. Weights have the same names and values in a checkpoint either way: Megatron-Core saves its own layers'
norms under the names that they have inside of Transformer Engine's linear layers, so that a run begun with the one goes
on with the other. Both save an object besides (`_extra_state`), which Megatron-Core's layers pass over and which is of
use to fp8 with delayed scaling only: here each tensor is scaled by its own largest value ("tensorwise").
"""

from collections.abc import Sequence
from typing import Any

import torch
from megatron.core.models.gpt import gpt_layer_specs

from infra.errors import BadInput
from model.config import TrainingSettings
from model.settings.precision import engine_suits

_LOWEST_CAPABILITY = (8, 9)


def uses_engine(training: TrainingSettings, device: torch.device, *, installed: bool) -> bool:
    """Whether a model on this device has Transformer Engine's layers."""
    wanted = training.transformer_engine == "auto" and engine_suits(training.model, training.dtype)
    return wanted and device.type == "cuda" and installed


def engine_imported() -> bool:
    """Whether Megatron-Core could import Transformer Engine."""
    return bool(gpt_layer_specs.HAVE_TE)


def engine_layer(config: Any) -> Any:
    """Megatron-Core's specification of a layer of Transformer Engine's modules."""
    return gpt_layer_specs.get_gpt_layer_with_transformer_engine_spec(qk_layernorm=config.qk_layernorm)


def use_fp8(chunks: Sequence[Any], training: TrainingSettings, device: torch.device) -> None:
    """Have a model that is trained multiply in fp8 if the settings say so; BadInput where this process cannot.

    An evaluation computes in bfloat16: its texts have lengths that fp8 cannot take.
    """
    if training.fp8 == "none":
        return
    capable = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _LOWEST_CAPABILITY
    if not (capable and chunks[0].config.engine):
        raise BadInput(
            f"fp8 = {training.fp8} on {torch.cuda.get_device_name(device) if device.type == 'cuda' else 'a CPU'}"
            f"{'' if engine_imported() else ' without Transformer Engine'}",
            "products in fp8 need Transformer Engine and a GPU of compute capability 8.9 or higher",
            "Install transformer-engine[pytorch] there, or set fp8 to none",
        )
    for chunk in chunks:
        chunk.config.fp8, chunk.config.fp8_recipe = training.fp8, "tensorwise"
