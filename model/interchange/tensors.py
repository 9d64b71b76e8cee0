"""Weights from Megatron-Core's tensors to those of transformers and back; `shapes` says which rows go where."""

from collections.abc import Iterator
from typing import Protocol

import torch

from model.interchange.shapes import EMBEDDING, OUTPUT, blocks, matrices
from model.settings.architecture import ModelSettings


class Source(Protocol):
    """Weights by transformers' names."""

    def rows(self, name: str) -> int:
        """Length of the first axis of a tensor."""
        ...

    def read(self, name: str, rows: slice, columns: slice | None) -> torch.Tensor:
        """A part of a tensor; columns are those of the second axis, if there is one."""
        ...


class Saved(Protocol):
    """Weights by Megatron-Core's names."""

    def read(self, key: str, layer: int | None) -> torch.Tensor:
        """One layer of a tensor, or a tensor that is no stack."""
        ...


def to_transformers(saved: Saved, model: ModelSettings, vocabulary_size: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of transformers with its name, made of one layer of one of Megatron-Core's at a time."""
    for key, layer, _ in matrices(model, vocabulary_size):
        whole, start = saved.read(key, layer), 0
        parts: dict[str, list[torch.Tensor]] = {}
        for block in blocks(key, layer, model, vocabulary_size):
            parts.setdefault(block.name, []).append(whole[start : start + block.rows])
            start += block.rows
        for name, pieces in parts.items():
            yield name, pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def fill_from(
    source: Source, target: torch.Tensor, key: str, layer: int | None, starts: tuple[int, ...], model: ModelSettings
) -> None:
    """Copy a slice of a layer of Megatron-Core's tensor, which begins at `starts`, out of transformers' tensors.

    Rows after the source's vocabulary get the mean of its rows: their logits are then the mean of the others', so that
    127 of them take at most 127 / vocabulary of the probability, whatever the text (Jensen's inequality).
    """
    first = starts[0]
    columns = slice(starts[1], starts[1] + target.shape[1]) if target.ndim > 1 else None
    vocabulary_size = source.rows(blocks(key, layer, model, 0)[0].name) if key in (EMBEDDING, OUTPUT) else 0
    begin = 0
    for block in blocks(key, layer, model, vocabulary_size):
        low, high = max(first, begin), min(first + target.shape[0], begin + block.rows)
        if low < high:
            rows = slice(block.start + low - begin, block.start + high - begin)
            target[low - first : high - first] = source.read(block.name, rows, columns)
        begin += block.rows
    if first + target.shape[0] > begin:
        name = blocks(key, layer, model, vocabulary_size)[0].name
        target[max(begin - first, 0) :] = _mean_row(source, name, columns)


def _mean_row(source: Source, name: str, columns: slice | None, step: int = 8192) -> torch.Tensor:
    rows = source.rows(name)
    parts = (source.read(name, slice(low, min(low + step, rows)), columns) for low in range(0, rows, step))
    total = sum((part.double().sum(0) for part in parts), torch.zeros((), dtype=torch.float64))
    return total / rows
