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
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

from infra.store import Store

BATCH_ROWS = 1 << 14
RUN_BATCHES = 64
KEY_END = 1 << 64
_ROWS_FOR_EACH_OPENING = 512
_POINTS_OF_BATCH = 8


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


class RunSorter:
    """Makes the record batches of a run file out of tables that come one by one; a run is all that it holds.

    Rows of equal keys keep the order in which they came, so the batches depend on the rows alone and not on how they
    were cut into tables. A reader needs the same `run_batches`.
    """

    def __init__(self, key: str = "key", batch_rows: int = BATCH_ROWS, run_batches: int = RUN_BATCHES) -> None:
        self._key, self._batch_rows, self._run_rows = key, batch_rows, batch_rows * run_batches
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def add(self, table: pa.Table) -> Iterator[pa.Table]:
        """Take the rows of a table and yield the batches that are ready, to be written in this order."""
        self._waiting.append(table)
        self._rows += table.num_rows
        if self._rows < self._run_rows:
            return
        joined = pa.concat_tables(self._waiting)
        whole = self._rows - self._rows % self._run_rows
        for start in range(0, whole, self._run_rows):
            yield from self._sorted(joined.slice(start, self._run_rows))
        self._waiting, self._rows = [joined.slice(whole).combine_chunks()], self._rows - whole

    def finish(self) -> Iterator[pa.Table]:
        """Yield the batches of the last run."""
        if self._rows:
            yield from self._sorted(pa.concat_tables(self._waiting))
        self._waiting, self._rows = [], 0

    def _sorted(self, run: pa.Table) -> Iterator[pa.Table]:
        order = np.argsort(keys_of(run, self._key), kind="stable")
        for start in range(0, len(order), self._batch_rows):
            yield run.take(pa.array(order[start : start + self._batch_rows])).combine_chunks()


def sorted_batches(
    tables: Iterable[pa.Table], key: str = "key", batch_rows: int = BATCH_ROWS, run_batches: int = RUN_BATCHES
) -> Iterator[pa.Table]:
    """Yield the rows of some tables as the record batches of a run file, in the order to write them."""
    sorter = RunSorter(key, batch_rows, run_batches)
    for table in tables:
        yield from sorter.add(table)
    yield from sorter.finish()


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
    """Copies of the rows of a key range from one or more run files (at least one), one file after another.

    One file is mapped at a time: the mapped pages around the rows of many files may be more than the rows.
    """
    found: list[pa.Table] = []
    for path in paths:
        part = read_range(store, path, keys.low, keys.high, key, run_batches)
        found.append(part.take(pa.array(np.arange(part.num_rows))) if part.num_rows else part.schema.empty_table())
    return pa.concat_tables(found)


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


def take_keys(store: Store, path: str, keys: np.ndarray, columns: Sequence[str], key: str = "key") -> pa.Table:
    """Copies of the rows that have the given keys, in their order, from a file that is one run of distinct keys.

    Keys are sorted uint64, each there; a KeyError names one that is not. The file is opened anew after some hundred
    rows: pages of a memory map count as memory of the process until it is closed.
    """
    taken = [
        batch
        for start in range(0, len(keys), _ROWS_FOR_EACH_OPENING)
        for batch in _take(store, path, keys[start : start + _ROWS_FOR_EACH_OPENING], columns, key)
    ]
    return pa.Table.from_batches(taken)


def _take(store: Store, path: str, keys: np.ndarray, columns: Sequence[str], key: str) -> Iterator[pa.RecordBatch]:
    reader = store.open_table(path)
    index, done = reader.schema.get_field_index(key), 0
    number = 0
    while done < len(keys):
        number = _first_batch(reader, range(number, reader.num_record_batches), int(keys[done]) + 1, index)
        batch = reader.get_batch(number)
        values = batch.column(index).to_numpy()
        stop = done + int(np.searchsorted(keys[done:], values[-1], side="right"))
        rows = np.searchsorted(values, keys[done:stop])
        if stop == done or (values[rows] != keys[done:stop]).any():
            raise KeyError(f"{path}: a key from {keys[done]} on is missing")
        yield batch.select(list(columns)).take(pa.array(rows))
        done = stop


def plan_ranges(store: Store, paths: Sequence[str], max_bytes: int, key: str = "key") -> list[KeyRange]:
    """Cut all keys into ranges whose rows, over all files, hold about `max_bytes` bytes or less: at least one range.

    Only the first and the last key of each batch are read, and its rows taken for evenly spread between them. A key is
    never cut, so a range is larger where a single key has more rows than fit.
    """
    firsts: list[int] = []
    lasts: list[int] = []
    sizes: list[int] = []
    for path in paths:
        reader = store.open_table(path)
        index = reader.schema.get_field_index(key)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            if batch.num_rows:
                values = batch.column(index).to_numpy()
                firsts.append(int(values[0]))
                lasts.append(int(values[-1]))
                sizes.append(batch.nbytes)
    first, last = np.array(firsts, np.uint64), np.array(lasts, np.uint64)
    steps = np.arange(_POINTS_OF_BATCH, dtype=np.uint64)
    points = first[:, None] + (last - first)[:, None] // np.uint64(_POINTS_OF_BATCH) * steps
    weights = np.repeat(np.array(sizes, np.float64) / _POINTS_OF_BATCH, _POINTS_OF_BATCH)
    order = np.argsort(points.ravel(), kind="stable")
    cuts = _cuts(points.ravel()[order], np.cumsum(weights[order]), max_bytes)
    return [KeyRange(low, high) for low, high in pairwise([0, *cuts, KEY_END])]


def _cuts(points: np.ndarray, ends: np.ndarray, max_bytes: int) -> list[int]:
    """Ascending keys at which to cut, given sorted points and the bytes up to and with each."""
    cuts: list[int] = []
    start = 0
    while start < len(points):
        before = ends[start - 1] if start else 0.0
        stop = max(int(np.searchsorted(ends, before + max_bytes, side="right")), start + 1)
        stop = max(stop, int(np.searchsorted(points, points[start], side="right")))
        if stop < len(points):
            cuts.append(int(points[stop]))
        start = stop
    return cuts
