"""Context parallelism: the positions of each sequence shared out among ranks.

With c ranks a sequence of 2 c s positions is cut into 2 c chunks of s; rank r holds chunks r and 2 c - 1 - r, so that
under causal attention all have the same work (Megatron-Core's order, by which its rotary positions are cut too).
Queries stay where they are; keys and values are gathered from all ranks; their gradients come back by a reduce-scatter.
"""

from typing import Any

import torch
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region


def halves(sequence: int, group: Any) -> tuple[int, int]:
    """Positions at which this rank's two chunks of a sequence start."""
    size, rank = group.size(), group.rank()
    chunk = sequence // (2 * size)
    return rank * chunk, (2 * size - 1 - rank) * chunk


def own_positions(tensor: torch.Tensor, dimension: int, group: Any) -> torch.Tensor:
    """Cut out this rank's two chunks of a tensor that has the whole sequence along a dimension."""
    if group.size() == 1:
        return tensor
    chunk = tensor.shape[dimension] // (2 * group.size())
    return torch.cat(
        [tensor.narrow(dimension, start, chunk) for start in halves(tensor.shape[dimension], group)], dimension
    )


def gather_keys_and_values(key: torch.Tensor, value: torch.Tensor, group: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Both [own positions, ...] from all ranks, as [sequence, ...] in the order of the text."""
    both = gather_from_sequence_parallel_region(
        torch.stack((key, value), 1), tensor_parallel_output_grad=True, group=group
    )
    size = group.size()
    chunks = both.unflatten(0, (2 * size, -1))
    order = [2 * place if place < size else 2 * (2 * size - 1 - place) + 1 for place in range(2 * size)]
    in_order = chunks[order].flatten(0, 1)
    return in_order[:, 0], in_order[:, 1]
