"""What a layout asks of Megatron-Core: options of its layers, and the wrapper that adds gradients up over replicas."""

from collections.abc import Sequence
from typing import Any

import torch
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)

from model.gpu import speed_up
from model.settings.layout import ParallelSettings


def layout_options(parallel: ParallelSettings, device: torch.device) -> dict[str, Any]:
    """Fields of Megatron-Core's TransformerConfig that say how a model is spread over processes."""
    interleaved = parallel.virtual_pipeline is not None
    return {
        "tensor_model_parallel_size": parallel.tensor,
        "sequence_parallel": parallel.shares_positions,
        "pipeline_model_parallel_size": parallel.pipeline,
        "num_layers_in_last_pipeline_stage": parallel.last_stage_layers,
        "virtual_pipeline_model_parallel_size": parallel.virtual_pipeline,
        "context_parallel_size": parallel.context,
        "expert_model_parallel_size": parallel.expert,
        "expert_tensor_parallel_size": parallel.expert_tensor,
        "batch_p2p_sync": device.type == "cuda",
        # With two stages, what comes from the one neighbour and what comes from the other come from the same rank:
        # batched, Megatron-Core's interleaved schedule confuses them without any error.
        "overlap_p2p_comm": interleaved,
        "batch_p2p_comm": not interleaved,
    }


def distribute(chunks: Sequence[Any], parallel: ParallelSettings, *, whole_optimizer: bool = False) -> list[Any]:
    """Wrap a model's chunks so that their gradients, in float32, are summed over the data-parallel ranks.

    With `whole_optimizer` every rank gets all sums, otherwise its share of them.
    """
    settings = DistributedDataParallelConfig(
        use_distributed_optimizer=not whole_optimizer,
        grad_reduce_in_fp32=True,
        overlap_grad_reduce=parallel.overlap,
        overlap_param_gather=parallel.overlap and not whole_optimizer,
        bucket_size=parallel.bucket_size if parallel.overlap else None,
        check_for_nan_in_grad=False,  # the loop looks at the loss and the norm, and says which step it was
    )
    config = chunks[0].config
    speed_up.rotate_in_one_kernel(chunks[0])
    if parallel.tensor_overlap and torch.cuda.is_available():
        from model.gpu.overlapped_linear import overlap

        for chunk in chunks:
            overlap(chunk)
    distributed = [DistributedDataParallel(config, settings, chunk) for chunk in chunks]
    config.finalize_model_grads_func = finalize_model_grads
    if parallel.overlap:
        several = len(distributed) > 1  # Megatron-Core's schedules want one function for each chunk, or one alone
        config.no_sync_func = [each.no_sync for each in distributed] if several else distributed[0].no_sync
        starts = [each.start_param_sync for each in distributed]
        config.param_sync_func = None if whole_optimizer else starts if several else starts[0]
    return distributed
