"""Micro-batches through the pipeline, forwards and perhaps backwards: what training and evaluation have in common."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from megatron.core.pipeline_parallel import get_forward_backward_func

from model.architectures.context import own_positions
from model.data.batches import Batch
from model.parallel import Place, context_group

SUMS = 4
"""Numbers in what `sum_micro_batches` returns."""


def sum_micro_batches(chunks: Sequence[Any], batches: Sequence[Batch], place: Place, *, backward: bool) -> torch.Tensor:
    """Run micro-batches of equal shape and return the sums of their losses, without waiting for the device.

    Float64 on the rank's device, over predicted tokens, in nats: cross entropy, what is made small (the same unless
    `training.loss` adds to it), the z-loss in it, and the number of tokens. The result is this rank's own part: the
    caller adds it up over all ranks, of which those that do not hold the loss return zero. With `backward`, gradients
    are left in the model's buffers, divided by the number of tokens in the global batch; without, the model neither
    drops anything out nor adds anything to the cross entropy.
    """
    reported = _run(chunks, batches, place, _sums, backward=backward)
    if not place.holds_loss:
        return torch.zeros(SUMS, dtype=torch.float64, device=place.device)
    return torch.stack([each["sums"] for each in reported]).sum(0)


def position_losses(chunks: Sequence[Any], batches: Sequence[Batch], place: Place) -> list[torch.Tensor]:
    """Run micro-batches of equal shape forwards and return each one's losses, without waiting for the device.

    Cross entropies in nats [sequences, own positions], float32, 0 where a label does not count: this rank's own part as
    `own_part` cuts it out; no micro-batch at all on ranks that do not hold the loss.
    """
    reported = _run(chunks, batches, place, _positions, backward=False)
    return [each["losses"] for each in reported[: len(batches)]] if place.holds_loss else []


def _run(
    chunks: Sequence[Any], batches: Sequence[Batch], place: Place, report: Callable[..., Any], *, backward: bool
) -> list[dict[str, Any]]:
    """What `report` says of each micro-batch, on the ranks of the last stage."""
    for chunk in chunks:
        if chunk.training != backward:
            chunk.train(backward)
    if not backward:
        # The interleaved schedule takes as many at a time as there are stages; what is added does not count.
        nothing = replace(batches[0], mask=torch.zeros_like(batches[0].mask))
        batches = [*batches, *[nothing] * (-len(batches) % _micro_batches_at_once(place))]
    own = [own_part(each) for each in batches]
    sequences, length = batches[0].tokens.shape
    return get_forward_backward_func()(
        forward_step_func=partial(_forward, report),
        data_iterator=[iter(own) for _ in chunks],
        model=list(chunks),
        num_microbatches=len(own),
        seq_length=length,
        micro_batch_size=sequences,
        forward_only=not backward,
    )


def _micro_batches_at_once(place: Place) -> int:
    return 1 if place.layout.virtual_pipeline is None else place.layout.pipeline


def own_part(batch: Batch) -> Batch:
    """The positions of a batch that are this context rank's; documents stay those of the whole sequence."""
    group = context_group()
    names = ("tokens", "labels", "positions", "mask")
    return replace(batch, **{name: own_positions(getattr(batch, name), 1, group) for name in names})


def _forward(report: Callable[..., Any], batches: Iterator[Batch], model: Any) -> tuple[torch.Tensor, Any]:
    batch = next(batches)
    # The attention is causal by itself; in the place of a mask it takes the documents that may not see one another.
    output = model(batch.tokens, batch.positions, batch.documents, labels=batch.labels)
    return output, partial(report, batch)


def _positions(batch: Batch, losses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    own = losses.float() * batch.mask
    return own.sum(), batch.mask.sum().to(torch.int), {"losses": own}


def _sums(batch: Batch, losses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Sum and number of the losses that count, as Megatron-Core's per-token loss wants them.

    `losses` is [sequences, positions], or [3, sequences, positions] as `model.updates.loss.use_loss` describes.
    """
    mask = batch.mask
    sums, tokens = (losses.float() * mask).flatten(-2).sum(-1), mask.sum()
    wanted, entropy, z_loss = sums if losses.ndim == 3 else (sums, sums, torch.zeros_like(sums))
    reported = torch.stack([entropy, wanted, z_loss, tokens]).detach().double()
    return wanted, tokens.to(torch.int), {"sums": reported}
