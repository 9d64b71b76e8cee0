"""The likelihood of held-out text, under a model and under token frequencies.

Held-out documents are concatenated in their order and cut into windows of `sequence_length` tokens. Every token is
predicted exactly once, each document's end-of-document token included, from what precedes it in its window and the
last token of the window before; the first of all is predicted from an end-of-document token, as in training. Where
training kept documents apart, so does this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from model.data.batches import Rows, ask, empty_rows, fill_row, own_samples, to_batches
from model.data.documents import Documents, Integers
from model.data.objectives import Objective
from model.data.packing import CutEpoch
from model.parallel import Place
from model.updates.forward import run_micro_batches

_MICRO_BATCHES_AT_ONCE = 64


@dataclass(frozen=True)
class HeldOut:
    """The part of the held-out split that is measured on."""

    documents: Documents
    count: int
    """Documents from the first on."""
    end_of_document: int

    @property
    def tokens(self) -> int:
        """Predicted tokens."""
        return int(self.documents.lengths[: self.count].sum())

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the same documents."""
        return int(self.documents.text_bytes[: self.count].sum())

    def windows(self, length: int) -> CutEpoch:
        """Windows of `length` tokens, the last perhaps shorter."""
        return CutEpoch(self.documents.lengths, np.arange(self.count), length, keep_rest=True)


def choose(documents: Documents, max_tokens: int | None, end_of_document: int) -> HeldOut:
    """Take whole documents up to `max_tokens` tokens, but at least one, so that tokens and bytes belong together."""
    fitting = len(documents)
    if max_tokens is not None:
        fitting = int(np.searchsorted(np.cumsum(documents.lengths), max_tokens, side="right"))
    return HeldOut(documents, max(fitting, 1), end_of_document)


def model_nats(
    chunks: Sequence[Any],
    held_out: HeldOut,
    length: int,
    micro: int,
    place: Place,
    *,
    across: bool = True,
    objective: Objective | None = None,
) -> tuple[float, int]:
    """Negative log-likelihood in nats of all predicted tokens, and their number; every rank gets both.

    `across` says whether documents in a window see one another, as they did in training. Without an objective all
    tokens are predicted, each from those before.
    """
    windows = held_out.windows(length)
    ranks = place.layout.data
    # Rows of padding do not count: they only give every replica the same number of full micro-batches.
    numbers = own_samples(
        0, -(-windows.samples // (micro * ranks)) * micro * ranks, micro=micro, rank=place.data_rank, ranks=ranks
    )
    nats, tokens = 0.0, 0
    for chunk in chunks:
        chunk.eval()
    with torch.no_grad():
        for start in range(0, len(numbers), _MICRO_BATCHES_AT_ONCE * micro):
            part = numbers[start : start + _MICRO_BATCHES_AT_ONCE * micro]
            rows = _rows(held_out, windows, part, length, across)
            batches = to_batches(rows if objective is None else ask(objective, rows), micro, place.device)
            more_nats, more_tokens = run_micro_batches(chunks, batches, place, backward=False)
            nats, tokens = nats + more_nats, tokens + more_tokens
    total, counted = place.sum_over_all([nats, tokens])
    assert objective is not None or int(counted) == held_out.tokens, (counted, held_out.tokens)
    return total, int(counted)


def _rows(held_out: HeldOut, windows: CutEpoch, numbers: Sequence[int], length: int, across: bool) -> Rows:
    rows = empty_rows(numbers, length, documents=not across)
    for row, number in enumerate(numbers):
        if number < windows.samples:
            values = rows.values[:, row].numpy()
            fill_row(values, held_out.documents, windows.pieces(number), held_out.end_of_document)
    return rows


def unigram_nats(training_counts: Integers, held_out: HeldOut) -> float:
    """Negative log-likelihood in nats of the same tokens by their training frequencies, with one added to each."""
    smoothed = training_counts + 1
    log_probability = np.log(smoothed) - np.log(smoothed.sum())
    return -float(held_out.documents.frequencies(len(smoothed), held_out.count) @ log_probability)
