"""Training and evaluation as Prefect's pages show them while they run.

Training is read from the end of the run's metrics.jsonl, evaluation from the lines in which its ranks say how far they
are (model/evaluation/harness.py).
"""

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.live.panels import Panel, Panels, Shown
from infra.report import duration
from infra.store import Store
from model.run import RunRecord

logger = logging.getLogger(__name__)
PROGRESS_SECONDS = 2.0
TABLE_SECONDS = 5.0
ROWS = 20
"""Steps that the table shows."""
TAIL_BYTES = 32_768
"""More than so many rows need."""
SHOWN = ("step", "loss", "learning_rate", "gradient_norm", "tokens", "tokens_per_second")


_DONE_OF_ALL = re.compile(r"([\d,]+) of ([\d,]+) \S+, [\d.]+ a second$")


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


@contextmanager
def watched_evaluation() -> Iterator[Callable[[str], None]]:
    """Inside a flow run: show how many requests of a kind are answered; yields what is to be told the ranks' lines."""
    last = Shown(0.0, "evaluation: starting")

    def take(line: str) -> None:
        nonlocal last
        logger.info(line)
        if (shown := answered(line)) is not None:
            last = shown
            panel.changed()

    with Panels() as panels:
        panel = panels.open(Panel("progress", "progress-evaluation", lambda: last, PROGRESS_SECONDS))
        yield take
        last = Shown(100.0, f"{last.description}, done")


def answered(line: str) -> Shown | None:
    """How far the ranks are, if a line of one of them says it."""
    found = _DONE_OF_ALL.search(line)
    if found is None:
        return None
    done, whole = (int(number.replace(",", "")) for number in found.groups())
    return Shown(100.0 * done / max(whole, 1), f"evaluation: {found[0]}")


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
