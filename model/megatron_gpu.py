"""What makes Megatron-Core's layers fast on CUDA without Transformer Engine and Apex.

    weight gradients    its linear layers can add them up in float32 inside the matrix product, which saves one pass
                        over the gradient and two over the sum for every micro-batch; the kernel comes with Apex, and
                        here cuBLAS is asked for the same through `torch.addmm`
    compiled layers     torch.compile makes one kernel of what stands between matrix products: norms, rotary positions,
                        activation, residual sums. The linear layers stay as they are: they own collectives and the
                        summing of gradients, which a compiler should not see

On a machine without CUDA nothing here does anything.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

_APEX_KERNELS = "fused_weight_gradient_mlp_cuda"


def install() -> None:
    """Offer the kernel under Apex's name, unless Apex is there; before the first import of `megatron.core`."""
    if not torch.cuda.is_available() or _APEX_KERNELS in sys.modules:
        return
    try:
        import_module(_APEX_KERNELS)
    except ImportError:
        kernels: Any = ModuleType(_APEX_KERNELS, "Weight gradients summed in float32 by cuBLAS")
        kernels.wgrad_gemm_accum_fp32 = add_weight_gradient
        sys.modules[_APEX_KERNELS] = kernels


def add_weight_gradient(inputs: torch.Tensor, output_gradients: torch.Tensor, total: torch.Tensor) -> None:
    """Add output_gradients^T inputs ([tokens, outputs] and [tokens, inputs]) to total, float32 [outputs, inputs]."""
    if inputs.dtype == total.dtype:
        total.addmm_(output_gradients.t(), inputs)
    else:
        torch.ops.aten.addmm.dtype_out(total, output_gradients.t(), inputs, torch.float32, out=total)


def compile_layers(model: Any) -> None:
    """Compile every transformer layer of a chunk; a model without such layers is left alone."""
    linear: Any = import_module("megatron.core.tensor_parallel.layers")
    for kind in (linear.ColumnParallelLinear, linear.RowParallelLinear):
        if not hasattr(kind.forward, "_torchdynamo_disable"):
            kind.forward = torch.compiler.disable(kind.forward)
    decoder = getattr(model, "decoder", None)
    layers = getattr(decoder, "layers", ())
    # Layers share code, and each counts against the limit if a number of its own (its place) is looked at.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 16 + 4 * len(layers))
    for layer in layers:
        layer.compile(dynamic=False)
