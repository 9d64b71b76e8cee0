"""Sums of gradients and gathering of weights over gloo, from each rank to each other.

gloo makes a reduce-scatter of an all-reduce over a copy, and gathers into a copy too: most of the time goes into
copying. Here a rank sends every other one its part of the gradients and adds what it gets in order of ranks, and
weights are received where they belong. With two ranks, a step's exchange takes a third of the CPU time.

Functions have the interface of those of `torch.distributed` that Megatron-Core's gradient buffers call, where the small
tensor is the rank's own part of the large one.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

Collective = Callable[..., Any]


def install(names: dict[str, Any]) -> None:
    """Put the functions below in the place of the collectives in the namespace of Megatron-Core's gradient buffers.

    What is asked for without waiting, or is no sum, is left to the released ones.
    """
    released_scatter: Collective = names["dist_reduce_scatter_func"]
    released_gather: Collective = names["dist_all_gather_func"]

    def scatter(own: torch.Tensor, whole: torch.Tensor, *, op: Any, group: Any, async_op: bool) -> Any:
        if async_op or op != dist.ReduceOp.SUM:
            return released_scatter(own, whole, op=op, group=group, async_op=async_op)
        return reduce_scatter(own, whole, group)

    def gather(whole: torch.Tensor, own: torch.Tensor, *, group: Any, async_op: bool) -> Any:
        if async_op:
            return released_gather(whole, own, group=group, async_op=async_op)
        return all_gather(whole, own, group)

    names["dist_reduce_scatter_func"], names["dist_all_gather_func"] = scatter, gather


def reduce_scatter(own: torch.Tensor, whole: torch.Tensor, group: Any) -> None:
    """Leave in `own`, this rank's part of `whole`, the sum of that part over the ranks; other parts stay."""
    parts = whole.chunk(dist.get_world_size(group))
    received = {other: torch.empty_like(own) for other in _others(group)}
    _exchange({other: parts[other] for other in received}, received, group)
    for part in received.values():
        own.add_(part)


def all_gather(whole: torch.Tensor, own: torch.Tensor, group: Any) -> None:
    """Fill `whole`, of which `own` is this rank's part, with the parts of the others."""
    parts = whole.chunk(dist.get_world_size(group))
    others = _others(group)
    _exchange(dict.fromkeys(others, own), {other: parts[other] for other in others}, group)


def _others(group: Any) -> list[int]:
    return [rank for rank in range(dist.get_world_size(group)) if rank != dist.get_rank(group)]


def _exchange(sent: dict[int, torch.Tensor], received: dict[int, torch.Tensor], group: Any) -> None:
    works = [dist.irecv(part, group=group, group_src=other) for other, part in received.items()]
    works += [dist.isend(part, group=group, group_dst=other) for other, part in sent.items()]
    for work in works:
        if work is not None:
            work.wait()
