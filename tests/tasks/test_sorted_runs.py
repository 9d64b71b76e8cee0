"""Sorted runs: what a range holds equals a plain filter, however rows were cut into tables, runs and ranges."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import pytest

from infra.store import Store
from tasks.sorted_runs import KEY_END, KeyRange, plan_ranges, read_range, read_ranges, sorted_batches, take_keys

SCHEMA = pa.schema([pa.field("key", pa.uint64(), nullable=False), pa.field("row", pa.int64())])


def rows(keys: np.ndarray) -> pa.Table:
    return pa.table([pa.array(keys, pa.uint64()), pa.array(np.arange(len(keys)))], schema=SCHEMA)


def write(store: Store, path: str, table: pa.Table, cut: int = 1000, run_batches: int = 4) -> None:
    tables = [table.slice(start, cut) for start in range(0, table.num_rows, cut)]
    with ipc.new_file(str(store.local_path(path)), SCHEMA) as writer:
        for batch in sorted_batches(tables, batch_rows=100, run_batches=run_batches):
            writer.write_table(batch)


def expected(table: pa.Table, low: int, high: int) -> list[int]:
    return sorted(
        row for key, row in zip(table["key"].to_pylist(), table["row"].to_pylist(), strict=True) if low <= key < high
    )


KEYS = np.random.default_rng(7).integers(0, 1 << 64, 1234, dtype=np.uint64)
HEAVY = np.sort(np.random.default_rng(8).integers(0, 9, 1234, dtype=np.uint64))
HEAVY[-1] = np.uint64(KEY_END - 1)


@pytest.mark.parametrize("keys", [KEYS, HEAVY, KEYS[:0], KEYS[:1], np.full(900, 5, np.uint64)])
@pytest.mark.parametrize("cut", [7, 400, 5000])
def test_a_range_holds_what_a_filter_would(tmp_path: Path, keys: np.ndarray, cut: int) -> None:
    store, table = Store(str(tmp_path)), rows(keys)
    write(store, "run", table, cut)
    for low, high in [(0, KEY_END), (0, 5), (5, 6), (6, KEY_END), (1 << 62, 3 << 62), (KEY_END - 1, KEY_END), (3, 3)]:
        found = read_range(store, "run", low, high, run_batches=4)
        assert sorted(found["row"].to_pylist()) == expected(table, low, high)
    assert found.schema == SCHEMA


def test_bytes_do_not_depend_on_how_the_rows_were_cut(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write(store, "a", rows(HEAVY), 3)
    write(store, "b", rows(HEAVY), 5000)
    assert store.read_bytes("a") == store.read_bytes("b")


def test_a_file_of_one_run_is_read_in_order_and_equal_keys_keep_theirs(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write(store, "run", rows(HEAVY), run_batches=1000)
    found = read_range(store, "run", 0, KEY_END, run_batches=None)
    pairs = list(zip(found["key"].to_pylist(), found["row"].to_pylist(), strict=True))
    assert pairs == sorted(pairs)


@pytest.mark.parametrize("max_bytes", [1, 5_000, 20_000, 1 << 30])
def test_planned_ranges_cover_all_keys_once_and_fit(tmp_path: Path, max_bytes: int) -> None:
    store = Store(str(tmp_path))
    for name, keys in (("a", KEYS), ("b", KEYS[::-1] + np.uint64(1)), ("empty", KEYS[:0])):
        write(store, name, rows(keys))
    ranges = plan_ranges(store, ["a", "b", "empty"], max_bytes)
    assert ranges[0].low == 0
    assert ranges[-1].high == KEY_END
    assert all(one.high == two.low for one, two in pairwise(ranges))
    sizes = [read_ranges(store, ["a", "b", "empty"], each, run_batches=4).num_rows for each in ranges]
    assert sum(sizes) == 2 * len(KEYS)
    runs_of_both_files = 2 * 4
    assert max(sizes) * 16 <= max_bytes + (runs_of_both_files + 1) * 100 * 16
    if max_bytes == 1 << 30:
        assert ranges == [KeyRange()]


def test_a_range_is_written_and_read_as_text() -> None:
    for each in (KeyRange(), KeyRange(1, 2), KeyRange(KEY_END - 1, KEY_END)):
        assert KeyRange.parse(str(each)) == each


def test_nothing_to_plan_gives_one_range(tmp_path: Path) -> None:
    assert plan_ranges(Store(str(tmp_path)), [], 1) == [KeyRange()]


def test_rows_are_taken_by_their_keys(tmp_path: Path) -> None:
    store, table = Store(str(tmp_path)), rows(np.arange(0, 3000, 3, dtype=np.uint64))
    write(store, "run", table, run_batches=1000)
    keys = np.arange(0, 3000, 9, dtype=np.uint64)
    assert take_keys(store, "run", keys, ["row"])["row"].to_pylist() == list(range(0, 1000, 3))
    assert take_keys(store, "run", keys[-1:], ["row"])["row"].to_pylist() == [999]
    for absent in (1, 2998, 1 << 40):
        with pytest.raises(KeyError):
            take_keys(store, "run", np.array([0, absent], np.uint64), ["row"])
