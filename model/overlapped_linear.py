"""Linear layers that exchange activations while they multiply, for tensor parallelism with sequence parallelism.

Megatron-Core gathers positions before a column-parallel product and adds partial sums up after a row-parallel one, and
the GPUs wait meanwhile. Here the product is cut at the ranks' borders: while one part is multiplied, the next travels
through memory that the ranks of a machine share (PyTorch's symmetric memory, without NVLink multicast). The gathered
input is kept for the weights' gradient, which saves gathering it again.
"""

from functools import partial
from importlib import import_module
from typing import Any

import torch

from model.megatron_gpu import add_weight_gradient


def overlap(model: Any) -> None:
    """Let the linear layers of a chunk work so where they share positions; others stay as they are."""
    linear: Any = import_module("megatron.core.tensor_parallel.layers")
    for module in model.modules():
        column, row = (isinstance(module, kind) for kind in (linear.ColumnParallelLinear, linear.RowParallelLinear))
        if not (column or row) or not module.sequence_parallel or module.explicit_expert_comm:
            continue
        if (column and module.gather_output) or (module.bias is not None and not module.skip_bias_add):
            continue
        group = module.tp_group.group_name
        forward = _column_forward if column else _row_forward
        module.forward = torch.compiler.disable(partial(forward, _Layer(module, group)))


class _Layer:
    """What a forward function needs of a module; not the module itself, which would then hold itself."""

    def __init__(self, module: Any, group: str) -> None:
        self.group = group
        self.weight: torch.nn.Parameter | None = module.weight
        self.bias: torch.nn.Parameter | None = module.bias if module.skip_bias_add else None


def _column_forward(
    layer: _Layer, inputs: torch.Tensor, weight: torch.Tensor | None = None, runtime_gather_output: bool | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    assert not runtime_gather_output, "generation uses layers that do not share positions"
    return _GatherAndMultiply.apply(inputs, layer.weight if weight is None else weight, layer.group), layer.bias


def _row_forward(layer: _Layer, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    return _MultiplyAndScatter.apply(inputs, layer.weight, layer.group), layer.bias


class _GatherAndMultiply(torch.autograd.Function):
    """Own positions [own, batch, in] of all ranks times the own rows of weights [out, in]: [positions, batch, out]."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, group: str) -> torch.Tensor:
        gathered, (output,) = torch.ops.symm_mem.fused_all_gather_matmul(inputs.contiguous(), [weight.t()], 0, group)
        ctx.save_for_backward(gathered, weight)
        ctx.group = group
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        gathered, weight = ctx.saved_tensors
        given = gradients[0].contiguous()
        gradient = torch.ops.symm_mem.fused_matmul_reduce_scatter(given, weight, "sum", 0, ctx.group)
        return gradient, _weight_gradient(weight, gathered, given), None


class _MultiplyAndScatter(torch.autograd.Function):
    """All positions [positions, batch, own in] times the own columns of weights [out, own in], summed over the ranks.

    The result has the own positions [own, batch, out].
    """

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, group: str) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.group = group
        return torch.ops.symm_mem.fused_matmul_reduce_scatter(inputs.contiguous(), weight.t(), "sum", 0, group)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        inputs, weight = ctx.saved_tensors
        given, (gradient,) = torch.ops.symm_mem.fused_all_gather_matmul(
            gradients[0].contiguous(), [weight], 0, ctx.group
        )
        return gradient, _weight_gradient(weight, inputs, given), None


def _weight_gradient(weight: Any, inputs: torch.Tensor, output_gradients: torch.Tensor) -> torch.Tensor:
    """The gradient, or, where it was added to the float32 sum, something in its shape, as Megatron-Core does it."""
    inputs, output_gradients = inputs.flatten(0, -2), output_gradients.flatten(0, -2)
    if not hasattr(weight, "main_grad"):
        return output_gradients.t() @ inputs
    add_weight_gradient(inputs, output_gradients, weight.main_grad)
    weight.grad_added_to_main_grad = True
    like = torch.zeros if getattr(weight, "zero_out_wgrad", False) else torch.empty
    return like(weight.shape, dtype=inputs.dtype, device=inputs.device)
