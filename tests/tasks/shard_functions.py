"""Shard functions that fail in some way, where Dask workers and other processes can import them."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from infra.errors import BadInput
from infra.schema import QUARANTINE
from infra.settings import Settings
from infra.store import Store
from tasks.stage import Split, Stage, drop

NUMBERS = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("number", pa.int64())])
COUNTING = Stage("counting", 1, NUMBERS, {"quarantined": QUARANTINE})


class CountSettings(Settings):
    """Settings of the counting stage."""

    rows: int = 30
    """Rows of each shard."""


def numbers(source: str, start: int, stop: int) -> pa.Table:
    """Rows of NUMBERS that depend on the source alone."""
    values = range(start, stop)
    return pa.table([[f"{source}-{value}" for value in values], list(values)], schema=NUMBERS)


def count(_: Store, source: str, settings: CountSettings) -> Iterator[Split]:
    """Three batches: multiples of three are dropped, one row of each batch is quarantined."""
    third = settings.rows // 3
    for start in range(0, settings.rows, third):
        table = numbers(source, start, start + third)
        wanted = pa.array([value % 3 != 0 for value in range(start, start + third)])
        unwanted = pa.array([value % 3 == 0 for value in range(start, start + third)])
        gone = table.filter(unwanted).select(["id"])
        broken = {"source": "c", "file": source, "offset": start, "url": None, "reason": "odd", "detail": None}
        yield Split(
            table.filter(wanted),
            drop(gone, "counting", ["multiple_of_three"] * gone.num_rows, [float(start)] * gone.num_rows),
            {"quarantined": pa.Table.from_pylist([broken], schema=QUARANTINE)},
            {"batches": 1, "seen": third},
        )


@dataclass(frozen=True)
class DiesOnce:
    """Counts, but the first time that it makes a shard, its process is killed in the middle of writing."""

    folder: Path
    source: str

    def __call__(self, store: Store, source: str, settings: CountSettings) -> Iterator[Split]:
        for index, split in enumerate(count(store, source, settings)):
            yield split
            marker = self.folder / "died"
            if index == 1 and source == self.source and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Stalls:
    """Counts, but one shard stops in the middle for as long as a file stands."""

    folder: Path
    source: str

    def __call__(self, store: Store, source: str, settings: CountSettings) -> Iterator[Split]:
        for index, split in enumerate(count(store, source, settings)):
            yield split
            if index == 1 and source == self.source:
                (self.folder / "stalled").touch()
                while (self.folder / "stall").exists():
                    time.sleep(0.05)


@dataclass(frozen=True)
class Incomplete:
    """Counts, but a shard ends early as long as a file stands."""

    marker: Path
    source: str

    def __call__(self, store: Store, source: str, settings: CountSettings) -> Iterator[Split]:
        for split in count(store, source, settings):
            if source == self.source and self.marker.exists():
                yield Split(NUMBERS.empty_table(), incomplete=True)
                return
            yield split


def stumble(store: Store, source: str, settings: CountSettings) -> Iterator[Split]:
    """Count, and count mishaps too."""
    for split in count(store, source, settings):
        yield replace(split, telemetry={"stumbles": 1, "falls": 0})


def fail(_: Store, source: str, settings: CountSettings) -> Iterator[Split]:
    """Fail on one shard, after output has been written."""
    yield Split(numbers(source, 0, 10))
    if source == "b":
        raise ArithmeticError("cannot go on")


def fail_no_more(_: Store, source: str, settings: CountSettings) -> Iterator[Split]:
    """What `fail` leaves of a shard that it does not fail on."""
    yield Split(numbers(source, 0, 10))


def fail_long(_: Store, source: str, settings: CountSettings) -> Iterator[Split]:
    """Fail on every shard, with a message that quotes a document."""
    raise ValueError("a line\n" * 1000)
    yield


def refuse(_: Store, source: str, settings: CountSettings) -> Iterator[Split]:
    """Refuse the user's input."""
    raise BadInput(f"source {source}", "a rule", "A remedy")
    yield
