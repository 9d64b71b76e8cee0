"""Megatron-Core's transformer layers with our attention, norms and router in them, and the frequencies of positions."""

import math
from copy import deepcopy
from typing import Any

import torch
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.T5.t5_spec import decoder_model_with_local_spec
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build

from model.architectures.attention import CoreAttention, HeadNorm, ResidualNorm
from model.architectures.engine import engine_layer
from model.architectures.mixture import SequenceBalancedRouter
from model.settings.architecture import ModelSettings, RopeScaling


def decoder_block(config: Any, virtual_stage: int | None) -> Any:
    """Layers in which a position sees itself and those before."""
    layer = _layer(config)
    _use_fast_form(config, layer)
    return _block(config, layer, virtual_stage)


def encoder_block(config: Any, virtual_stage: int | None = None) -> Any:
    """Layers in which every position sees all others."""
    layer = _layer(config)
    layer.submodules.self_attention.params = {"attn_mask_type": AttnMaskType.padding}
    _use_fast_form(config, layer)
    return _block(config, layer, virtual_stage)


def cross_decoder_block(config: Any) -> Any:
    """Layers of a decoder that sees an encoder's output as well."""
    layer = _layer(config)
    parts: Any = layer.submodules
    with_context: Any = decoder_model_with_local_spec().submodules
    parts.pre_cross_attn_layernorm = ResidualNorm
    parts.cross_attention = deepcopy(with_context.cross_attention)
    parts.cross_attention.submodules.core_attention = CoreAttention
    parts.cross_attn_bda = with_context.cross_attn_bda
    return _block(config, layer, None)


def _layer(config: Any) -> Any:
    layer: Any = engine_layer(config) if config.engine else _own_layer(config)
    parts: Any = layer.submodules
    attention: Any = parts.self_attention.submodules
    attention.core_attention = CoreAttention
    if config.qk_layernorm:
        attention.q_layernorm = attention.k_layernorm = HeadNorm
    if config.num_moe_experts is not None:
        parts.mlp.submodules.router = SequenceBalancedRouter
    return layer


def _own_layer(config: Any) -> Any:
    layer: Any = get_gpt_layer_local_spec(
        num_experts=config.num_moe_experts, qk_layernorm=config.qk_layernorm, normalization=config.normalization
    )
    layer.submodules.input_layernorm = layer.submodules.pre_mlp_layernorm = ResidualNorm
    return layer


def _use_fast_form(config: Any, layer: Any) -> None:
    if config.fast_layers:
        from model.gpu.fast_layer import FastLayer  # compiles, which not every machine can

        layer.module = FastLayer


def is_plain(config: Any) -> bool:
    """Whether a model's layers have no dropout, mixture, biases or parts computed twice: `FastLayer` can have them."""
    recomputed = set(config.recompute_modules or ()) - {"core_attn"}
    return (
        config.num_moe_experts is None
        and config.hidden_dropout == 0
        and not config.add_bias_linear
        and config.normalization == "RMSNorm"
        and not (config.recompute_granularity == "selective" and recomputed)
    )


def _block(config: Any, layer: Any, virtual_stage: int | None) -> Any:
    final_norm: Any = ResidualNorm
    return TransformerBlockSubmodules([layer] * get_num_layers_to_build(config, virtual_stage), layer_norm=final_norm)


def set_rotary_frequencies(chunk: Any, model: ModelSettings) -> None:
    """Give a chunk's rotary positions, if it has any, the frequencies of the settings.

    Megatron-Core's encoders know no base, and none of its models the bounds of the scaling.
    """
    if (rotary := getattr(chunk, "rotary_pos_emb", None)) is not None:
        rotary.inv_freq = rotary_frequencies(model).to(rotary.inv_freq.device)


def rotary_frequencies(model: ModelSettings) -> torch.Tensor:
    """Radians for each position by which each pair of numbers of a head is turned; float32 [head width / 2]."""
    exponents = torch.arange(0, model.kv_channels, 2, dtype=torch.float32) / model.kv_channels
    frequencies = 1.0 / model.rope_base**exponents
    if model.rope_scaling is None:
        return frequencies
    return _scaled(frequencies, model.rope_scaling)


def _scaled(frequencies: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    waves = scaling.original_length * frequencies / (2 * math.pi)  # in the sequences that were trained on first
    kept = ((waves - low) / (high - low)).clamp(0, 1)
    return frequencies * (kept + (1 - kept) / scaling.factor)
