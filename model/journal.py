"""What training tells of its steps: lines in metrics.jsonl, now and then a line to read. model.tracker tells MLflow.

A row has step, time in milliseconds since 1970, loss (and, where training.loss adds to it, objective and z_loss),
learning_rate, gradient_norm, batch_size, tokens so far, tokens_per_second of the step itself; since the row before,
seconds, and of them the seconds of each kind that model.timing tells apart; devices, memory_gib of the reporting
process, and by `seconds` tokens_per_second_per_device, tflops_per_device and, where the device's peak is known, mfu.
"""

import json
import logging
import time
from typing import IO

from infra.store import Store
from model.estimates.speed import SpeedOf, SpeedSummary, progress_line
from model.run import RunRecord, read_metrics, truncate_metrics
from model.timing import KINDS

logger = logging.getLogger(__name__)


class Journal:
    """Belongs to the one rank that reports; opening it drops rows of steps that will be made again."""

    def __init__(self, store: Store, run: RunRecord, step: int, device: str) -> None:
        """`step` is the last one made; `device` is the name of the rank's."""
        self._run_dir, self._run, self._device = store.local_path(run.folder), run, device
        self._speed = SpeedOf.run(run.training, run.vocabulary_size, device)
        earlier = truncate_metrics(self._run_dir, step)
        self._file: IO[str] = (self._run_dir / "metrics.jsonl").open("a")
        self._told = self._last = time.monotonic()
        self._tokens = self._told_tokens = int(earlier[-1]["tokens"]) if earlier else 0

    def add(self, row: dict[str, float]) -> None:
        """Record the row of one step; see the module docstring, where this adds what follows from the clock."""
        now, tokens = time.monotonic(), int(row["tokens"])
        seconds = now - self._last
        row = {
            "time": int(time.time() * 1000),
            **row,
            "seconds": seconds,
            **self._speed.metrics(tokens - self._tokens, seconds * row["devices"]),
        }
        self._last, self._tokens = now, tokens
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        step = int(row["step"])
        if step % self._run.training.log_every == 0 or step in (1, self._run.steps):
            self._tell(row, step)

    def _tell(self, row: dict[str, float], step: int) -> None:
        """One line, with the speed of all steps since the last one."""
        training, passed = self._run.training, self._last - self._told
        tokens = self._tokens - self._told_tokens
        whole = training.batches.samples(self._run.steps) * training.model.sequence_length
        left = (whole - self._tokens) * passed / max(tokens, 1)
        since = self._speed.metrics(tokens, passed * row["devices"])
        logger.info(progress_line({**row, **since}, self._run.steps, left))
        self._told, self._told_tokens = self._last, self._tokens

    def close(self) -> None:
        """Leave metrics.jsonl complete."""
        self._file.close()

    def losses(self) -> tuple[float, float]:
        """Losses of the first and the last step of the whole run."""
        rows = read_metrics(self._run_dir)
        return rows[0]["loss"], rows[-1]["loss"]

    def speed(self, memory: float) -> SpeedSummary:
        """Of the whole run, of which a process had so many GiB at most."""
        return self._speed.summary(read_metrics(self._run_dir), KINDS, self._device, memory)
