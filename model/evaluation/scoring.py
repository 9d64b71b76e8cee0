"""How likely a model finds texts after others, under every layout.

A request is a context and a continuation, as tokens. Requests with the same input share a *row*: what is read is the
context and the continuation but its last token. Rows, longest first, are cut into *batches* of equal shape, each as
many rows as hold the given number of tokens, padding included; padding comes after a row's tokens, which it cannot
touch, because attention is causal. The data-parallel replicas take batches in turn, pipelines any number at a time.

What a request gets depends on its batch by rounding only. To the bit it depends on the list that it is asked with,
whence `groups`: the parts of a long list that are asked on their own, each computed whole or not at all.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, tee
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from megatron.core.pipeline_parallel import get_forward_backward_func

from infra.errors import BadInput
from model.architectures.context import own_positions
from model.evaluation.asked import Selection, only_asked
from model.parallel import Place, attention_of_any_shape, context_group
from model.settings.benchmarks import BenchmarkSettings

Int64s = npt.NDArray[np.int64]

_BATCHES_IN_GROUP = {"cpu": 8, "cuda": 32}
"""By device, over all replicas: what takes long beside the pause after it, and is not long to do again."""


class Request(NamedTuple):
    """What is asked: the continuation's likelihood after the context, which has one token at least."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


class Score(NamedTuple):
    """What is found."""

    log_likelihood: float
    """Of the continuation, in nats."""
    greedy: bool
    """Whether the continuation is what the model would say: each of its tokens the likeliest after those before."""


@dataclass(frozen=True)
class _Row:
    """An input, and what is asked of it: for each request its number and its continuation, which ends the row."""

    tokens: tuple[int, ...]
    asked: list[tuple[int, tuple[int, ...]]]


class _Round(NamedTuple):
    """What every replica takes at once, a batch of one shape; `own` are the rows of this one, perhaps fewer."""

    height: int
    length: int
    own: Sequence[_Row]


@dataclass(frozen=True)
class _Batch:
    """Tensors on the device; see `model.evaluation.asked` for what is selected."""

    tokens: torch.Tensor
    positions: torch.Tensor
    selected: torch.Tensor
    labels: torch.Tensor
    """int64 [asked]: the tokens that the selected positions are asked for."""
    places: torch.Tensor
    """int64 [asked]: where the answers belong among all; the place after the last takes what nobody asked for."""


