"""The documents of token shards, read in place from memory maps."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.manifest import TokenShard
from infra.store import Store

Tokens = npt.NDArray[np.unsignedinteger[Any]]
Integers = npt.NDArray[np.int64]


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
