"""Attention and norms for Megatron-Core's own layers, in plain PyTorch, where Transformer Engine is absent.

Megatron-Core's local attention builds the whole matrix of scores and refuses context parallelism, and its local norm
refuses sequence parallelism. The modules here have the interfaces that its layer specifications expect.

What a position may see is said by `attention_mask`:

    None                        all positions (causally: itself and those before)
    int [batch, sequence]       a document's number for each position of the whole sequence, the same on every rank that
                                shares it: positions see their own document only; -1 is padding
    bool [batch, 1, q, k]       Megatron-Core's own form, true where a query must not look
    KeyValueCache               all positions before, which it remembers; causal, without context parallelism

In cross-attention the numbers belong to the keys, and all but padding is seen. A sliding window narrows all of these.

Without numbers or window the work is one call of `scaled_dot_product_attention`, which takes a fused kernel (cuDNN's or
FlashAttention). With them it is FlexAttention on GPUs, which skips what no query of a block sees, and a dense mask on
the CPU.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.utils import is_layer_window_attention
from torch.nn.attention.bias import causal_lower_right
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from model.architectures.context import gather_keys_and_values, halves
from model.architectures.key_value_cache import KeyValueCache
from model.megatron.cpu_kernels import RmsNorm
from model.parallel import context_group, tensor_rank_dropout

Visible = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Whether, in a row of the batch, a query's position sees a key's position; works on tensors that broadcast."""


