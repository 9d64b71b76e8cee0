"""Checkpoints of a run as MLflow's logged models: which there are, and what is told of each."""

import hashlib
import json
from pathlib import Path
from typing import Any

from infra.manifest import FINGERPRINT_DIGITS
from infra.run_description import HELD_OUT
from infra.settings import flatten
from infra.store import Store
from infra.tracked_models import Checkpoint, log_checkpoint, mark_removed
from infra.tracking import TrackedRun
from model.findings.tracked import evaluation_metrics
from model.run import EvaluationRecord, RunRecord, evaluation_path, step_name


def checkpoint_steps(store: Store, run: RunRecord) -> list[int]:
    """Steps of the checkpoints that are whole, in order."""
    folder = f"{run.folder}/checkpoints"
    names = [name for name in store.names(folder) if name.startswith("step-") and name[5:].isdigit()]
    return [int(name[5:]) for name in names if store.exists(f"{folder}/{name}/meta.json")]


def meta_path(run: RunRecord, step: int) -> str:
    """Path of the file that is written last of a checkpoint, relative to the root."""
    return f"{run.folder}/checkpoints/{step_name(step)}/meta.json"


def checkpoint_of(store: Store, run: RunRecord, step: int) -> Checkpoint | None:
    """What is told of the checkpoint of a step and of its evaluation, if there is one; None if it is gone."""
    path = meta_path(run, step)
    try:
        meta = store.read_bytes(path)
    except FileNotFoundError:
        return None
    samples = json.loads(meta).get("consumed_samples", run.training.batches.samples(step))
    tags = {
        "run": run.folder.removeprefix("runs/"),
        "step": str(step),
        "tokens": str(samples * run.training.model.sequence_length),
        "dataset": f"{run.dataset}/{run.dataset_version}",
        "dataset.fingerprint": run.dataset_fingerprint,
        "checkpoint.path": store.full_path(path.rpartition("/")[0]),
    }
    metrics: dict[str, float] = {}
    if (record := _evaluation(store, run, step)) is not None:
        metrics = evaluation_metrics(record)
        tags["evaluation"] = hashlib.sha256(record.model_dump_json().encode()).hexdigest()[:FINGERPRINT_DIGITS]
    return Checkpoint(
        name=f"{run.name}-{run.fingerprint}-{step_name(step)}",
        digest=hashlib.sha256(meta).hexdigest(),
        step=step,
        dataset=(f"{run.dataset}/{run.dataset_version}{HELD_OUT}", run.dataset_fingerprint),
        tags=tags,
        parameters=flatten(run.training.model.model_dump(mode="json", exclude_none=True)),
        metrics=metrics,
    )


def _evaluation(store: Store, run: RunRecord, step: int) -> EvaluationRecord | None:
    path = evaluation_path(run, step)
    return EvaluationRecord.load(store, path) if store.exists(path) else None


class TrackedCheckpoints:
    """Keeps the logged models of a run as its folder is: one for each checkpoint, the removed ones marked."""

    def __init__(self, store: Store, run: RunRecord, tracked: TrackedRun) -> None:
        self._store, self._run, self._tracked = store, run, tracked
        self._asked = False
        self._delivered: dict[int, tuple[object, str]] = {}
        """By step: when its files were written, and its digest."""

    def deliver(self, client: Any) -> None:
        """Tell of what has changed since the last time; infra.tracking.tracking_errors() on no answer."""
        written = {step: self._written(step) for step in checkpoint_steps(self._store, self._run)}
        gone = self._delivered.keys() - written.keys()
        for step, when in written.items():
            if step in self._delivered and self._delivered[step][0] == when:
                continue
            if (checkpoint := checkpoint_of(self._store, self._run, step)) is not None:
                log_checkpoint(client, self._tracked, checkpoint)
                self._delivered[step] = (when, checkpoint.digest)
        if gone or not self._asked:
            there = {digest for step, (_, digest) in self._delivered.items() if step in written}
            mark_removed(client, self._tracked, there)
            self._delivered = {step: each for step, each in self._delivered.items() if step in written}
            self._asked = True

    def _written(self, step: int) -> tuple[int, ...]:
        paths = (meta_path(self._run, step), evaluation_path(self._run, step))
        return tuple(_modified(self._store.local_path(path)) for path in paths)


def _modified(path: Path) -> int:
    """When a file was written, in nanoseconds; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
