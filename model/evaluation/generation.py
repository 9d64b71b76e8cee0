"""Continuing texts token by token, many at once, with what was read before remembered, under every layout but context.

Prompts are sorted by length and cut into batches of as many as fit. Each batch is read at once and then goes on by one
token of each row; rows that have ended are taken out when they are half of the batch. The data-parallel replicas have
prompts of their own. Within a replica the stages of the pipeline hand on what their layers compute, and the process
that has the logits draws each token and tells it the others.

What a prompt gets depends on the weights, the prompt and its own seed: on the other prompts and on the layout only by
rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from infra.manifest import TokenizerRecord
from infra.vocabulary import Vocabulary
from model.config import EvaluationSettings
from model.evaluation.interruption import Interruption
from model.evaluation.passes import Passes, token_by_token
from model.parallel import Place
from model.run import Sample


class GenerationRequest(NamedTuple):
    """A text to continue, as tokens (at least one), and how."""

    prompt: tuple[int, ...]
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    """Texts after which nothing is added; the one that was found is in the answer."""
    temperature: float = 0.0
    """Divides the logits before sampling; 0 takes the likeliest token each time."""
    top_k: int | None = None
    """Samples among so many likeliest tokens; none among all."""
    top_p: float | None = None
    """Samples among the fewest likeliest tokens that have this probability together; none among all."""
    seed: int = 0
    """Seed of the sampling."""


class Generator:
    """A model's chunks as one that continues texts."""

    def __init__(
        self,
        chunks: Sequence[Any],
        place: Place,
        sequence_length: int,
        record: TokenizerRecord,
        vocabulary: Vocabulary,
        tokens_at_once: int = 16_384,
        interruption: Interruption | None = None,
    ) -> None:
        """`tokens_at_once` are the positions, padding included, of which one process remembers keys and values.

        Where the interruption is wished for, answers end early: the caller checks it and throws them away.
        """
        self._interruption = interruption or Interruption(place)
        self._passes = Passes(chunks, place, sequence_length)
        self._place, self._length, self._tokens_at_once = place, sequence_length, tokens_at_once
        self._end, self._decode = record.end_of_document, vocabulary.decode
        unspoken = {*record.control.values(), *(() if record.pad is None else (record.pad,))} - {self._end}
        self._never = torch.tensor(sorted(unspoken), dtype=torch.int64, device=place.device)
        self._vocabulary_size = record.vocabulary_size
        self._replicas = 1 if self._passes.together else place.layout.data

    def generate(self, requests: Sequence[GenerationRequest]) -> list[list[int]]:
        """New tokens of each request, up to the end of the document (left out), of a stop, or of the sequence.

        Every rank calls this with the same requests and gets the same answers. Prompts have at most as many tokens as
        the model's sequences; those that fill them get nothing.
        """
        own: dict[int, list[int]] = {}
        with token_by_token(self._passes.chunks):
            for batch in self._batches(requests):
                self._complete(batch)
                own |= {row.number: row.added for row in batch}
        everyone = self._place.gather_everywhere(own if self._passes.draws else {})
        answers = {number: added for each in everyone for number, added in each.items()}
        return [answers[number] for number in range(len(requests))]

    def _batches(self, requests: Sequence[GenerationRequest]) -> Iterator[list["_Row"]]:
        """Requests of this replica, longest prompt first."""
        order = sorted(range(len(requests)), key=lambda number: (-len(requests[number].prompt), number))
        batch: list[_Row] = []
        capacity = 0
        for number in order[self._place.data_rank if self._replicas > 1 else 0 :: self._replicas]:
            row = _Row(number, requests[number], self._length)
            needed = max(capacity, row.capacity)
            full = needed * (len(batch) + 1) > self._tokens_at_once
            if batch and (full or not self._passes.go_together(batch[0].request.prompt, row.request.prompt)):
                yield batch
                batch, needed = [], row.capacity
            batch.append(row)
            capacity = needed
        if batch:
            yield batch

    def _complete(self, batch: Sequence["_Row"]) -> None:
        """Fill in what is added to each row; on ranks that do not draw, as they are told."""
        rows = [row for row in batch if row.room > 0]
        if not rows:
            return
        memory = self._passes.memory(len(rows), max(row.capacity for row in rows))
        places = [len(row.request.prompt) - 1 for row in rows]
        longest = [[*row.request.prompt, *[0] * (places[0] - place)] for row, place in zip(rows, places, strict=True)]
        logits = self._passes.read(self._on_device(longest), self._on_device(places), memory)
        going_on = [1] * len(rows)
        while True:
            drawn = self._passes.tell(self._draw(rows, logits) if logits is not None else None, len(rows))
            told = drawn.tolist()
            going_on = [goes and still for goes, (_, still) in zip(going_on, told, strict=True)]
            if not any(going_on):
                return
            places = [place + goes for place, goes in zip(places, going_on, strict=True)]
            if sum(going_on) <= len(rows) // 2:
                kept = [index for index, goes in enumerate(going_on) if goes]
                memory.keep(self._on_device(kept))
                drawn = drawn[kept]
                rows, places = [rows[index] for index in kept], [places[index] for index in kept]
                going_on = [1] * len(rows)
            last = self._on_device(places)
            memory.go_on(last, max(places))
            logits = self._passes.read(drawn[:, :1], last, memory)

    def _on_device(self, numbers: Any) -> torch.Tensor:
        return torch.tensor(numbers, device=self._place.device)

    def _draw(self, rows: Sequence["_Row"], logits: torch.Tensor) -> list[tuple[int, int]]:
        """One more token of each row, and whether the row goes on; ids that no text has are left out."""
        if self._interruption.wished:
            return [(0, 0)] * len(rows)
        logits = logits[:, : self._vocabulary_size]
        logits[:, self._never] = -torch.inf
        likeliest = logits.argmax(-1).tolist()
        drawn = []
        for row, greedy, scores in zip(rows, likeliest, logits, strict=True):
            if row.ended:
                drawn.append((0, 0))
                continue
            token = greedy if row.request.temperature == 0 else row.draw(scores)
            row.take(token, self._end, self._decode)
            drawn.append((token, int(not row.ended)))
        return drawn