def groups(
    requests: Sequence[Request], sequence_length: int, tokens_at_once: int, replicas: int = 1
) -> list[list[int]]:
    """Cut a list into parts of some full batches for each replica, as lists of its requests' numbers.

    Those that share a row stay together; those with an empty continuation come first.
    """
    empty = [number for number, each in enumerate(requests) if not each.continuation]
    batches = _BATCHES_IN_GROUP["cuda" if torch.cuda.is_available() else "cpu"]
    found, rounds = [empty] if empty else [], max(batches // replicas, 1)
    for index, (_, part) in enumerate(
        _cut(_rows(requests, sequence_length), sequence_length, tokens_at_once, replicas)
    ):
        if index % rounds == 0:
            found.append([])
        found[-1] += [number for row in part for number, _ in row.asked]
    return found


def _rows(requests: Sequence[Request], sequence_length: int) -> list[_Row]:
    """The rows of some requests, longest first; what is too long loses its beginning, as in the harness's `hf`."""
    rows: dict[tuple[int, ...], _Row] = {}
    for number, (context, continuation) in enumerate(requests):
        assert context, "the first token is predicted from an end-of-document token"
        if len(continuation) > sequence_length:
            raise BadInput(
                f"an answer of {len(continuation):,} tokens",
                f"the model reads {sequence_length:,} tokens at most (sequence_length)",
                "Leave the task out, or evaluate a model with longer sequences",
            )
        if continuation:
            tokens = (*context, *continuation)[-(sequence_length + 1) : -1]
            rows.setdefault(tokens, _Row(tokens, [])).asked.append((number, continuation))
    return sorted(rows.values(), key=lambda row: (-len(row.tokens), row.tokens))


def _cut(
    rows: Sequence[_Row], sequence_length: int, tokens_at_once: int, replicas: int, multiple: int = 1
) -> Iterator[tuple[int, Sequence[_Row]]]:
    """Parts that all replicas take at once: their common length, and the rows."""
    start = 0
    while start < len(rows):
        length = min(_padded(len(rows[start].tokens), multiple), sequence_length)
        most = max(tokens_at_once // length, 1)
        yield length, rows[start : start + most * replicas]
        start += most * replicas


def _padded(length: int, multiple: int) -> int:
    """A length rounded up to what kernels read at once."""
    step = math.lcm(8, multiple)
    return -(-length // step) * step


class Scorer:
    """Scores requests by a model's chunks; one that predicts the next token (gpt or lstm)."""

    def __init__(
        self,
        chunks: Sequence[Any],
        place: Place,
        settings: BenchmarkSettings,
        sequence_length: int,
        vocabulary_size: int,
    ) -> None:
        self._chunks, self._place = chunks, place
        self._tokens_at_once = settings.tokens_at_once
        self._length, self._vocabulary_size = sequence_length, vocabulary_size

    @torch.no_grad()
    def score(self, requests: Sequence[Request]) -> list[Score]:
        """Score each request; every rank calls this with the same requests and gets the same scores.

        BadInput for a continuation that is longer than the model's sequences. An empty one is certain.
        """
        lengths = np.array([len(each.continuation) for each in requests], np.int64)
        ends = np.cumsum(lengths)
        asked = int(ends[-1]) if len(ends) else 0
        found = torch.zeros(2, asked + 1, dtype=torch.float64, device=self._place.device)
        training = [chunk.training for chunk in self._chunks]
        for chunk in self._chunks:
            chunk.eval()
        with attention_of_any_shape(), only_asked(self._chunks, self._vocabulary_size) as selection:
            rounds = self._rounds(_rows(requests, self._length))
            for _, alike in groupby(rounds, key=lambda each: each[:2]):
                self._run(list(alike), ends - lengths, found, selection)
        for chunk, was in zip(self._chunks, training, strict=True):
            chunk.train(was)
        self._place.add_over_all(found)
        logs, greedy = found[:, :-1].cpu().numpy()
        return [
            Score(float(logs[end - length : end].sum()), bool(greedy[end - length : end].all()))
            for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
        ]

    def _rounds(self, rows: Sequence[_Row]) -> Iterator[_Round]:
        layout = self._place.layout
        shared = math.lcm(layout.tensor, 2 * layout.context if layout.context > 1 else 1)  # by ranks that share rows
        for length, part in _cut(rows, self._length, self._tokens_at_once, layout.data, shared):
            height = -(-len(part) // layout.data)
            yield _Round(height, length, part[self._place.data_rank * height :][:height])

    def _run(self, rounds: list[_Round], starts: Int64s, found: torch.Tensor, selection: Selection) -> None:
        """Send this replica's batches, of one shape, through the layers, and write what is asked into `found`."""
        place, pieces = self._place, self._place.chunks
        missing = -len(rounds) % (place.layout.pipeline if pieces > 1 else 1)  # as interleaved pipelines take them
        rounds = rounds + [_Round(rounds[0].height, rounds[0].length, [])] * missing
        places: list[torch.Tensor] = []

        def batches() -> Iterator[_Batch]:  # made while the device works on the one before
            for each in rounds:
                batch = _batch(each, starts, found.shape[1] - 1, place.device)
                places.append(batch.places)
                yield batch

        results = get_forward_backward_func()(
            forward_step_func=partial(_forward, selection),
            data_iterator=list(tee(batches(), pieces)),
            model=list(self._chunks),
            num_microbatches=len(rounds),
            seq_length=rounds[0].length,
            micro_batch_size=rounds[0].height,
            forward_only=True,
            collect_non_loss_data=True,
        )
        if place.holds_loss:
            for asked, scores in zip(places, results, strict=True):
                found[:, asked] = scores.double()


def _batch(rows: _Round, starts: Int64s, nowhere: int, device: torch.device) -> _Batch:
    """A round's rows as tensors, with the positions that are this context rank's; one at least is asked for."""
    tokens = np.zeros((rows.height, rows.length), np.int64)
    asked: list[Int64s] = []
    for number, row in enumerate(rows.own):
        tokens[number, : len(row.tokens)] = row.tokens
        for request, continuation in row.asked:
            size = len(continuation)
            positions = np.arange(len(row.tokens) - size, len(row.tokens))
            places = np.arange(starts[request], starts[request] + size)
            asked.append(np.stack([np.full(size, number), positions, np.array(continuation), places]))
    row, position, label, place = np.concatenate([*asked, np.empty((4, 0), np.int64)], 1)
    everything, group = torch.arange(rows.length)[None], context_group()
    own = own_positions(everything, 1, group)[0].numpy()
    index = np.full(rows.length, -1)
    index[own] = np.arange(len(own))
    ours = np.flatnonzero(index[position] >= 0)
    selected = np.stack([index[position] * rows.height + row, label, place])[:, ours]
    if not len(ours):
        selected = np.array([[0], [0], [nowhere]])
    read, at = torch.from_numpy(tokens), everything.expand(rows.height, -1)
    parts = (own_positions(read, 1, group), own_positions(at, 1, group), torch.from_numpy(selected))
    read, at, selected = (_on_device(each, device) for each in parts)
    return _Batch(read, at, *selected.unbind())


def _on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return tensor.contiguous().pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _forward(selection: Selection, batches: Iterator[_Batch], model: Any) -> tuple[torch.Tensor, Any]:
    batch = next(batches)
    selection.positions = batch.selected
    output = model(batch.tokens, batch.positions, None, labels=batch.labels)
    return output, _as_they_are


def _as_they_are(scores: torch.Tensor, non_loss_data: bool) -> torch.Tensor:
    """What Megatron-Core's schedules collect of each batch."""
    return scores
