"""Training as Prefect's pages show it while it runs, from the end of the run's metrics.jsonl."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.panels import Panel, Panels, Shown
from infra.report import duration
from infra.store import Store
from model.run import RunRecord

PROGRESS_SECONDS = 2.0
TABLE_SECONDS = 5.0
ROWS = 20
"""Steps that the table shows."""
TAIL_BYTES = 32_768
"""More than so many rows need."""
SHOWN = ("step", "loss", "learning_rate", "gradient_norm", "tokens", "tokens_per_second")


@contextmanager
def watched_training(store: Store, run: RunRecord, links: dict[str, str | None]) -> Iterator[None]:
    """Inside a flow run: show progress and the last steps, and at the beginning links to pages by name."""
    file = store.local_path(run.folder) / "metrics.jsonl"
    with Panels() as panels:
        panels.show_links(links)
        shows = [
            Panel("progress", "progress-training", lambda: progress(file, run.steps), PROGRESS_SECONDS, ticking=True),
            Panel("table", "training-steps", lambda: last_steps(file), TABLE_SECONDS, ticking=True),
        ]
        for panel in shows:
            panels.open(panel)
        yield


def progress(file: Path, steps: int) -> Shown:
    """How far training is, of so many steps."""
    rows = tail(file)
    if not rows:
        return Shown(0.0, f"training: starting, {steps:,} steps")
    step, last = int(rows[-1]["step"]), rows[-1]
    left = duration(sum(row["seconds"] for row in rows) / len(rows) * (steps - step))
    told = f"training: step {step:,}/{steps:,}, loss {last['loss']:.4f}, {last['tokens_per_second']:,.0f} tokens/s"
    return Shown(100.0 * step / steps, told if step == steps else f"{told}, {left} left")


def last_steps(file: Path) -> Shown:
    """The last steps as a table, the latest first."""
    rows = [{name: row.get(name) for name in SHOWN} for row in reversed(tail(file))]
    return Shown(json.dumps(rows), "The last steps; all of them are in MLflow and in metrics.jsonl")


def tail(file: Path) -> list[dict[str, float]]:
    """The last rows of metrics.jsonl that are whole; none if there is no such file yet."""
    try:
        with file.open("rb") as lines:
            start = max(0, lines.seek(0, 2) - TAIL_BYTES)
            lines.seek(start)
            read = lines.read()
    except FileNotFoundError:
        return []
    whole = read[: read.rfind(b"\n") + 1].splitlines()[1 if start else 0 :]
    return [json.loads(line) for line in whole[-ROWS:]]
