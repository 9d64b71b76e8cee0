"""From our words to Megatron-Core's: the model, its initial weights, and its data-parallel wrapper."""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig

from model.attention import CausalAttention, HeadNorm, ResidualNorm
from model.config import ModelSettings, ParallelSettings, TrainingSettings, padded_vocabulary
from model.parallel import Place

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def build_model(training: TrainingSettings, parallel: ParallelSettings, place: Place, vocabulary_size: int) -> Any:
    """Build this rank's part of the model, on its device, with its initial weights.

    The weights depend on `training.seed` alone: every layout starts as the same model. Called with tokens and position
    ids [batch, positions], it returns logits [batch, positions, padded vocabulary / tensor], or with labels the loss of
    each token in nats [batch, positions].
    """
    config = transformer_config(training, parallel, place.device)
    model = GPTModel(
        config,
        _block(config),
        vocab_size=padded_vocabulary(vocabulary_size),
        max_sequence_length=training.model.sequence_length,
        pre_process=place.is_first_stage,
        post_process=place.is_last_stage,
        parallel_output=True,
        share_embeddings_and_output_weights=training.model.tied_embeddings,
        position_embedding_type="rope",
        rotary_base=training.model.rope_base,
    )
    _initialise(model, place, training.model, training.seed)
    model.to(place.device)
    return Float16Module(config, model) if training.dtype == "bfloat16" else model


def transformer_config(training: TrainingSettings, parallel: ParallelSettings, device: torch.device) -> Any:
    """Megatron-Core's configuration; loss and gradients are sums over tokens, divided once for the global batch."""
    model, on_gpu, dtype = training.model, device.type == "cuda", _DTYPES[training.dtype]
    return TransformerConfig(
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
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        sequence_parallel=parallel.sequence_parallel,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=training.dtype == "bfloat16",
        use_cpu_initialization=not on_gpu,
        # These need CUDA; the two fusions are torch.compile.
        bias_activation_fusion=on_gpu,
        bias_dropout_fusion=on_gpu,
        batch_p2p_sync=on_gpu,
        # These need Transformer Engine or Apex.
        masked_softmax_fusion=False,
        gradient_accumulation_fusion=False,
        persist_layer_norm=False,
        apply_rope_fusion=False,
        calculate_per_token_loss=True,
        cuda_graph_scope=[],  # the default is deprecated
    )


def _block(config: Any) -> Any:
    """Megatron-Core's own layers with our attention and norms in them."""
    layer: Any = get_gpt_layer_local_spec(qk_layernorm=config.qk_layernorm, normalization="RMSNorm")
    parts: Any = layer.submodules
    parts.input_layernorm = parts.pre_mlp_layernorm = ResidualNorm
    attention: Any = parts.self_attention.submodules
    attention.core_attention = CausalAttention
    if config.qk_layernorm:
        attention.q_layernorm = attention.k_layernorm = HeadNorm
    final_norm: Any = ResidualNorm
    return TransformerBlockSubmodules([layer] * get_num_layers_to_build(config), layer_norm=final_norm)


def _initialise(model: Any, place: Place, settings: ModelSettings, seed: int) -> None:
    """Draw every matrix from a generator seeded by its name in a checkpoint, and keep this rank's part of it.

    Names and global shapes in a checkpoint are the same in all layouts, so the weights are too. Norms stay at one.
    """
    residual_std = settings.init_std / (2 * settings.num_layers) ** 0.5  # as in GPT-2
    for part in _sharded_tensors(model.sharded_state_dict(metadata={"dp_cp_group": place.data_group()})):
        stacked = part.prepend_axis_num  # leading axes of the global shape that count layers
        if part.data is None or part.data.ndim < 2:
            continue
        std = residual_std if part.key.endswith(("linear_proj.weight", "linear_fc2.weight")) else settings.init_std
        name = f"{seed}/{part.key}/{tuple(part.global_offset[:stacked])}"
        drawing = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
        whole = torch.randn(part.global_shape[stacked:], generator=torch.Generator().manual_seed(drawing)) * std
        starts = part.global_offset[stacked:]
        own = tuple(slice(start, start + size) for start, size in zip(starts, part.data.shape, strict=True))
        with torch.no_grad():
            part.data.copy_(whole[own])


def _sharded_tensors(state: Any) -> Iterator[Any]:
    """Every sharded tensor in a checkpoint's state, those of factories (gate and up weights in one) included."""
    if isinstance(state, dict):
        state = list(state.values())
    if isinstance(state, list):
        for each in state:
            yield from _sharded_tensors(each)
    elif hasattr(state, "build"):
        yield from _sharded_tensors(state.build())
    elif hasattr(state, "global_offset") and torch.is_tensor(getattr(state, "data", None)):
        yield state


def distribute(model: Any, parallel: ParallelSettings) -> Any:
    """Wrap a model so that its gradients, in float32, are summed over the data-parallel ranks."""
    config = model.config
    settings = DistributedDataParallelConfig(
        use_distributed_optimizer=True,
        grad_reduce_in_fp32=True,
        overlap_grad_reduce=parallel.overlap,
        overlap_param_gather=parallel.overlap,
        bucket_size=parallel.bucket_size if parallel.overlap else None,
        check_for_nan_in_grad=False,  # the loop looks at the loss and the norm, and says which step it was
    )
    distributed = DistributedDataParallel(config, settings, model)
    config.finalize_model_grads_func = finalize_model_grads
    if parallel.overlap:
        config.no_sync_func = distributed.no_sync
        config.param_sync_func = distributed.start_param_sync
    return distributed


def count_parameters(model: Any, place: Place) -> int:
    """Weights of the whole model, each counted once."""
    own = sum(
        parameter.numel()
        for parameter in model.parameters()
        if (getattr(parameter, "tensor_model_parallel", False) or place.tensor_rank == 0)
        and not (getattr(parameter, "shared", False) and not place.is_first_stage)
    )
    return int(place.sum_over_all([own if place.data_rank == 0 else 0])[0])
