"""Attention and norms for Megatron-Core's own layers, in plain PyTorch, where Transformer Engine is absent.

Megatron-Core's local attention builds the whole matrix of scores, and its local norm refuses sequence parallelism. The
modules here have the interfaces that its layer specifications expect. Attention is causal over the whole sample:
documents that share a sample see one another, as in GPT-3 (arXiv:2005.14165).
"""

from typing import Any

import torch
from megatron.core.transformer.module import MegatronModule
from torch.nn.functional import scaled_dot_product_attention


class CausalAttention(MegatronModule):
    """Core attention by `scaled_dot_product_attention`, which picks a fused kernel and shares keys among queries."""

    def __init__(self, config: Any, *_: Any, softmax_scale: float | None = None, **__: Any) -> None:
        super().__init__(config=config)
        self._scale = softmax_scale

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Attend.

        query [positions, batch, heads, width]; key and value [earlier positions + positions, batch, groups, width];
        the result is [positions, batch, heads * width]. With a cache of earlier positions there is one query position.
        """
        positions, batch = query.shape[:2]
        assert positions in (1, key.shape[0]), "with a cache, one position is generated at a time"
        attended = scaled_dot_product_attention(
            query.permute(1, 2, 0, 3),
            key.permute(1, 2, 0, 3),
            value.permute(1, 2, 0, 3),
            is_causal=positions > 1,
            scale=self._scale,
            enable_gqa=query.shape[2] != key.shape[2],
        )
        return attended.permute(2, 0, 1, 3).reshape(positions, batch, -1)


class ResidualNorm:
    """Builds an RMSNorm for the residual stream.

    Under sequence parallelism a rank sees some of the positions only; the mark makes Megatron-Core add up the gradients
    of these weights over the tensor-parallel ranks.
    """

    def __new__(cls, config: Any, hidden_size: int, eps: float, **_: Any) -> Any:  # noqa: D102
        norm = torch.nn.RMSNorm(hidden_size, eps=eps, dtype=config.params_dtype)
        for parameter in norm.parameters():
            marked: Any = parameter
            marked.sequence_parallel = config.sequence_parallel
        return norm


class HeadNorm:
    """Builds an RMSNorm over the width of a head, for queries and keys.

    Megatron-Core adds up the gradients of these weights over tensor-parallel ranks by their names.
    """

    def __new__(cls, config: Any, hidden_size: int, eps: float, **_: Any) -> Any:  # noqa: D102
        return torch.nn.RMSNorm(hidden_size, eps=eps, dtype=config.params_dtype)
