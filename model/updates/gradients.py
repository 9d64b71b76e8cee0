"""Gradients of a global batch, and what is known of them before they are used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from model.data.batches import Batch
from model.parallel import Place
from model.timing import Clock
from model.updates.forward import SUMS, sum_micro_batches


@dataclass(frozen=True)
class Gradients:
    """Numbers of which every rank has the same bits; losses in nats for each token."""

    loss: float
    """Cross entropy."""
    objective: float
    """What was made small: the cross entropy and what `training.loss` adds to it."""
    z_loss: float
    """Part of the objective."""
    norm: float
    """Of the whole gradient, before clipping."""
    stopping: bool
    """Whether any rank was asked to stop."""


def compute_gradients(
    chunks: Sequence[Any], optimizer: Any, batches: Sequence[Batch], place: Place, clock: Clock, *, stop: bool = False
) -> Gradients:
    """Leave the gradients of a global batch, of which these batches are this rank's, where the optimizer takes them.

    Waits for the device once: the losses come to the host in the stream before the norm, for which it waits.
    """
    for chunk in chunks:
        chunk.zero_grad_buffer()
    optimizer.zero_grad()
    sums = sum_micro_batches(chunks, batches, place, backward=True)
    # One collective for all, because the ranks must also agree on the step after which they stop.
    sums = torch.cat([sums, sums.new_full((1,), float(stop))])
    with clock.measure("communication"):
        place.add_over_all(sums)
    on_host = torch.empty(SUMS + 1, dtype=torch.float64, pin_memory=sums.is_cuda)
    on_host.copy_(sums, non_blocking=True)
    optimizer.prepare_grads()
    with clock.measure("optimizer"):
        norm = float(optimizer.get_grad_norm())
    loss, objective, z_loss, tokens, stopping = on_host.tolist()
    return Gradients(loss / tokens, objective / tokens, z_loss / tokens, norm, stopping > 0)
