"""The output layer at the positions that are asked for, and nowhere else.

Of a question and its answers only the answers' tokens are asked for. The output layer and the softmax over the whole
vocabulary, which are as much work as several layers, are done for these alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region

_PIECE = {"cpu": 1 << 18, "cuda": 1 << 28}
"""Logits that are worked on at once, by device, in float32."""


class Selection:
    """Which positions the next batch asks for; one belongs to each chunk that has an output layer."""

    def __init__(self) -> None:
        self.positions: torch.Tensor | None = None
        """int64 [asked]: position * sequences + sequence, where positions are those of this rank."""


@contextmanager
def only_asked(chunks: Sequence[Any], vocabulary_size: int) -> Iterator[Selection]:
    """Have a model's last chunk, called with labels [asked], return `token_scores` of the selected positions.

    Inside, every call must have set the selection before. Afterwards the chunks are as they were.
    """
    selection = Selection()
    last = _inner(chunks[-1])
    layer = getattr(last, "output_layer", None)
    if layer is None:  # another stage has it
        yield selection
        return
    group, shared = last.pg_collection.tp, layer.sequence_parallel

    def select(_: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        hidden, *others = inputs
        if shared:
            hidden = gather_from_sequence_parallel_region(hidden, tensor_parallel_output_grad=False, group=group)
        assert selection.positions is not None
        return (hidden.flatten(0, 1)[selection.positions][:, None], *others), options

    def score(labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return token_scores(logits[:, 0], labels, vocabulary_size, group)

    computing = last.compute_language_model_loss
    hook = layer.register_forward_pre_hook(select, with_kwargs=True)
    layer.sequence_parallel, last.compute_language_model_loss = False, score
    try:
        yield selection
    finally:
        hook.remove()
        layer.sequence_parallel, last.compute_language_model_loss = shared, computing


def token_scores(logits: torch.Tensor, tokens: torch.Tensor, vocabulary_size: int, group: Any) -> torch.Tensor:
    """Log-probability of tokens [asked] in nats, and whether each is the likeliest (1 or 0): float32 [2, asked].

    `logits` [asked, own part of the padded vocabulary] are changed to nothing; rows that only pad the vocabulary count
    as impossible. Of equally likely tokens the first is the likeliest, as for torch.argmax. The ranks of the group
    hold equal parts of the vocabulary in order, and get the same result.
    """
    ranks = dist.get_world_size(group)
    first = (dist.get_rank(group) if ranks > 1 else 0) * logits.shape[-1]
    known = min(max(vocabulary_size - first, 0), logits.shape[-1])
    if known == 0:  # the rank has nothing but padding
        parts = [_nothing(logits)]
    else:
        parts = [_own_scores(logits[rows, :known], tokens[rows] - first) for rows in _pieces(logits)]
    log_sum, at_token, largest, likeliest = (torch.cat(each) for each in zip(*parts, strict=True))
    likeliest = likeliest + first
    if ranks > 1:
        log_sum, at_token, likeliest = _over_ranks(log_sum, at_token, largest, likeliest, group)
    return torch.stack([at_token - log_sum, (likeliest == tokens).float()])


def _own_scores(logits: torch.Tensor, own: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Log-sum-exp, logit at the token (0 where it is not ours), largest logit and its first place, [asked] each."""
    column = own.clamp(0, logits.shape[-1] - 1)[:, None]
    largest, likeliest = logits.max(-1)
    at_column = logits.gather(-1, column)[:, 0].float()
    # The fastest kernel that finds a log-sum-exp is that of log_softmax, which is a logit less it.
    log_sum = at_column - torch.log_softmax(logits, -1, dtype=torch.float32).gather(-1, column)[:, 0]
    inside = (own >= 0) & (own < logits.shape[-1])
    return log_sum, torch.where(inside, at_column, 0), largest.float(), likeliest


def _nothing(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    zero = logits.new_zeros(len(logits), dtype=torch.float32)
    return zero - torch.inf, zero, zero - torch.inf, zero.long()


def _over_ranks(
    log_sum: torch.Tensor, at_token: torch.Tensor, largest: torch.Tensor, likeliest: torch.Tensor, group: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-sum-exp, logit at the token and likeliest token over the whole vocabulary."""
    highest = torch.stack([log_sum, largest])
    dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=group)
    sums = torch.stack([(log_sum - highest[0]).exp(), at_token])
    dist.all_reduce(sums, group=group)
    first = torch.where(largest == highest[1], likeliest, torch.iinfo(torch.int64).max)
    dist.all_reduce(first, op=dist.ReduceOp.MIN, group=group)
    return sums[0].log() + highest[0], sums[1], first


def _pieces(logits: torch.Tensor) -> list[slice]:
    rows = max(1, _PIECE.get(logits.device.type, 1 << 26) // logits.shape[-1])
    return [slice(start, start + rows) for start in range(0, len(logits), rows)]


def _inner(chunk: Any) -> Any:
    """A chunk without the wrappers that convert types and add up gradients."""
    while hasattr(chunk, "module"):
        chunk = chunk.module
    return chunk
