"""Runs that are evaluated, without a training: folders as a training and an evaluation leave them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from infra.store import Store
from infra.tracking import open_run
from model.config import TrainingSettings
from model.findings.contender import Contender
from model.run import LaunchRecord, RunRecord, evaluation_path, load_launch, prepare_run
from tests.model.findings.contenders import DATASET, contender, rights
from tests.model.small_runs import small_training


def trained(
    store: Store, name: str, share: float, step: int = 30, bits_per_byte: float = 2.0, contaminated: int = 0
) -> RunRecord:
    """A run whose checkpoint of a step is evaluated; it is tracked in MLflow."""
    run = prepare_run(store, DATASET, name, training(name))
    if load_launch(store, run).tracked is None:
        LaunchRecord(tracked=open_run(store, None, "tests", name)).save(store, f"{run.folder}/launch.json")
    made = contender({"piqa": rights(share)}, bits_per_byte, run=run, step=step)
    folder = write_evaluation(store, made)
    if contaminated:
        found = {"task": ["piqa"] * 3, "item": pa.array([0, 1, 2], pa.int32()), "documents": [contaminated, 0, 1]}
        (folder / "contamination").mkdir()
        pq.write_table(pa.table(found), folder / "contamination" / "items.parquet")
    store.write_bytes(f"{run.folder}/checkpoints/step-{step:08d}/meta.json", f'{{"{name}": {step}}}'.encode())
    return run


def write_evaluation(store: Store, made: Contender) -> Path:
    """Write down what was measured of a run; returns the folder of its tables."""
    path = evaluation_path(made.run, made.record.step)
    made.record.save(store, path)
    folder = store.local_path(path.removesuffix(".json"))
    folder.mkdir(exist_ok=True)
    pq.write_table(made.scores, folder / "scores.parquet")
    pq.write_table(made.items, folder / "items.parquet")
    return folder


def training(name: str) -> TrainingSettings:
    return small_training(seed=sum(name.encode()))
