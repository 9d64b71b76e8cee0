"""The likelihood of held-out text, under a model and under token frequencies.

Held-out documents are concatenated in their order and cut into windows of `sequence_length` tokens. Every token is
predicted exactly once, each document's end-of-document token included, from what precedes it in its window and the
last token of the window before; the first of all is predicted from an end-of-document token, as in training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from model.data.batches import make_batch
from model.data.documents import Documents, Integers, Stream
from model.forward import run_micro_batches
from model.parallel import Place

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

    def stream(self) -> Stream:
        """The documents as one sequence of tokens."""
        return Stream(self.documents, np.arange(self.count))

    def windows(self, length: int) -> list[Integers]:
        """Windows of length + 1 tokens (the last may be shorter), each beginning with the one before's last token."""
        stream = self.stream()
        first = np.concatenate([[self.end_of_document], stream.read(0, length)])
        return [first, *(stream.read(start - 1, length + 1) for start in range(length, self.tokens, length))]


def choose(documents: Documents, max_tokens: int | None, end_of_document: int) -> HeldOut:
    """Take whole documents up to `max_tokens` tokens, but at least one, so that tokens and bytes belong together."""
    fitting = len(documents)
    if max_tokens is not None:
        fitting = int(np.searchsorted(np.cumsum(documents.lengths), max_tokens, side="right"))
    return HeldOut(documents, max(fitting, 1), end_of_document)


def model_nats(chunks: Sequence[Any], held_out: HeldOut, length: int, micro: int, place: Place) -> float:
    """Negative log-likelihood in nats of all predicted tokens; every rank gets it."""
    windows = held_out.windows(length)
    ranks = place.layout.data
    # Empty rows are masked: they only give every replica the same number of full micro-batches.
    windows += [np.empty(0, np.int64)] * (-len(windows) % (micro * ranks))
    batches = [windows[start : start + micro] for start in range(place.data_rank * micro, len(windows), micro * ranks)]
    nats, tokens = 0.0, 0
    for chunk in chunks:
        chunk.eval()
    with torch.no_grad():
        for start in range(0, len(batches), _MICRO_BATCHES_AT_ONCE):
            part = [make_batch(rows, length, place.device) for rows in batches[start : start + _MICRO_BATCHES_AT_ONCE]]
            more_nats, more_tokens = run_micro_batches(chunks, part, place, backward=False)
            nats, tokens = nats + more_nats, tokens + more_tokens
    total, counted = place.sum_over_all([nats, tokens])
    assert int(counted) == held_out.tokens, (counted, held_out.tokens)
    return total


def unigram_nats(training_counts: Integers, held_out: HeldOut) -> float:
    """Negative log-likelihood in nats of the same tokens by their training frequencies, with one added to each."""
    smoothed = training_counts + 1
    log_probability = np.log(smoothed) - np.log(smoothed.sum())
    stream = held_out.stream()
    nats = 0.0
    for start in range(0, len(stream), 1 << 20):
        nats -= float(log_probability[stream.read(start, 1 << 20)].sum())
    return nats
