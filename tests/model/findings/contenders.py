"""Made evaluations of checkpoints, for judgements about them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from infra.manifest import DatasetManifest, TokenizerRecord
from model.config import EvaluationSettings
from model.findings.contender import Contender
from model.findings.intervals import estimate
from model.findings.records import SCORES, Estimate, GroupLikelihood, TaskResult
from model.run import BitsPerByte, EvaluationRecord, Layout, RunRecord
from tests.model.small_runs import small_training

DOCUMENTS = 200
ITEMS = 400
DATASET = DatasetManifest(
    name="small",
    version="2026.11.22",
    fingerprint="0123456789ab",
    stages={},
    settings={},
    tokenizer=TokenizerRecord(path="t.model", sha256="0" * 64, vocabulary_size=400, end_of_document=2, pad=3),
    shards=(),
)


def run_record(name: str = "small", dataset_fingerprint: str = "d" * 12) -> RunRecord:
    return RunRecord(
        name=name,
        dataset="small",
        dataset_version="2026.11.22",
        dataset_fingerprint=dataset_fingerprint,
        dataset_manifest="datasets/small/2026.11.22/manifest.json",
        vocabulary_size=400,
        train_tokens=10_000,
        training=small_training(),
        fingerprint="f" * 12,
    )


def rights(share: float, items: int = ITEMS, seed: int = 0) -> np.ndarray:
    """Answers, of which that share is right; of one seed, those of a better model hold those of a worse one."""
    return (np.random.default_rng(seed).permutation(items) < share * items).astype(float)


def nats(bits_per_byte: float, documents: int = DOCUMENTS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Bits and bytes of documents of different difficulty."""
    generator = np.random.default_rng(seed)
    size = generator.integers(200, 2000, documents).astype(float)
    return size * bits_per_byte * generator.uniform(0.8, 1.2, documents), size


def contender(
    tasks: Mapping[str, np.ndarray],
    bits_per_byte: float | None = 2.0,
    *,
    run: RunRecord | None = None,
    step: int = 30,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    groups: Mapping[str, tuple[str, ...]] | None = None,
    contaminated: Sequence[tuple[str, int]] = (),
    digests: Mapping[str, str] | None = None,
    **more: Any,
) -> Contender:
    """Evaluated on tasks with an `acc` for each item, and on held-out text; `changes` to the result of a task."""
    scores = [(name, item, "acc", value, 1.0) for name, values in tasks.items() for item, value in enumerate(values)]
    likelihoods: tuple[GroupLikelihood, ...] = ()
    if bits_per_byte is not None:
        bits, size = nats(bits_per_byte)
        scores += [
            ("heldout/all", item, "bits_per_byte", *pair) for item, pair in enumerate(zip(bits, size, strict=True))
        ]
        found = estimate(bits, size)
        likelihoods = (
            GroupLikelihood(group="all", documents=DOCUMENTS, tokens=1, words=1, text_bytes=int(size.sum()),
                            metrics={"bits_per_byte": found}),
        )  # fmt: skip
    results = [
        result(name, estimate(values), len(values), **(changes or {}).get(name, {})) for name, values in tasks.items()
    ]
    for name, members in (groups or {}).items():
        values = np.concatenate([tasks[member] for member in members])
        results.insert(0, result(name, estimate(values), len(values), members=members))
    return Contender(
        run=run or run_record(),
        record=evaluation(step, likelihoods, tuple(results)),
        scores=pa.Table.from_pylist([dict(zip(SCORES.names, row, strict=True)) for row in scores], SCORES),
        items=pa.table(
            {
                "task": pa.array([name for name, values in tasks.items() for _ in values], pa.string()),
                "item": pa.array([item for values in tasks.values() for item in range(len(values))], pa.int32()),
                "digest": [(digests or {}).get(name, "same") for name, values in tasks.items() for _ in values],
            }
        ),
        contaminated=pa.table(
            {
                "task": pa.array([name for name, _ in contaminated], pa.string()),
                "item": pa.array([item for _, item in contaminated], pa.int32()),
            }
        ),
        **more,
    )


def result(name: str, found: Estimate, items: int, **changes: Any) -> TaskResult:
    values: dict[str, Any] = {
        "task": name,
        "version": "1.0",
        "items": items,
        "few_shot": 0,
        "metrics": {"acc": found},
        "main_metric": "acc",
        "chance": 0.25,
    }
    return TaskResult.model_validate(values | changes)


def evaluation(step: int, groups: tuple[GroupLikelihood, ...], tasks: tuple[TaskResult, ...]) -> EvaluationRecord:
    bits = groups[0].metrics["bits_per_byte"].value if groups else None
    return EvaluationRecord(
        fingerprint="f" * 12,
        step=step,
        layout=Layout(tensor=1, pipeline=1, data=1),
        settings=EvaluationSettings(),
        documents=DOCUMENTS,
        tokens=5000,
        text_bytes=20_000,
        loss=3.0,
        untrained_loss=6.0,
        perplexity=20.1,
        bits_per_byte=None if bits is None else BitsPerByte(trained=bits, untrained=4.0, unigram=3.0),
        groups=groups,
        tasks=tasks,
        samples=(),
        seconds=1.0,
    )
