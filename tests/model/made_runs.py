"""Datasets, runs and what is written of them, without the work: what plans look at."""

from infra.manifest import DatasetManifest, TokenizerRecord, TokenShard, fingerprint
from infra.store import Store
from model.config import EvaluationSettings, TrainingSettings
from model.estimates.speed import SpeedSummary
from model.run import EvaluationRecord, Layout, LossRange, RunRecord, TrainingSummary, evaluation_path, named_run

ALONE = Layout(tensor=1, pipeline=1, data=1)


def made_dataset(store: Store, name: str, train: int, heldout: int, vocabulary_size: int = 400) -> DatasetManifest:
    """The manifest of a dataset whose shards nobody reads."""
    sizes = {"path": "none", "documents": 1, "text_bytes": 1, "bytes": 1, "sha256": "0" * 64}
    manifest = DatasetManifest(
        name=name,
        version="1",
        fingerprint=fingerprint(name=name),
        stages={},
        settings={},
        tokenizer=TokenizerRecord(
            path="t.model", sha256="0" * 64, vocabulary_size=vocabulary_size, end_of_document=2, pad=3
        ),
        shards=(
            TokenShard.model_validate({**sizes, "split": "train", "tokens": train}),
            TokenShard.model_validate({**sizes, "split": "heldout", "tokens": heldout}),
        ),
    )
    manifest.save(store, f"{manifest.folder}/manifest.json")
    return manifest


def made_run(
    store: Store, dataset: DatasetManifest, name: str, training: TrainingSettings, checkpoints: tuple[int, ...] = ()
) -> RunRecord:
    """A run that has come to its last checkpoint, and to its end where that is of the last step."""
    run = named_run(store, dataset, name, training)
    run.save(store, f"{run.folder}/run.json")
    for step in checkpoints:
        store.write_bytes(f"{run.folder}/checkpoints/step-{step:08d}/meta.json", b"{}")
    if run.steps in checkpoints:
        made_summary(run).save(store, f"{run.folder}/training.json")
    return run


def made_summary(run: RunRecord) -> TrainingSummary:
    """What a training leaves at its end."""
    speed = SpeedSummary(
        device="NVIDIA H200",
        device_hours=1,
        tokens_per_second_per_device=1000,
        flops_per_token=1,
        tflops_per_device=1,
        peak_tflops=None,
        mfu=None,
        memory_gib=1,
        seconds={},
    )
    loss = LossRange(first=2, last=1)
    counts = {"parameters": 1, "steps": run.steps, "tokens": 1, "seconds": 1, "tokens_per_second": 1}
    return TrainingSummary.model_validate(
        {"fingerprint": run.fingerprint, "layout": ALONE, "loss": loss, "speed": speed, **counts}
    )


def made_evaluation(store: Store, run: RunRecord, settings: EvaluationSettings, untrained: float | None = 2.0) -> None:
    """The record of an evaluation of a run's last step."""
    record = EvaluationRecord(
        fingerprint=run.fingerprint,
        step=run.steps,
        layout=ALONE,
        settings=settings,
        documents=1,
        tokens=1,
        text_bytes=1,
        loss=1,
        untrained_loss=untrained,
        perplexity=2,
        samples=(),
        seconds=1,
    )
    record.save(store, evaluation_path(run, run.steps))
