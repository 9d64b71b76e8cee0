"""The documents of token shards, read in place from memory maps."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.manifest import TokenShard
from infra.store import Store

Tokens = npt.NDArray[np.unsignedinteger[Any]]
Integers = npt.NDArray[np.signedinteger[Any]]


class Documents:
    """The documents of some shards as one sequence; tokens stay in the page cache until they are asked for."""

    def __init__(self, store: Store, shards: Sequence[TokenShard]) -> None:
        self.shards = tuple(shards)
        self._batches: list[pa.RecordBatch] = []
        self._shard_of_batch: list[int] = []
        for number, shard in enumerate(self.shards):
            reader = store.open_table(shard.path)
            self._batches += [reader.get_batch(index) for index in range(reader.num_record_batches)]
            self._shard_of_batch += [number] * reader.num_record_batches
        columns: list[Any] = [batch.column("tokens") for batch in self._batches]
        self._tokens: list[Tokens] = [column.values.to_numpy(zero_copy_only=True) for column in columns]
        self._offsets: list[Integers] = [column.offsets.to_numpy(zero_copy_only=True) for column in columns]
        lengths = [np.diff(offsets).astype(np.int32) for offsets in self._offsets]
        self.lengths: Integers = np.concatenate([*lengths, np.empty(0, np.int32)])
        """Tokens of each document: int32, because there are very many in memory."""
        self._first: list[int] = [0, *np.cumsum([len(each) for each in lengths], dtype=np.int64).tolist()]

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def text_bytes(self) -> Integers:
        """UTF-8 bytes of each document's text."""
        columns = [batch.column("text_bytes").to_numpy(zero_copy_only=False) for batch in self._batches]
        return np.concatenate([*columns, np.empty(0, np.int64)])

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of the shards beside the tokens: doc_id, source, language, bucket."""
        return pa.chunked_array([batch.column(name) for batch in self._batches])

    def read(self, document: int, start: int, count: int) -> Tokens:
        """At most `count` tokens of a document from `start` on, without copying them."""
        block = bisect_right(self._first, document) - 1
        offsets = self._offsets[block]
        row = document - self._first[block]
        begin = offsets[row] + start
        return self._tokens[block][begin : min(begin + count, offsets[row + 1])]

    def name(self, document: int) -> str:
        """The id of a document; copies that a mixture made of one differ in what follows a #."""
        block = bisect_right(self._first, document) - 1
        return self._batches[block].column("doc_id")[document - self._first[block]].as_py()

    def shard(self, document: int) -> TokenShard:
        """The shard that holds a document."""
        return self.shards[self._shard_of_batch[bisect_right(self._first, document) - 1]]

    def frequencies(self, vocabulary_size: int, count: int | None = None) -> Integers:
        """How often each token occurs, in all documents or in the first `count`."""
        counts = np.zeros(vocabulary_size, np.int64)
        left = int(self.lengths[:count].sum())
        for tokens, offsets in zip(self._tokens, self._offsets, strict=True):
            own = tokens[offsets[0] : offsets[-1]][:left]
            left -= len(own)
            for start in range(0, len(own), 1 << 24):  # bincount makes an int64 copy
                counts += np.bincount(own[start : start + (1 << 24)], minlength=vocabulary_size)
        return counts
