"""A trial: some steps of a training on random tokens on this machine, to know its rate and memory before it runs.

It is the training itself, in its own layout, with processes of its own, in a folder that is thrown away; only the data
is made up, and nothing is evaluated, tracked or kept.
"""

import statistics
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from infra.launching.launch import JobSpec, LocalLauncher
from infra.manifest import DatasetManifest, TokenizerRecord, TokenShard, fingerprint
from infra.schema import tokens_schema
from infra.store import Store
from model.config import Duration, TrainingSettings
from model.estimates.rate import Rate
from model.run import finished_training, prepare_run, read_metrics
from model.settings.safety import CheckpointSettings

_DOCUMENT = 1000
"""Tokens of each made-up document."""


@dataclass(frozen=True)
class Trial:
    """What a trial took."""

    device: str
    rows: list[dict[str, float]]
    """Of its metrics.jsonl, one for each step."""
    job_seconds: float
    """From the start of the processes to their end."""
    checkpoint_seconds: float
    """Of these, writing the last checkpoint."""
    memory_gib: float
    """Of the process that had most."""


def measured_rate(training: TrainingSettings, vocabulary_size: int, steps: int) -> Rate:
    """Make some steps of a training and tell the median speed of their later half; errors are those of a run."""
    made = trial(training, vocabulary_size, steps)
    seconds = statistics.median(row["seconds"] for row in made.rows[steps // 2 :])
    return Rate(
        device=made.device,
        source=f"{steps} steps of a trial here",
        tokens_per_second_per_device=training.tokens_per_step / seconds / training.parallel.processes,
        memory_gib=made.memory_gib,
        # The first steps compile and fill caches: what they take beyond a usual step belongs to the start.
        startup_seconds=max(0.0, made.job_seconds - steps * seconds - made.checkpoint_seconds),
    )


def trial(training: TrainingSettings, vocabulary_size: int, steps: int) -> Trial:
    """Make some steps of a training on random tokens."""
    with tempfile.TemporaryDirectory(prefix="gristmill-trial-") as folder:
        store = Store(folder)
        update: dict[str, Any] = {
            "duration": Duration(steps=steps),
            "checkpoint": CheckpointSettings(every_steps=None),
            "evaluation": None,
            "start_from": None,
            "batch_ramp": None,
            "log_every": steps,
        }
        shortened = training.model_copy(update=update)
        tokens = steps * shortened.tokens_per_step + shortened.model.sequence_length
        run = prepare_run(store, _random_dataset(store, vocabulary_size, tokens), "trial", shortened)
        path = str(store.local_path(run.folder).absolute())
        spec = JobSpec(module="model.train", arguments=(path,), processes=training.parallel.processes)
        job = LocalLauncher().run(spec)
        summary = finished_training(store, run)
        assert summary is not None, "model.train writes training.json before it ends well"
        return Trial(
            device=summary.speed.device,
            rows=read_metrics(store.local_path(run.folder)),
            job_seconds=job.seconds,
            checkpoint_seconds=summary.speed.seconds.get("checkpoint", 0.0),
            memory_gib=summary.speed.memory_gib,
        )


def _random_dataset(store: Store, vocabulary_size: int, tokens: int) -> DatasetManifest:
    """A dataset without meaning: documents of random tokens in one shard."""
    count = -(-tokens // _DOCUMENT)
    schema = tokens_schema(vocabulary_size, "0" * 64, 0)
    drawn = np.random.default_rng(1).integers(0, vocabulary_size, count * _DOCUMENT, dtype=np.uint32)
    values = pa.array(drawn).cast(schema.field("tokens").type.value_type)
    lists = pa.LargeListArray.from_arrays(pa.array(np.arange(count + 1) * _DOCUMENT, pa.int64()), values)
    columns = {
        "doc_id": pa.array([f"random-{number}" for number in range(count)]),
        "tokens": lists.cast(schema.field("tokens").type),
        "text_bytes": pa.array(np.full(count, 4 * _DOCUMENT)),
        "source": pa.array(["random"] * count),
    }
    arrays = [columns[field.name] if field.name in columns else pa.nulls(count, field.type) for field in schema]
    path = "tokens/random.arrow"
    written = store.write_table(path, pa.Table.from_arrays(arrays, schema=schema))
    shard = TokenShard(
        path=path,
        split="train",
        documents=count,
        tokens=count * _DOCUMENT,
        text_bytes=4 * count * _DOCUMENT,
        bytes=written.size,
        sha256=written.sha256,
    )
    tokenizer = TokenizerRecord(
        path="none", sha256="0" * 64, vocabulary_size=vocabulary_size, end_of_document=0, pad=None
    )
    manifest = DatasetManifest(
        name="random",
        version="1",
        fingerprint=fingerprint(shard=shard.sha256),
        stages={},
        settings={},
        tokenizer=tokenizer,
        shards=(shard,),
    )
    manifest.save(store, f"{manifest.folder}/manifest.json")
    return manifest
