"""Token shards as training samples and as held-out text, read in place from memory maps.

The order of training is a function of the seed and the dataset alone. In each epoch the documents are shuffled and
concatenated, the stream is cut every `sequence_length` tokens with one token of overlap (the last label of a sample is
the first input of the next), the rest at the end is dropped, and the samples are shuffled. The state is one integer,
the number of samples consumed; it means the same under every layout.

Megatron-Core's GPTDataset is not used: its order changes with the length of the run, it needs index files that must be
invalidated by hand, and it copies every token array through its own file format.
"""

import logging
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from infra.errors import BadInput, DamagedData
from infra.manifest import DatasetManifest, TokenShard
from infra.store import Store

logger = logging.getLogger(__name__)

Tokens = npt.NDArray[np.unsignedinteger[Any]]
Integers = npt.NDArray[np.int64]


def verify_shards(store: Store, dataset: DatasetManifest, shards: Sequence[TokenShard], *, content: bool) -> None:
    """Compare size, tokenizer and, with `content`, SHA-256 of each shard with the manifest, else DamagedData."""
    for shard in shards:
        if not store.exists(shard.path):
            raise _damaged(store, shard, "is missing")
        if (size := store.size(shard.path)) != shard.bytes:
            raise _damaged(store, shard, f"has {size} bytes instead of {shard.bytes}")
        if content and (found := store.sha256(shard.path)) != shard.sha256:
            raise _damaged(store, shard, f"has SHA-256 {found} instead of {shard.sha256}")
        metadata = store.open_table(shard.path).schema.metadata or {}
        tokenizer = metadata.get(b"tokenizer_sha256", b"").decode()
        if tokenizer != dataset.tokenizer.sha256:
            raise _damaged(store, shard, f"was made by tokenizer {tokenizer} instead of {dataset.tokenizer.sha256}")


def _damaged(store: Store, shard: TokenShard, what: str) -> DamagedData:
    return DamagedData(
        f"{store.full_path(shard.path)} {what}",
        "a token shard is what the dataset's manifest says of it",
        "Restore the file, or build the dataset again",
    )


class Documents:
    """The documents of some shards as one sequence; tokens stay in the page cache until they are asked for."""

    def __init__(self, store: Store, shards: Sequence[TokenShard]) -> None:
        self._tokens: list[Tokens] = []
        self._offsets: list[Integers] = []
        lengths: list[Integers] = []
        text_bytes: list[Integers] = []
        for shard in shards:
            reader = store.open_table(shard.path)
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                column: Any = batch.column("tokens")
                self._tokens.append(column.values.to_numpy(zero_copy_only=True))
                offsets = column.offsets.to_numpy(zero_copy_only=True)
                self._offsets.append(offsets)
                lengths.append(np.diff(offsets))
                text_bytes.append(batch.column("text_bytes").to_numpy(zero_copy_only=False))
        self.lengths: Integers = np.concatenate([*lengths, np.empty(0, np.int64)])
        """Tokens of each document."""
        self.text_bytes: Integers = np.concatenate([*text_bytes, np.empty(0, np.int64)])
        """UTF-8 bytes of each document's text."""
        self._first: list[int] = [0, *np.cumsum([len(each) for each in lengths], dtype=np.int64).tolist()]

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, document: int, start: int, count: int) -> Tokens:
        """At most `count` tokens of a document from `start` on, without copying them."""
        block = bisect_right(self._first, document) - 1
        offsets = self._offsets[block]
        begin, end = offsets[document - self._first[block]], offsets[document - self._first[block] + 1]
        return self._tokens[block][begin + start : min(begin + start + count, end)]

    def frequencies(self, vocabulary_size: int) -> Integers:
        """How often each token occurs."""
        counts = np.zeros(vocabulary_size, np.int64)
        for tokens in self._tokens:
            for start in range(0, len(tokens), 1 << 24):  # bincount makes an int64 copy
                counts += np.bincount(tokens[start : start + (1 << 24)], minlength=vocabulary_size)
        return counts


class Stream:
    """Documents concatenated in a given order."""

    def __init__(self, documents: Documents, order: Integers) -> None:
        self._documents, self._order = documents, order
        self._ends: Integers = np.cumsum(documents.lengths[order])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, count: int) -> Integers:
        """Tokens at positions start, ..., start + count - 1, as far as the stream reaches."""
        parts: list[Tokens] = []
        place = int(np.searchsorted(self._ends, start, side="right"))
        while count > 0 and place < len(self._order):
            document = int(self._order[place])
            before = int(self._ends[place]) - int(self._documents.lengths[document])
            parts.append(self._documents.read(document, start - before, count))
            start, count, place = start + len(parts[-1]), count - len(parts[-1]), place + 1
        return np.concatenate(parts, dtype=np.int64) if parts else np.empty(0, np.int64)


class TrainingOrder:
    """Samples in training order; see the module docstring."""

    def __init__(self, documents: Documents, sequence_length: int, seed: int) -> None:
        self._documents, self._length, self._seed = documents, sequence_length, seed
        self.samples_per_epoch = (int(documents.lengths.sum()) - 1) // sequence_length
        if self.samples_per_epoch < 1:
            raise BadInput(
                f"the training split has {int(documents.lengths.sum())} tokens",
                f"one sample takes sequence_length + 1 = {sequence_length + 1} tokens",
                "Lower model.sequence_length, or build a larger dataset",
            )
        self._epoch = -1
        self._stream = Stream(documents, np.empty(0, np.int64))
        self._samples = np.empty(0, np.int64)

    def sample(self, index: int) -> Integers:
        """The sequence_length + 1 tokens of sample `index`, counted from the start of training."""
        epoch, within = divmod(index, self.samples_per_epoch)
        if epoch != self._epoch:
            self._shuffle(epoch)
        return self._stream.read(int(self._samples[within]) * self._length, self._length + 1)

    def _shuffle(self, epoch: int) -> None:
        # The legacy generator, because NumPy promises that its numbers never change.
        random = np.random.RandomState([self._seed, epoch])
        self._stream = Stream(self._documents, random.permutation(len(self._documents)).astype(np.int64))
        self._samples = random.permutation(self.samples_per_epoch)
        self._epoch = epoch


@dataclass(frozen=True)
class Batch:
    """Tensors [sequences, positions] on the rank's device."""

    tokens: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    """1 where the label counts, 0 on padding; float32."""


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
