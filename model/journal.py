"""What training tells of its steps: lines in metrics.jsonl, metrics in MLflow, now and then a line to read."""

import json
import logging
from typing import IO

from infra.store import Store
from infra.tracking import MetricWriter, log_file
from model.run import RunRecord, load_launch, read_metrics, truncate_metrics

logger = logging.getLogger(__name__)


class Journal:
    """Belongs to the one rank that reports; opening it drops rows of steps that will be made again."""

    def __init__(self, store: Store, run: RunRecord, step: int) -> None:
        self._run_dir = store.local_path(run.folder)
        self._log_every, self._steps = run.training.log_every, run.steps
        earlier = truncate_metrics(self._run_dir, step)
        self._file: IO[str] = (self._run_dir / "metrics.jsonl").open("a")
        self._tracked = load_launch(store, run).tracked
        self._writer = MetricWriter(self._tracked, "loss", earlier) if self._tracked else None

    def add(self, row: dict[str, float]) -> None:
        """Record one step: step, loss, learning_rate, gradient_norm, tokens_per_second and tokens so far."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._writer:
            self._writer.add(row)
        step = int(row["step"])
        if step % self._log_every == 0 or step in (1, self._steps):
            logger.info(
                "step %d/%d  loss %.4f  lr %.2e  norm %.2f  %s tokens/s",
                step,
                self._steps,
                row["loss"],
                row["learning_rate"],
                row["gradient_norm"],
                f"{row['tokens_per_second']:,.0f}",
            )
            if self._writer:
                self._writer.flush()

    def close(self) -> None:
        """Deliver what waits and leave metrics.jsonl complete."""
        self._file.close()
        if self._writer and self._tracked:
            self._writer.flush(last=True)
            log_file(self._tracked, self._run_dir / "metrics.jsonl")

    def losses(self) -> tuple[float, float]:
        """Losses of the first and the last step of the whole run."""
        rows = read_metrics(self._run_dir)
        return rows[0]["loss"], rows[-1]["loss"]
