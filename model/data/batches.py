"""Samples as tensors, and which of them a rank takes.

A row is filled on the host in int32: what is read, what is predicted (-1 where nothing is) and, where documents must
not see one another, to which document each position belongs. The rows of a step lie in one piece of memory, pinned
where there is a GPU, and travel in one copy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from model.data.documents import Documents
from model.data.objectives import Objective
from model.data.packing import Pieces

Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Batch:
    """Tensors [sequences, positions] on the rank's device."""

    tokens: torch.Tensor
    """int64, what is read; 0 on padding."""
    labels: torch.Tensor
    """int64, for next-token prediction the sample's own tokens, each to be predicted from `tokens` up to its position;
    0 where nothing is predicted."""
    positions: torch.Tensor
    """int64, 0, 1, ... in each sequence; they do not start again with each document."""
    mask: torch.Tensor
    """1 where the label counts, 0 on padding; float32."""
    documents: torch.Tensor | None = None
    """int32, numbers of the documents in each sequence, -1 on padding: a position sees its own document only. None
    lets documents see one another. The token that a document's first is predicted from counts as the document's."""
    samples: torch.Tensor | None = None
    """int64 [sequences] on the host: the number of each sample, counted from the start of training."""


@dataclass(frozen=True)
class Rows:
    """Rows of one step or more on the host."""

    values: torch.Tensor
    """int32 [2 or 3, rows, positions]: tokens, labels and perhaps documents."""
    samples: Sequence[int]
    """Number of each row's sample."""


def empty_rows(samples: Sequence[int], length: int, *, documents: bool, pinned: bool = False) -> Rows:
    """Rows that hold padding alone, in memory of their own."""
    values = torch.empty((3 if documents else 2, len(samples), length), dtype=torch.int32, pin_memory=pinned)
    values[0], values[1:] = 0, -1
    return Rows(values, samples)


def fill_row(row: Int32s, documents: Documents, pieces: Pieces, end_of_document: int) -> None:
    """Write the pieces of one sample into a row of padding: int32 [2 or 3, positions]."""
    tokens, labels = row[0], row[1]
    begin, begins, before = 0, [], []
    for document, start, count in zip(*(each.tolist() for each in pieces), strict=True):
        labels[begin : begin + count] = documents.read(document, start, count)
        begins.append(begin)
        before.append(documents.read(document, start - 1, 1)[0] if start else end_of_document)
        begin += count
    if not begins:
        return
    tokens[1:begin] = labels[: begin - 1]
    tokens[begins] = before
    if len(row) > 2:
        row[2, :begin] = np.repeat(np.arange(len(begins), dtype=np.int32), pieces.counts)


def ask(objective: Objective, rows: Rows) -> Rows:
    """Rows of next-token prediction as rows of another objective."""
    given = rows.values.numpy()
    asked = objective.ask(given, rows.samples)
    if asked is given:
        return rows
    values = torch.from_numpy(asked)
    return Rows(values.pin_memory() if rows.values.is_pinned() else values, rows.samples)


def to_batches(rows: Rows, micro: int, device: torch.device) -> list[Batch]:
    """Rows as micro-batches of `micro` sequences on a device."""
    values = rows.values.to(device, non_blocking=True)
    mask = (values[1] >= 0).float()
    tokens, labels = values[0].long(), values[1].clamp(min=0).long()
    positions = torch.arange(values.shape[2], device=device)
    batches = []
    for start in range(0, values.shape[1], micro):
        part = slice(start, start + micro)
        batches.append(
            Batch(
                tokens=tokens[part],
                labels=labels[part],
                positions=positions.expand(len(tokens[part]), -1),
                mask=mask[part],
                documents=values[2, part] if len(values) > 2 else None,
                samples=torch.tensor(rows.samples[part]),
            )
        )
    return batches


def own_samples(first: int, count: int, *, micro: int, rank: int, ranks: int) -> list[int]:
    """Of samples first, ..., first + count - 1, those of one data-parallel rank.

    Of each micro x ranks samples it takes the rank-th micro.
    """
    starts = range(first + rank * micro, first + count, micro * ranks)
    return [sample for start in starts for sample in range(start, start + micro)]
