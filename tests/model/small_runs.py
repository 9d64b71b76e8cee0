"""A small dataset of real text in the dataset format, and helpers that train on it."""

import hashlib
import io
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import sentencepiece

from infra.launching.launch import JobSpec, LocalLauncher
from infra.manifest import DatasetManifest, TokenizerRecord, TokenShard, fingerprint
from infra.schema import tokens_schema
from infra.store import Store
from model.config import Duration, ModelSettings, OptimizerSettings, ParallelSettings, TrainingSettings
from model.run import RunRecord, prepare_run, read_metrics

VOCABULARY = 400


def real_documents() -> list[str]:
    """Functions and classes of the standard library: real text that every Python has."""
    library = Path(sysconfig.get_path("stdlib"))
    names = ("argparse", "ast", "calendar", "configparser", "difflib", "inspect", "pickle", "tarfile")
    text = "\n\n\n".join((library / f"{name}.py").read_text() for name in names)
    return [part.strip() for part in text.split("\n\n\n") if len(part.strip()) > 200][:240]


def write_dataset(store: Store, documents: list[str]) -> DatasetManifest:
    """Train a tokenizer, write two training shards and one held-out shard, and save the manifest."""
    model = _train_tokenizer(documents)
    store.write_bytes("tokenizer/tokenizer.model", model)
    digest = hashlib.sha256(model).hexdigest()
    tokenizer = TokenizerRecord(
        path="tokenizer/tokenizer.model", sha256=digest, vocabulary_size=VOCABULARY, end_of_document=2, pad=3
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    held_out, train = documents[::10], [text for index, text in enumerate(documents) if index % 10]
    half = len(train) // 2
    shards = (
        _write_shard(store, processor, tokenizer, "tokens/train-0.arrow", "train", train[:half]),
        _write_shard(store, processor, tokenizer, "tokens/train-1.arrow", "train", train[half:]),
        _write_shard(store, processor, tokenizer, "tokens/heldout-0.arrow", "heldout", held_out),
    )
    manifest = DatasetManifest(
        name="small",
        version="2026.11.22",
        fingerprint=fingerprint(shards=[shard.sha256 for shard in shards]),
        stages={},
        settings={},
        tokenizer=tokenizer,
        shards=shards,
    )
    manifest.save(store, f"{manifest.folder}/manifest.json")
    return manifest


def _train_tokenizer(documents: list[str]) -> bytes:
    model = io.BytesIO()
    trainer: Any = sentencepiece.SentencePieceTrainer
    trainer.train(
        sentence_iterator=iter(line for text in documents for line in text.splitlines()),
        model_writer=model,
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        pad_id=3,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def _write_shard(
    store: Store,
    processor: sentencepiece.SentencePieceProcessor,
    tokenizer: TokenizerRecord,
    path: str,
    split: Literal["train", "heldout"],
    texts: list[str],
) -> TokenShard:
    tokens = [np.array([*processor.encode(text), tokenizer.end_of_document], np.uint16) for text in texts]
    sizes = [len(text.encode()) for text in texts]
    schema = tokens_schema(tokenizer.vocabulary_size, tokenizer.sha256, tokenizer.end_of_document)
    count = len(texts)
    columns: list[Any] = [[f"{path}-{n}" for n in range(count)], tokens, sizes, ["stdlib"] * count]
    columns += [["en"] * count, [None] * count]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    written = store.write_table(path, pa.Table.from_arrays(arrays, schema=schema))
    return TokenShard(
        path=path,
        split=split,
        documents=len(texts),
        tokens=sum(map(len, tokens)),
        text_bytes=sum(sizes),
        bytes=written.size,
        sha256=written.sha256,
    )


def small_training(steps: int = 8, **changes: Any) -> TrainingSettings:
    """A model of 35 thousand weights in float32 whose heads and layers two processes can share."""
    model = ModelSettings(
        num_layers=2, hidden_size=32, num_attention_heads=4, num_query_groups=2, ffn_hidden_size=64, sequence_length=64
    )
    settings: dict[str, Any] = {
        "model": model,
        "optimizer": OptimizerSettings(learning_rate=3e-3, warmup_steps=2),
        "duration": Duration(steps=steps),
        "global_batch_size": 8,
        "micro_batch_size": 2,
        "dtype": "float32",
        "log_every": 4,
    }
    return TrainingSettings(**{**settings, **changes})


def layout(tensor: int = 1, pipeline: int = 1, data: int = 1, **changes: Any) -> ParallelSettings:
    """A layout whose number of processes fits."""
    return ParallelSettings(tensor=tensor, pipeline=pipeline, processes=tensor * pipeline * data, **changes)


def launch(
    store: Store,
    run: RunRecord,
    module: str = "model.train",
    *arguments: str,
    processes: int | None = None,
    on_line: Callable[[str], None] = lambda line: None,
) -> None:
    """Run a module on a run's folder, on this machine."""
    spec = JobSpec(
        module=module,
        arguments=(str(store.local_path(run.folder)), *arguments),
        processes=processes or run.training.parallel.processes,
        grace_seconds=30,
    )
    LocalLauncher().run(spec, on_line)


def train(store: Store, dataset: DatasetManifest, name: str, settings: TrainingSettings) -> list[dict[str, float]]:
    """Train and return the rows of metrics.jsonl."""
    run = prepare_run(store, dataset, name, settings)
    launch(store, run)
    return read_metrics(store.local_path(run.folder))


def largest_difference(one: list[dict[str, float]], other: list[dict[str, float]], key: str = "loss") -> float:
    """Of two runs of equal length."""
    return max(abs(a[key] - b[key]) for a, b in zip(one, other, strict=True))