class CoreAttention(MegatronModule):
    """Attention between the query, key and value projections and the output projection."""

    def __init__(
        self,
        config: Any,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        **_: Any,
    ) -> None:
        super().__init__(config=config)
        self._layer = layer_number
        self._scale = softmax_scale
        self._causal = attn_mask_type in (AttnMaskType.causal, AttnMaskType.padding_causal)
        self._cross = attention_type == "cross"
        self._dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        windowed = is_layer_window_attention(config.window_size, config.window_attn_skip_freq, layer_number)
        self._window: int | None = config.window_size[0] if windowed else None
        self._context = context_group()
        self._context_size = self._context.size()

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | KeyValueCache | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Attend.

        query [positions, batch, heads, width]; key and value [earlier positions + positions, batch, groups, width];
        the result is [positions, batch, heads * width]. Under context parallelism the positions are this rank's two
        chunks of the sequence, see `model.architectures.context`.
        """
        if isinstance(attention_mask, KeyValueCache):
            attended = self._remember(query, key, value, attention_mask)
        elif self._context_size == 1:
            attended = self._attend(query, key, value, attention_mask, key.shape[0] - query.shape[0])
        else:
            key, value = gather_keys_and_values(key, value, self._context)
            parts = []
            for half, start in zip(query.chunk(2), halves(key.shape[0], self._context), strict=True):
                # What comes after the chunk is invisible to it anyway.
                end = start + half.shape[0] if self._causal else key.shape[0]
                parts.append(self._attend(half, key[:end], value[:end], attention_mask, start))
            attended = torch.cat(parts)
        return attended.reshape(*query.shape[:2], -1)

    def _remember(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cache: KeyValueCache
    ) -> torch.Tensor:
        """Attend from the positions that the cache is handed to those that it remembers; shapes as above."""
        if cache.is_empty:
            cache.begin(self._layer, key, value)
            return self._attend(query, key, value, None, 0, dense=True)
        keys, values = cache.add(self._layer, key, value)
        _, rows, heads, width = query.shape
        # One query for each head: those that share a key count as queries of one head, so that no key is copied.
        shared = query.reshape(rows, keys.shape[1], -1, width)
        attended = scaled_dot_product_attention(
            shared, keys, values, attn_mask=cache.visible(self._window), scale=self._scale
        )
        return attended.reshape(1, rows, heads, width)

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        start: int,
        *,
        dense: bool = False,
    ) -> torch.Tensor:
        """Attend from queries at positions start, start + 1, ... to keys at positions 0, 1, ...; shapes as above.

        With `dense` nothing is compiled for the shapes at hand.
        """
        heads_first = [each.permute(1, 2, 0, 3) for each in (query, key, value)]
        shared = query.shape[2] != key.shape[2]
        dropout = self._dropout if self.training else 0.0
        plain = mask is None and self._window is None
        flexible = query.is_cuda and dropout == 0 and (mask is None or mask.ndim == 2)
        if not plain and flexible and not dense:
            shared_masks: Any = self.config
            blocks = shared_masks.block_masks.of(self._visible(mask, start), mask, query, key, start, self._window)
            attended = _fused_flex(*heads_first, block_mask=blocks, scale=self._scale, enable_gqa=shared)
        else:
            bias, causal = self._dense(query, key, mask, start)
            with tensor_rank_dropout(dropout, self.config):
                attended = scaled_dot_product_attention(
                    *heads_first,
                    attn_mask=bias,
                    dropout_p=dropout,
                    is_causal=causal,
                    scale=self._scale,
                    enable_gqa=shared,
                )
        return attended.permute(2, 0, 1, 3)

    def _dense(
        self, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, start: int
    ) -> tuple[torch.Tensor | None, bool]:
        """The mask for `scaled_dot_product_attention`, and whether it is just the causal one."""
        queries, keys = query.shape[0], key.shape[0]
        if mask is not None and mask.ndim == 4:
            return ~mask, False
        if mask is None and self._window is None:
            if not self._causal or queries == 1:
                return None, False
            return (None, True) if queries == keys else (causal_lower_right(queries, keys), False)
        rows = torch.arange(query.shape[1], device=query.device)[:, None, None]
        q = torch.arange(start, start + queries, device=query.device)[None, :, None]
        k = torch.arange(keys, device=query.device)[None, None, :]
        return self._visible(mask, start)(rows, q, k)[:, None], False

    def _visible(self, numbers: torch.Tensor | None, start: int) -> Visible:
        causal, window, cross = self._causal, self._window, self._cross

        def visible(row: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
            seen = k <= q if causal else k >= 0
            if window is not None:
                seen = seen & (q - k <= window)
                seen = seen if causal else seen & (k - q <= window)
            if numbers is not None:
                seen = seen & (numbers[row, k] >= 0 if cross else numbers[row, q] == numbers[row, k])
            return seen

        return visible


class BlockMasks:
    """Block masks of the documents at hand, made once for all layers of a micro-batch; one belongs to each model."""

    def __init__(self) -> None:
        self._numbers: torch.Tensor | None = None
        self._made: dict[tuple[Any, ...], Any] = {}

    def of(
        self,
        visible: Visible,
        numbers: torch.Tensor | None,
        query: torch.Tensor,
        key: torch.Tensor,
        start: int,
        window: int | None,
    ) -> Any:
        """The mask for queries from `start` on; `numbers` is kept, so that its memory cannot become another's."""
        if numbers is not None and (self._numbers is None or numbers.data_ptr() != self._numbers.data_ptr()):
            self._numbers = numbers
            self._made.clear()
        shape = (1 if numbers is None else query.shape[1], query.shape[0], key.shape[0])
        known = (*shape, start, window, numbers is None)
        if known not in self._made:
            batch, queries, keys = shape

            def shifted(row: torch.Tensor, _: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
                return visible(row, q + start, k)

            self._made[known] = _block_mask(shifted, batch, queries, keys, query.device)
        return self._made[known]


def _make_block_mask(visible: Any, batch: int, queries: int, keys: int, device: torch.device) -> Any:
    # Compiled, because the plain function writes a dense mask first: 16 M entries for 4,096 positions and each row.
    return create_block_mask(visible, batch, None, queries, keys, device=str(device), _compile=True)


@cache
def _compiled_flex() -> Any:
    return torch.compile(flex_attention, dynamic=False)


def _flex(*tensors: torch.Tensor, **options: Any) -> torch.Tensor:
    return _compiled_flex()(*tensors, **options)


# They compile for themselves; in a layer that is compiled as a whole they stay what they are.
_block_mask: Any = torch.compiler.disable(_make_block_mask)
_fused_flex: Any = torch.compiler.disable(_flex)


class ResidualNorm:
    """Builds an RMSNorm or LayerNorm for the residual stream.

    Under sequence parallelism a rank sees some of the positions only; the mark makes Megatron-Core add up the gradients
    of these weights over the tensor-parallel ranks.
    """

    def __new__(cls, config: Any, hidden_size: int, eps: float, **_: Any) -> Any:  # noqa: D102
        norm = _norm(config)(hidden_size, eps=eps, dtype=config.params_dtype)
        for parameter in norm.parameters():
            marked: Any = parameter
            marked.sequence_parallel = config.sequence_parallel
        return norm


class HeadNorm:
    """Builds a norm over the width of a head, for queries and keys.

    Megatron-Core adds up the gradients of these weights over tensor-parallel ranks by their names.
    """

    def __new__(cls, config: Any, hidden_size: int, eps: float, **_: Any) -> Any:  # noqa: D102
        return _norm(config)(hidden_size, eps=eps, dtype=config.params_dtype)


def _norm(config: Any) -> Any:
    if config.normalization != "RMSNorm":
        return torch.nn.LayerNorm
    return RmsNorm if config.use_cpu_initialization else torch.nn.RMSNorm
