"""From our words to Megatron-Core's: the configuration of its layers, and the decoder-only model."""

from typing import Any

import torch
from megatron.core.activations import squared_relu
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.transformer.transformer_config import TransformerConfig

from model.architectures.attention import BlockMasks
from model.architectures.engine import engine_imported, uses_engine
from model.architectures.layers import decoder_block, is_plain
from model.architectures.mixture import mixture_options
from model.config import TrainingSettings
from model.parallel import Place
from model.settings.architecture import ModelSettings, embedding_rows
from model.settings.layout import ParallelSettings
from model.updates.distribution import layout_options

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_ACTIVATIONS = {
    "swiglu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "squared-relu": squared_relu,
}


def build_gpt(config: Any, training: TrainingSettings, place: Place, vocabulary_size: int, chunk: int = 0) -> Any:
    """Build one chunk of a decoder; see `model.architectures.build.build_model`."""
    model = training.model
    return GPTModel(
        config,
        decoder_block(config, place.virtual_stage(chunk)),
        vocab_size=embedding_rows(model, vocabulary_size),
        max_sequence_length=model.sequence_length,
        pre_process=place.embeds(chunk),
        post_process=place.computes_loss(chunk),
        vp_stage=place.virtual_stage(chunk),
        parallel_output=True,
        share_embeddings_and_output_weights=model.tied_embeddings,
        position_embedding_type="learned_absolute" if model.positions == "learned" else model.positions,
    )


def transformer_config(training: TrainingSettings, parallel: ParallelSettings, device: torch.device) -> Any:
    """Megatron-Core's configuration; loss and gradients are sums over tokens, divided once for the global batch."""
    model, on_gpu, dtype = training.model, device.type == "cuda", _DTYPES[training.dtype]
    config: Any = TransformerConfig(
        **_shape(model),
        **mixture_options(model.mixture, model.ffn_hidden_size),
        **layout_options(parallel, device),
        **_recomputed(training),
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=training.dtype == "bfloat16",
        use_cpu_initialization=not on_gpu,
        # These need CUDA; the two fusions are torch.compile.
        gradient_accumulation_fusion=on_gpu,  # see model.gpu.speed_up
        bias_activation_fusion=on_gpu and model.activation == "swiglu",  # its gelu is another function
        bias_dropout_fusion=on_gpu,
        # These need Transformer Engine or Apex.
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        apply_rope_fusion=False,
        calculate_per_token_loss=True,
        cuda_graph_scope=[],  # the default is deprecated
    )
    config.block_masks = BlockMasks()  # shared by all layers
    config.engine = uses_engine(training, device, installed=engine_imported())
    config.fast_layers = on_gpu and training.compiled and not config.engine and is_plain(config)
    return config


def _recomputed(training: TrainingSettings) -> dict[str, Any]:
    match training.recompute:
        case "none":
            return {}
        case "selective":
            # The attention keeps little for the way back; what the feed-forward layer keeps is most of the rest.
            return {
                "recompute_granularity": "selective",
                "recompute_modules": ["moe" if training.model.mixture else "mlp"],
            }
        case "full":
            return {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}


def _shape(model: ModelSettings) -> dict[str, Any]:
    recurrent = model.architecture == "lstm"  # which has no heads, but their number must divide the width
    return {
        "num_layers": model.num_layers,
        "hidden_size": model.hidden_size,
        "num_attention_heads": 1 if recurrent else model.num_attention_heads,
        "num_query_groups": 1 if recurrent else model.num_query_groups,
        "kv_channels": model.hidden_size if recurrent else model.kv_channels,
        "ffn_hidden_size": model.ffn_hidden_size,
        "normalization": model.normalization,
        "layernorm_epsilon": model.norm_epsilon,
        "qk_layernorm": model.qk_norm and not recurrent,
        "gated_linear_unit": model.activation == "swiglu",
        "activation_func": _ACTIVATIONS[model.activation],
        "add_bias_linear": model.biases,
        "hidden_dropout": model.hidden_dropout,
        "attention_dropout": model.attention_dropout,
        "init_method_std": model.init_std,
        "window_size": None if model.sliding_window is None else (model.sliding_window - 1, 0),
        "window_attn_skip_freq": model.full_attention_every,
    }
