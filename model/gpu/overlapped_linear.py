"""Linear layers that exchange activations while they multiply, for tensor parallelism with sequence parallelism.

Megatron-Core gathers positions before a column-parallel product and adds partial sums up after a row-parallel one, and
the GPUs wait meanwhile. Here the product is cut at the ranks' borders, and while one part is multiplied the next
travels (`model.gpu.exchange`). The gathered input is kept for the weights' gradient, which saves gathering it again.
"""

from functools import partial
from importlib import import_module
from typing import Any

import torch

from model.gpu.exchange import Exchange
from model.gpu.speed_up import add_weight_gradient


def overlap(model: Any) -> None:
    """Let the linear layers of a chunk work so where they share positions; others stay as they are."""
    linear: Any = import_module("megatron.core.tensor_parallel.layers")
    exchange: Exchange | None = None
    for module in model.modules():
        column, row = (isinstance(module, kind) for kind in (linear.ColumnParallelLinear, linear.RowParallelLinear))
        if not (column or row) or not module.sequence_parallel or module.explicit_expert_comm:
            continue
        if (column and module.gather_output) or (module.bias is not None and not module.skip_bias_add):
            continue
        exchange = exchange or Exchange(module.tp_group)
        forward = _column_forward if column else _row_forward
        module.forward = torch.compiler.disable(partial(forward, _Layer(module, exchange)))


class _Layer:
    """What a forward function needs of a module; not the module itself, which would then hold itself."""

    def __init__(self, module: Any, exchange: Exchange) -> None:
        self.exchange = exchange
        self.weight: torch.nn.Parameter | None = module.weight
        self.bias: torch.nn.Parameter | None = module.bias if module.skip_bias_add else None


def _column_forward(
    layer: _Layer, inputs: torch.Tensor, weight: torch.Tensor | None = None, runtime_gather_output: bool | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    assert not runtime_gather_output, "generation uses layers that do not share positions"
    return _GatherAndMultiply.apply(inputs, layer.weight if weight is None else weight, layer.exchange), layer.bias


def _row_forward(layer: _Layer, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    return _MultiplyAndScatter.apply(inputs, layer.weight, layer.exchange), layer.bias


class _GatherAndMultiply(torch.autograd.Function):
    """Own positions [own, batch, in] of all ranks times the own rows of weights [out, in]: [positions, batch, out]."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, exchange: Exchange) -> torch.Tensor:
        gathered, output = exchange.gather_and_multiply(inputs.contiguous(), weight.t())
        ctx.save_for_backward(gathered, weight)
        ctx.exchange = exchange
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        gathered, weight = ctx.saved_tensors
        given = gradients[0].contiguous()
        gradient = ctx.exchange.multiply_and_scatter(given, weight)
        return gradient, _weight_gradient(weight, gathered, given), None


class _MultiplyAndScatter(torch.autograd.Function):
    """All positions [positions, batch, own in] times the own columns of weights [out, own in], summed over the ranks.

    The result has the own positions [own, batch, out].
    """

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, exchange: Exchange) -> torch.Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.exchange = exchange
        return exchange.multiply_and_scatter(inputs.contiguous(), weight.t())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        inputs, weight = ctx.saved_tensors
        given, gradient = ctx.exchange.gather_and_multiply(gradients[0].contiguous(), weight)
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
