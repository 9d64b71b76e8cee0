"""Sorted runs: tables of any size, sorted by a 64-bit key on disk, and read back one key range at a time.

This is how a stage joins or groups rows of the whole corpus in bounded memory. Each shard writes its own rows as
*runs*; each task of the next stage takes one *key range* and reads from every run only the rows of its range.

A *run file* is an uncompressed Arrow IPC file (a stage declares `compressed=False`) with a uint64 key column without
nulls. It holds runs one after another, each of RUN_BATCHES record batches of BATCH_ROWS rows, but for the last run and
its last batch. Inside a run the keys ascend. So writing holds one run in memory, and finding a key costs a binary
search over batches in each run; local files are memory-mapped and only the pages of the range are touched.

    first stage    for table in sorted_batches(tables, "key"): yield Split(kept=table)
    between        ranges = plan_ranges(store, paths, max_bytes)    ->    one source `str(range)` for each shard
    second stage   rows = read_ranges(store, paths, KeyRange.parse(source))
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

from infra.store import Store

BATCH_ROWS = 1 << 14
RUN_BATCHES = 64
KEY_END = 1 << 64


@dataclass(frozen=True, order=True)
class KeyRange:
    """The keys from `low` up to `high`, which is not one of them; `KEY_END` is beyond all keys."""

    low: int = 0
    high: int = KEY_END

    def __str__(self) -> str:
        return f"{self.low:017x}-{self.high:017x}"

    @classmethod
    def parse(cls, text: str) -> "KeyRange":
        """The range that `str` wrote: two hexadecimal numbers with a hyphen between them."""
        low, high = text.split("-")
        return cls(int(low, 16), int(high, 16))


def sorted_batches(
    tables: Iterable[pa.Table], key: str = "key", batch_rows: int = BATCH_ROWS, run_batches: int = RUN_BATCHES
) -> Iterator[pa.Table]:
    """Yield the rows of some tables as the record batches of a run file, in the order to write them.

    Rows of equal keys keep the order in which they came, so the result depends on the rows alone and not on how they
    were cut into tables. Memory: one run of batch_rows x run_batches rows, twice. A reader needs the same run_batches.
    """
    waiting: list[pa.Table] = []
    rows, run_rows = 0, batch_rows * run_batches
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        while rows >= run_rows:
            joined = pa.concat_tables(waiting)
            yield from _batches(joined.slice(0, run_rows), key, batch_rows)
            waiting = [joined.slice(run_rows)]
            rows -= run_rows
    if rows:
        yield from _batches(pa.concat_tables(waiting), key, batch_rows)


def _batches(run: pa.Table, key: str, batch_rows: int) -> Iterator[pa.Table]:
    order = np.argsort(keys_of(run, key), kind="stable")
    for start in range(0, len(order), batch_rows):
        yield run.take(pa.array(order[start : start + batch_rows])).combine_chunks()


def keys_of(table: pa.Table, key: str = "key") -> np.ndarray:
    """The key column as an array of uint64."""
    return cast("np.ndarray", table[key].to_numpy())


def read_range(
    store: Store, path: str, low: int, high: int, key: str = "key", run_batches: int | None = RUN_BATCHES
) -> pa.Table:
    """The rows of one run file with low <= key < high, run after run: sorted where the file has one run.

    The columns point into the memory map, so nothing is copied. `run_batches=None` says that the whole file is one
    run, whatever the sizes of its batches. Errors: DamagedData if it is no Arrow IPC file.
    """
    reader = store.open_table(path)
    count = reader.num_record_batches
    step = run_batches or max(count, 1)
    found: list[pa.RecordBatch] = []
    for start in range(0, count, step):
        found += _read_run(reader, range(start, min(start + step, count)), low, high, key)
    return pa.Table.from_batches(found, reader.schema)


def read_ranges(
    store: Store, paths: Iterable[str], keys: KeyRange, key: str = "key", run_batches: int | None = RUN_BATCHES
) -> pa.Table:
    """The rows of a key range from one or more run files (at least one), one file after another; nothing is copied."""
    return pa.concat_tables([read_range(store, path, keys.low, keys.high, key, run_batches) for path in paths])


def _read_run(
    reader: ipc.RecordBatchFileReader, batches: range, low: int, high: int, key: str
) -> Iterator[pa.RecordBatch]:
    """Slices of the batches of one run that hold keys of the range."""
    index = reader.schema.get_field_index(key)
    for number in range(_first_batch(reader, batches, low, index), batches.stop):
        batch = reader.get_batch(number)
        values = batch.column(index).to_numpy()
        if not len(values):
            continue
        if high < KEY_END and values[0] >= np.uint64(high):
            return
        start = int(np.searchsorted(values, np.uint64(low)))
        stop = len(values) if high >= KEY_END else int(np.searchsorted(values, np.uint64(high)))
        if stop > start:
            yield batch.slice(start, stop - start)


def _first_batch(reader: ipc.RecordBatchFileReader, batches: range, low: int, index: int) -> int:
    """The last batch whose first key is below `low`: equal keys may begin at its end. An empty batch says nothing."""
    first, last = batches.start, batches.stop - 1
    while first < last:
        middle = (first + last + 1) // 2
        values = reader.get_batch(middle).column(index).to_numpy()
        if len(values) and values[0] < np.uint64(low):
            first = middle
        else:
            last = middle - 1
    return first


def plan_ranges(store: Store, paths: Sequence[str], max_bytes: int, key: str = "key") -> list[KeyRange]:
    """Cut all keys into ranges whose rows, over all files, hold about `max_bytes` bytes or less: at least one range.

    Only the first key of each batch is read. A range may exceed the bound by one batch of each run, and where a
    single key has more rows than fit, because a key is never cut.
    """
    fences: list[tuple[int, int]] = []
    for path in paths:
        reader = store.open_table(path)
        index = reader.schema.get_field_index(key)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            if batch.num_rows:
                fences.append((int(cast("Any", batch.column(index))[0].as_py()), batch.nbytes))
    return _cut(sorted(fences), max_bytes)


def _cut(fences: Sequence[tuple[int, int]], max_bytes: int) -> list[KeyRange]:
    cuts, held = [0], 0
    for key, size in fences:
        if held and held + size > max_bytes and key > cuts[-1]:
            cuts.append(key)
            held = 0
        held += size
    return [KeyRange(low, high) for low, high in pairwise([*cuts, KEY_END])]
