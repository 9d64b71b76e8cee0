"""Core attention against softmax written out in float64."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from model.architectures.attention import CoreAttention
from model.architectures.context import own_positions
from model.parallel import Place

POSITIONS, ROWS, HEADS, GROUPS, WIDTH = 12, 2, 4, 2, 8
NUMBERS = torch.tensor([[0] * 5 + [1] * 4 + [2] * 3, [3] * 9 + [-1] * 3])


def attention(kind: str = "causal", attention_type: str = "self", window: int | None = None) -> CoreAttention:
    from megatron.core.transformer.enums import AttnMaskType

    config: Any = SimpleNamespace(
        attention_dropout=0.0,
        window_size=None if window is None else (window, 0),
        window_attn_skip_freq=None,
        sequence_parallel=False,
    )
    return CoreAttention(config, 1, AttnMaskType[kind], attention_type)


def inputs(queries: int = POSITIONS) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = [(POSITIONS, ROWS, HEADS, WIDTH), *[(POSITIONS, ROWS, GROUPS, WIDTH)] * 2]
    query, key, value = (torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes)
    return query[-queries:], key, value


def written_out(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Softmax attention; visible broadcasts to [batch, heads, queries, keys]."""
    keys, values = (each.repeat_interleave(HEADS // GROUPS, 2) for each in (key, value))
    scores = torch.einsum("ibhd,jbhd->bhij", query, keys) / WIDTH**0.5
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
    return torch.einsum("bhij,jbhd->ibhd", weights, values).reshape(query.shape[0], ROWS, -1)


def triangle(window: int = POSITIONS) -> torch.Tensor:
    back = torch.arange(POSITIONS)[:, None] - torch.arange(POSITIONS)
    return (back >= 0) & (back <= window)


SAME_DOCUMENT = (NUMBERS[:, :, None] == NUMBERS[:, None, :])[:, None]


@pytest.mark.parametrize("queries", [POSITIONS, 3, 1])
def test_causal_attention_sees_earlier_positions(place: Place, queries: int):
    query, key, value = inputs(queries)
    expected = written_out(query, key, value, triangle()[-queries:])
    assert torch.allclose(attention()(query, key, value), expected)


@pytest.mark.parametrize("window", [None, 2])
def test_documents_see_themselves_only(place: Place, window: int | None):
    query, key, value = inputs()
    expected = written_out(query, key, value, SAME_DOCUMENT & triangle(POSITIONS if window is None else window))
    assert torch.allclose(attention(window=window)(query, key, value, NUMBERS), expected)


def test_a_window_reaches_back_so_far(place: Place):
    query, key, value = inputs(4)
    assert torch.allclose(attention(window=3)(query, key, value), written_out(query, key, value, triangle(3)[-4:]))


def test_an_encoder_sees_both_ways(place: Place):
    query, key, value = inputs()
    everything = torch.ones(POSITIONS, POSITIONS, dtype=torch.bool)
    assert torch.allclose(attention("no_mask")(query, key, value), written_out(query, key, value, everything))
    assert torch.allclose(
        attention("padding")(query, key, value, NUMBERS), written_out(query, key, value, SAME_DOCUMENT)
    )


def test_cross_attention_sees_all_keys_but_padding(place: Place):
    query, key, value = inputs(5)
    expected = written_out(query, key, value, (NUMBERS >= 0)[:, None, None, :])
    assert torch.allclose(attention("padding", "cross")(query, key, value, NUMBERS), expected)


def test_a_mask_in_the_form_of_megatron_says_what_is_hidden(place: Place):
    query, key, value = inputs()
    hidden = ~triangle().expand(ROWS, 1, POSITIONS, POSITIONS)
    assert torch.allclose(attention("padding")(query, key, value, hidden), written_out(query, key, value, triangle()))


def test_a_context_rank_holds_an_early_and_a_late_chunk():
    group = SimpleNamespace(size=lambda: 2, rank=lambda: 1)
    assert own_positions(torch.arange(8), 0, group).tolist() == [2, 3, 4, 5]
    group = SimpleNamespace(size=lambda: 2, rank=lambda: 0)
    assert own_positions(torch.arange(8), 0, group).tolist() == [0, 1, 6, 7]
