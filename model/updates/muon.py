"""Muon: updates of matrices whose singular values are all about one (arXiv:2502.16982, section 2).

The sum of gradients of each matrix is made orthogonal by five Newton-Schulz steps and scaled so that an update has the
size of one of AdamW, whose learning rate and decay therefore hold. Queries, keys and values, and gate and up matrix,
which Megatron-Core keeps in one weight each, are matrices of their own. Of a matrix that tensor-parallel ranks share,
each rank gathers the whole and works out the same update, so that the layout does not change the result.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic of https://kellerjordan.github.io/posts/muon: steep at zero, so that five steps are enough."""
_STEPS = 5
_SIZE_OF_ADAMW = 0.2
"""Root mean square of AdamW's updates, as arXiv:2502.16982 finds it."""


class Muon(torch.optim.Optimizer):
    """Updates matrices; each parameter may carry `muon_parts`, see `mark_parts`."""

    def __init__(self, groups: Iterable[dict[str, Any]], *, momentum: float, group: Any, dtype: torch.dtype) -> None:
        """`group` is the tensor-parallel group; Newton-Schulz steps are made in `dtype`."""
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})  # the schedule sets both before each update
        self._momentum, self._group, self._dtype = momentum, group, dtype

    def prepare_state(self) -> None:
        """Give every parameter the state that it has after its first update, as loading a checkpoint needs it."""
        for each in self.param_groups:
            for weight in each["params"]:
                self._state_of(weight)

    def _state_of(self, weight: torch.Tensor) -> torch.Tensor:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        return state["momentum_buffer"]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update the weights that have a gradient."""
        for each in self.param_groups:
            for weight in each["params"]:
                if weight.grad is None:
                    continue
                momentum = self._state_of(weight)
                momentum.lerp_(weight.grad, 1 - self._momentum)
                ahead = torch.lerp(weight.grad, momentum, self._momentum)  # Nesterov's
                weight.mul_(1 - each["lr"] * each["weight_decay"])
                weight.add_(self._update(ahead, weight), alpha=-each["lr"])

    def _update(self, gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        rows = getattr(weight, "muon_parts", (gradient.shape[0],))
        blocks = gradient.unflatten(0, (-1, sum(rows)))  # heads' groups, each with rows of every part
        axis = getattr(weight, "partition_dim", -1) if getattr(weight, "tensor_model_parallel", False) else -1
        parts = [part.flatten(0, 1) for part in blocks.split(rows, 1)]
        updates = [self._orthogonal(part, axis).unflatten(0, (len(blocks), -1)) for part in parts]
        return torch.cat(updates, 1).flatten(0, 1)

    def _orthogonal(self, part: torch.Tensor, axis: int) -> torch.Tensor:
        ranks = 1 if axis < 0 else dist.get_world_size(self._group)
        whole = part
        if ranks > 1:
            gathered = [torch.empty_like(part) for _ in range(ranks)]
            dist.all_gather(gathered, part.contiguous(), group=self._group)
            whole = torch.cat(gathered, axis)
        result = orthogonalised(whole, self._dtype) * (_SIZE_OF_ADAMW * max(whole.shape) ** 0.5)
        if ranks > 1:
            result = result.chunk(ranks, axis)[dist.get_rank(self._group)]
        return result.to(part.dtype)


def orthogonalised(matrix: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """U V^T of a matrix U S V^T, roughly: singular values come to lie between about 0.7 and 1.2."""
    a, b, c = _COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = (wide / (wide.norm() + 1e-7)).to(dtype)
    for _ in range(_STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide is matrix else x.T


def mark_parts(chunks: Sequence[Any]) -> None:
    """Tell weights that hold several matrices how many rows of each follow one another."""
    for chunk in chunks:
        config = chunk.config
        per_group = config.num_attention_heads // (config.num_query_groups or config.num_attention_heads)
        for name, weight in chunk.named_parameters():
            if name.endswith("linear_qkv.weight"):
                weight.muon_parts = (per_group * config.kv_channels, config.kv_channels, config.kv_channels)
            elif name.endswith("linear_fc1.weight") and config.gated_linear_unit:
                weight.muon_parts = (weight.shape[0] // 2, weight.shape[0] // 2)


def is_hidden_matrix(name: str, weight: torch.Tensor) -> bool:
    """Whether a weight is a matrix inside the layers, which Muon is made for."""
    outside = ("embedding", "output_layer", "lm_head", "router")
    return weight.ndim == 2 and not any(part in name for part in outside)
