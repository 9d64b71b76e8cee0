"""Steps as the training loop makes them, without a model: the journal, the process that tells MLflow, and a clock."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.store import Store
from infra.tracking import TrackedRun
from model.journal import Journal
from model.run import LaunchRecord, RunRecord, open_run_folder
from model.tracker import Post, Tracker

METRICS = ("learning_rate", "gradient_norm", "batch_size", "tokens_per_second", "memory_gib")
KINDS = ("data", "compute", "communication", "optimizer", "checkpoint", "evaluation")


@contextmanager
def tracked(store: Store, run: RunRecord, to: TrackedRun) -> Iterator[tuple[Journal, Tracker]]:
    """A journal and a tracker, as the rank that reports has them."""
    LaunchRecord(tracked=to, system_metrics_seconds=1).save(store, f"{run.folder}/launch.json")
    journal = Journal(store, run, 0, "CPU (test)")
    with Tracker(store, run, Post()) as tracker:
        yield journal, tracker
        journal.close()


def make_steps(journal: Journal, first: int, last: int, seconds: float) -> list[tuple[float, float]]:
    """Steps of so many seconds each; for each, wall and processor seconds that it took to record it."""
    found = []
    for step in range(first, last + 1):
        time.sleep(seconds)
        row = dict.fromkeys((*METRICS, *KINDS), step / 7)
        wall, processor = time.perf_counter(), time.thread_time()
        journal.add({"step": step, "loss": 1 / step, "tokens": step * 512, "devices": 1, **row})
        found.append((time.perf_counter() - wall, time.thread_time() - processor))
    return found


def main(root: str, to: str, ending: str) -> None:
    """A rank that makes twenty steps of the only run under a root and ends in some way."""
    (path,) = Path(root).glob("runs/*/*")
    store, run, _ = open_run_folder(path)
    with tracked(store, run, TrackedRun.model_validate_json(to)) as (journal, tracker):
        assert tracker.process is not None
        print(tracker.process.pid, flush=True)
        make_steps(journal, 1, 20, 0.01)
        print("20 steps", flush=True)
        if ending == "is killed":
            time.sleep(600)
        tracker.finished = ending == "says that it is complete"


if __name__ == "__main__":
    main(*sys.argv[1:])
