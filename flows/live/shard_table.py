"""The shards of a running stage as a table: totals first, then shards that failed, lost records or took longest."""

import heapq
import json
from collections import Counter
from collections.abc import Mapping
from itertools import count
from typing import Any

from infra.manifest import ShardRecord
from tasks.observer import FailedShard, MadeShard

ROWS = 200
"""Shards that the table lists; all of them are in its totals."""


class ShardTable:
    """Takes one shard after the other and keeps those that are worth listing."""

    def __init__(self, folder: str) -> None:
        """The stage's folder, relative to the root, where quarantined records are found."""
        self._folder = folder
        self._numbers = count()
        self._listed: list[tuple[tuple[bool, int, float], int, dict[str, Any]]] = []
        self._totals = Counter[str]()
        self._quarantined = Counter[str]()

    def add_reused(self, record: ShardRecord) -> None:
        """Take a shard that an earlier run made."""
        self._add("reused", record, None)

    def add(self, made: MadeShard) -> None:
        """Take a shard of this run."""
        self._add("done", made.record, made.seconds)

    def add_failed(self, failed: FailedShard) -> None:
        """Take a shard that could not be made."""
        self._totals["failed"] += 1
        self._list((True, 0, 0.0), _row(failed.source, "failed", why=failed.reason))

    def _add(self, state: str, record: ShardRecord, seconds: float | None) -> None:
        unreadable = record.others.get("quarantined")
        lost = unreadable.rows if unreadable else 0
        numbers = {"in": record.rows_in, "kept": record.kept.rows, "dropped": record.dropped.rows, "quarantined": lost}
        self._totals.update({"done": 1, state: 1} if state != "done" else {"done": 1})
        self._totals.update(numbers)
        self._quarantined.update(record.quarantined)
        speed = record.rows_in / seconds if seconds else None
        why = f"{reasons(record.quarantined)}: {self._folder}/{unreadable.path}" if unreadable and lost else ""
        state = "incomplete" if record.incomplete else state
        self._list((False, lost, seconds or 0.0), _row(record.source, state, numbers, speed, why))

    def _list(self, worth: tuple[bool, int, float], row: dict[str, Any]) -> None:
        entry = (worth, -next(self._numbers), row)  # of equal ones, the first comes first
        if len(self._listed) < ROWS:
            heapq.heappush(self._listed, entry)
        elif entry > self._listed[0]:
            heapq.heapreplace(self._listed, entry)

    @property
    def totals(self) -> Mapping[str, int]:
        """Shards that are done (of them reused) and failed; records in, kept, dropped and quarantined."""
        return self._totals

    def rows(self, shards: int, documents_per_second: float | None) -> list[dict[str, Any]]:
        """The table, given how many shards there are and the speed of the whole stage."""
        done, failed, reused = (self._totals[name] for name in ("done", "failed", "reused"))
        state = f"{done:,} done" + (f", {reused:,} of them before" if reused else "")
        state += f", {failed:,} failed" if failed else ""
        numbers = {name: self._totals[name] for name in ("in", "kept", "dropped", "quarantined")}
        where = f": {self._folder}/quarantined" if self._quarantined else ""
        whole = _row(f"all {shards:,} shards", state, numbers, documents_per_second, reasons(self._quarantined) + where)
        return [whole, *(row for _, _, row in sorted(self._listed, key=lambda entry: entry[:2], reverse=True))]

    def as_json(self, shards: int, documents_per_second: float | None) -> str:
        """The rows as a table artifact takes them."""
        return json.dumps(self.rows(shards, documents_per_second))


def _row(
    source: str, state: str, numbers: Mapping[str, int] | None = None, speed: float | None = None, why: str = ""
) -> dict[str, Any]:
    counts = dict.fromkeys(("in", "kept", "dropped", "quarantined")) | dict(numbers or {})
    return {
        "shard": source,
        "state": state,
        **counts,
        "documents/s": None if speed is None else round(speed, 1),
        "why": why,
    }


def reasons(counts: Mapping[str, int]) -> str:
    """Reason codes with their counts, the most frequent first."""
    return ", ".join(f"{reason} {number:,}" for reason, number in sorted(counts.items(), key=lambda each: -each[1]))
