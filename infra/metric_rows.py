"""Rows of metrics from a file that grows to MLflow, each row once, whoever delivered the ones before it.

The file is the queue: nothing waits in memory, and what one process could not deliver the next one does.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infra.tracking import TrackedRun, client_of

_METRICS_PER_REQUEST = 1000  # MLflow takes no more


class MetricRows:
    """JSON objects, one a line, with `step`, perhaps `time` in milliseconds since 1970, and metrics."""

    def __init__(self, run: TrackedRun, path: Path, key: str) -> None:
        """`key` is a metric of every row, by which the server is asked what it has."""
        self._run, self._path, self._key = run, path, key
        self._file: int | None = None
        self._offset = 0
        self._known: dict[int, float] = {}
        self.last_step = 0
        """Of the rows that were delivered."""

    def deliver(self) -> int:
        """Send the whole lines that are new, and say how many; infra.tracking.tracking_errors() on no answer."""
        if not self._path.exists():
            return 0
        client, sent = client_of(self._run), 0
        with self._path.open("rb") as file:
            self._find_place(client, file)
            for rows, offset in _batches(file, self._known, self._key):
                log_rows(client, self._run.run_id, rows)
                self._offset, sent = offset, sent + len(rows)
                self.last_step = int(rows[-1]["step"]) if rows else self.last_step
        return sent

    def _find_place(self, client: Any, file: Any) -> None:
        """Where to read on; from the start in a new file, of which the server may have rows of an earlier process.

        Such a row is known by its step and its `key`: a step that was made again with another result is sent again.
        """
        number, size = os.fstat(file.fileno()).st_ino, file.seek(0, os.SEEK_END)
        if number != self._file or size < self._offset:
            history = client.get_metric_history(self._run.run_id, self._key) if size else ()
            self._known = {metric.step: metric.value for metric in history}
            self._file, self._offset = number, 0
        file.seek(self._offset)


def _batches(file: Any, known: Mapping[int, float], key: str) -> Iterator[tuple[list[dict[str, float]], int]]:
    """Rows of one request each, and where the file goes on behind them."""
    rows: list[dict[str, float]] = []
    metrics, offset = 0, file.tell()
    for line in file:
        if not line.endswith(b"\n"):
            break
        row = json.loads(line)
        if known.get(int(row["step"])) != row.get(key):
            if rows and metrics + len(row) > _METRICS_PER_REQUEST:
                yield rows, offset
                rows, metrics = [], 0
            rows.append(row)
            metrics += len(row)
        offset += len(line)
    yield rows, offset


def log_rows(client: Any, run_id: str, rows: list[dict[str, float]]) -> None:
    """Send rows in one request."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [
        Metric(key, float(value), int(row.get("time", now)), int(row["step"]))
        for row in rows
        for key, value in row.items()
        if key not in ("step", "time")
    ]
    if metrics:
        client.log_batch(run_id, metrics=metrics)