class _Row:
    """An answer while it grows."""

    def __init__(self, number: int, request: GenerationRequest, sequence_length: int) -> None:
        assert 0 < len(request.prompt) <= sequence_length, (len(request.prompt), sequence_length)
        self.number, self.request = number, request
        self.room = min(request.max_new_tokens, sequence_length - len(request.prompt))
        self.capacity = len(request.prompt) + max(self.room, 0)
        self.added: list[int] = []
        self.ended = False
        self._stops = [each for each in request.stop if each]
        # Each token but the last few that end a stop may hold as little as one byte of it.
        self._watched = max((len(each.encode()) for each in self._stops), default=0) + 4
        self._generator = torch.Generator().manual_seed(request.seed)

    def draw(self, logits: torch.Tensor) -> int:
        """Sample from logits [vocabulary]: in float64 and on the CPU, so that devices draw alike."""
        top_k, top_p = self.request.top_k, self.request.top_p
        scores = logits.cpu().double() / self.request.temperature
        values, tokens = scores.topk(min(top_k, len(scores))) if top_k else scores.sort(descending=True, stable=True)
        probabilities = torch.softmax(values, 0)
        if top_p is not None:
            probabilities = probabilities[probabilities.cumsum(0) - probabilities < top_p]
        total = probabilities.cumsum(0)
        point = torch.rand((), dtype=torch.float64, generator=self._generator) * total[-1]
        return int(tokens[torch.searchsorted(total, point, right=True).clamp(max=len(total) - 1)])

    def take(self, token: int, end: int, decode: Callable[[Sequence[int]], str]) -> None:
        """Add a token, and find out whether it was the last."""
        if token == end:
            self.ended = True
            return
        self.added.append(token)
        self.ended = len(self.added) == self.room or self._stopped(decode)

    def _stopped(self, decode: Callable[[Sequence[int]], str]) -> bool:
        if not self._stops:
            return False
        text = decode(self.added[-self._watched :])
        return any(each in text for each in self._stops)


def continue_prompts(
    generator: Generator,
    vocabulary: Vocabulary,
    record: TokenizerRecord,
    settings: EvaluationSettings,
    sequence_length: int,
) -> tuple[Sample, ...]:
    """Continue each prompt by at most `sample_tokens` tokens, or to the end of the document or of the sequence.

    Every rank calls this. The result depends on the seed and the weights.
    """
    # As in training, a document begins after the end of another one; a long prompt loses its beginning.
    given = [(record.end_of_document, *ids.tolist()) for ids in vocabulary.encode(settings.prompts)]
    given = [tokens[-(sequence_length - 1) :] for tokens in given]
    requests = [
        GenerationRequest(
            tokens,
            settings.sample_tokens,
            temperature=settings.temperature,
            top_k=settings.top_k,
            seed=settings.seed + index,
        )
        for index, tokens in enumerate(given)
    ]
    samples = []
    for prompt, tokens, added in zip(settings.prompts, given, generator.generate(requests), strict=True):
        # Decoded together, for the space or the half of a character at the border.
        text = vocabulary.decode([*tokens, *added])[len(vocabulary.decode(tokens)) :]
        samples.append(Sample(prompt=prompt, text=text))
    return tuple(samples)
