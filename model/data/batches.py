"""Samples as tensors, and which of them a rank takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.data.documents import Integers
from model.data.order import TrainingOrder


@dataclass(frozen=True)
class Batch:
    """Tensors [sequences, positions] on the rank's device."""

    tokens: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    """1 where the label counts, 0 on padding; float32."""
    documents: torch.Tensor | None = None
    """int32, numbers of the documents in each sequence, -1 on padding: a position sees its own document only. None
    lets documents see one another."""


def make_batch(rows: Sequence[Integers], length: int, device: torch.device) -> Batch:
    """Rows of at most length + 1 tokens; shorter ones are padded and masked."""
    padded = np.zeros((len(rows), length + 1), np.int64)
    mask = np.zeros((len(rows), length), np.float32)
    for padded_row, mask_row, row in zip(padded, mask, rows, strict=True):
        padded_row[: len(row)] = row
        mask_row[: max(len(row) - 1, 0)] = 1
    both = torch.from_numpy(padded).to(device, non_blocking=True)
    return Batch(
        tokens=both[:, :-1].contiguous(),
        labels=both[:, 1:].contiguous(),
        positions=torch.arange(length, device=device).expand(len(rows), -1),
        mask=torch.from_numpy(mask).to(device, non_blocking=True),
    )


def micro_batches(
    order: TrainingOrder, consumed: int, *, batch: int, micro: int, rank: int, ranks: int
) -> Iterator[list[Integers]]:
    """The rows of one step for one data-parallel rank: of each micro x ranks samples it takes the rank-th micro."""
    for start in range(consumed + rank * micro, consumed + batch, micro * ranks):
        yield [order.sample(index) for index in range(start, start + micro)]
