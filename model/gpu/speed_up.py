"""What makes Megatron-Core's layers fast on CUDA without Transformer Engine and Apex.

    weight gradients    its linear layers can add them up in float32 inside the matrix product, which saves one pass
                        over the gradient and two over the sum for every micro-batch; the kernel comes with Apex, and
                        here cuBLAS is asked for the same through `torch.addmm`
    compiled layers     torch.compile makes one kernel of what stands between matrix products: norms, rotary positions,
                        activation, residual sums. The linear layers stay as they are: they own collectives and the
                        summing of gradients, which a compiler should not see

    own kernels         see model.gpu.kernels: what the compiler makes of the activation's gradient, rotary positions
                        and cross entropy takes two to four times as long

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


def speed_up(model: Any) -> None:
    """Compile every transformer layer of a chunk and put our kernels in; what is no transformer is left alone."""
    _use_activation_kernel(model)
    linear: Any = import_module("megatron.core.tensor_parallel.layers")
    for kind in (linear.ColumnParallelLinear, linear.RowParallelLinear):
        if not hasattr(kind.forward, "_torchdynamo_disable"):
            kind.forward = torch.compiler.disable(kind.forward)
    stacks = [getattr(getattr(model, name, None), "layers", ()) for name in ("encoder", "decoder")]
    layers = [layer for stack in stacks for layer in stack]
    # Layers share code, and each counts against the limit if a number of its own (its place) is looked at.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 16 + 4 * len(layers))
    for stack in stacks:
        if stack:
            stack[-1].is_last = True
    for layer in layers:
        fast = hasattr(type(layer), "is_last")  # model.fast_layer compiles for itself
        if fast and model.config.qk_layernorm:  # see rotate_in_one_kernel
            layer.self_attention.compile(dynamic=False)
        elif not fast and model.config.num_moe_experts is None:  # an expert never has as many tokens as before
            layer.compile(dynamic=False)


def _use_activation_kernel(model: Any) -> None:
    from model.gpu.kernels import SwiGLU

    config = model.config
    if not (config.gated_linear_unit and config.activation_func is torch.nn.functional.silu):
        return
    feed_forward: Any = import_module("megatron.core.transformer.mlp")
    config.bias_activation_fusion, config.use_te_activation_func = False, True
    for module in model.modules():
        if isinstance(module, feed_forward.MLP):
            module.activation_func = torch.compiler.disable(SwiGLU.apply)


def rotate_in_one_kernel(model: Any) -> None:
    """Have queries and keys cut out and turned by our kernel; only for training, because it knows no cache of keys."""
    attention: Any = import_module("megatron.core.transformer.attention")
    rotary = any(name.endswith("rotary_pos_emb") for name, _ in model.named_modules())
    if not torch.cuda.is_available() or model.config.qk_layernorm or model.config.engine or not rotary:
        return
    if not getattr(attention, "HAVE_FUSED_QKV_ROPE", False):
        attention.apply_fused_qkv_rotary_pos_emb = torch.compiler.disable(_RotaryTables())
        attention.HAVE_FUSED_QKV_ROPE = True
    model.config.fused_single_qkv_rope = True


class _RotaryTables:
    """Cosines and sines are made once for each set of frequencies, which Megatron-Core keeps as long as the model."""

    def __init__(self) -> None:
        self._frequencies: torch.Tensor | None = None
        self._tables: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, mixed: torch.Tensor, frequencies: torch.Tensor, _: Any, widths: list[int]) -> Any:
        """Megatron-Core's interface: frequencies [positions, 1, 1, width], whose halves are equal."""
        from model.gpu.kernels import Rotate

        if self._frequencies is not frequencies or self._tables is None:
            half = frequencies.flatten(1)[:, : frequencies.shape[-1] // 2].float()
            self._frequencies, self._tables = frequencies, (half.cos().contiguous(), half.sin().contiguous())
        return Rotate.apply(mixed, *self._tables, widths[1])
