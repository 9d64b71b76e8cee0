"""From our words to Megatron-Core's: the configuration of its layers, and the decoder-only model."""

from typing import Any

import torch
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig

from model.architecture import padded_vocabulary
from model.attention import BlockMasks, CoreAttention, HeadNorm, ResidualNorm
from model.config import TrainingSettings
from model.distribution import layout_options
from model.layout import ParallelSettings
from model.parallel import Place

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def build_gpt(config: Any, training: TrainingSettings, place: Place, vocabulary_size: int, chunk: int = 0) -> Any:
    """Build one chunk of a decoder; see `model.build.build_model`."""
    return GPTModel(
        config,
        _block(config, place.virtual_stage(chunk)),
        vocab_size=padded_vocabulary(vocabulary_size),
        max_sequence_length=training.model.sequence_length,
        pre_process=place.embeds(chunk),
        post_process=place.computes_loss(chunk),
        vp_stage=place.virtual_stage(chunk),
        parallel_output=True,
        share_embeddings_and_output_weights=training.model.tied_embeddings,
        position_embedding_type="rope",
        rotary_base=training.model.rope_base,
    )


def transformer_config(training: TrainingSettings, parallel: ParallelSettings, device: torch.device) -> Any:
    """Megatron-Core's configuration; loss and gradients are sums over tokens, divided once for the global batch."""
    model, on_gpu, dtype = training.model, device.type == "cuda", _DTYPES[training.dtype]
    config: Any = TransformerConfig(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_query_groups=model.num_query_groups,
        ffn_hidden_size=model.ffn_hidden_size,
        normalization="RMSNorm",
        layernorm_epsilon=model.norm_epsilon,
        qk_layernorm=model.qk_norm,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        init_method_std=model.init_std,
        **layout_options(parallel, device),
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=training.dtype == "bfloat16",
        use_cpu_initialization=not on_gpu,
        # These need CUDA; the two fusions are torch.compile.
        gradient_accumulation_fusion=on_gpu,  # see model.megatron_gpu
        bias_activation_fusion=on_gpu,
        bias_dropout_fusion=on_gpu,
        # These need Transformer Engine or Apex.
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        apply_rope_fusion=False,
        calculate_per_token_loss=True,
        cuda_graph_scope=[],  # the default is deprecated
    )
    config.block_masks = BlockMasks()  # shared by all layers
    return config


def _block(config: Any, virtual_stage: int | None) -> Any:
    """Megatron-Core's own layers with our attention and norms in them."""
    layer: Any = get_gpt_layer_local_spec(qk_layernorm=config.qk_layernorm, normalization="RMSNorm")
    parts: Any = layer.submodules
    parts.input_layernorm = parts.pre_mlp_layernorm = ResidualNorm
    attention: Any = parts.self_attention.submodules
    attention.core_attention = CoreAttention
    if config.qk_layernorm:
        attention.q_layernorm = attention.k_layernorm = HeadNorm
    final_norm: Any = ResidualNorm
    return TransformerBlockSubmodules([layer] * get_num_layers_to_build(config, virtual_stage), layer_norm=final_norm)
