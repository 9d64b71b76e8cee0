"""How fast samples are read, on one core, and what their order costs: time and memory.

    .venv/bin/python -m tests.benchmarks.loader [--tokens 100000000] [--length 4096]

The tokens are random, in documents of log-normal length (median 500, mean 1,000), in shards of 16-bit tokens as the
corpus pipeline writes them; files are in the page cache. Seconds are of the processor, with torch on one thread.
`tests.benchmarks.gpu_speed --loader` compares steps on GPUs with and without the loader.
"""

import argparse
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from infra.manifest import TokenShard
from infra.schema import tokens_schema
from infra.store import Store
from model.config import TrainingSettings
from model.data.documents import Documents
from model.data.loader import Loader, Request
from model.data.order import training_order
from model.data.settings import DataSettings

END = 2
SHARDS = 8
VOCABULARY = 32_768


def write_shards(store: Store, tokens: int, vocabulary: int = VOCABULARY) -> list[TokenShard]:
    """Random shards with about so many tokens in all."""
    random = np.random.RandomState(0)
    names = [f"train-{number}.arrow" for number in range(SHARDS)]
    return [_write_shard(store, name, tokens // SHARDS, vocabulary, random) for name in names]


@contextmanager
def random_loader(
    training: TrainingSettings, vocabulary: int, place: Any, tokens: int = 20_000_000
) -> Iterator[Loader]:
    """A rank's loader over random shards of its own."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        shards = write_shards(store, tokens, vocabulary)
        order = training_order([Documents(store, shards)], training.data, training.model.sequence_length, training.seed)
        with Loader(order, training, END, rank=place.data_rank, ranks=place.layout.data, device=place.device) as loader:
            yield loader


def _write_shard(store: Store, path: str, tokens: int, vocabulary: int, random: np.random.RandomState) -> TokenShard:
    lengths = np.maximum(random.lognormal(np.log(500), 1.18, tokens // 900).astype(np.int64), 2)
    lengths = lengths[: np.searchsorted(np.cumsum(lengths), tokens)]
    schema = tokens_schema(vocabulary, "0" * 64, END)
    text = random.randint(3, vocabulary, lengths.sum(), np.uint16 if vocabulary <= 1 << 16 else np.uint32)
    text[np.cumsum(lengths) - 1] = END
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
    lists = pa.LargeListArray.from_arrays(offsets, pa.array(text), type=schema.field("tokens").type)
    names = [f"{path}-{number}" for number in range(len(lengths))]
    columns = [names, lists, lengths * 4, ["web"] * len(names), ["en"] * len(names), [None] * len(names)]
    arrays = [
        each if isinstance(each, pa.Array) else pa.array(each, field.type)
        for each, field in zip(columns, schema, strict=True)
    ]
    table = pa.Table.from_batches(pa.Table.from_arrays(arrays, schema=schema).to_batches(max_chunksize=1024))
    written = store.write_table(path, table)
    counts = {"documents": len(lengths), "tokens": len(text), "text_bytes": 4 * len(text)}
    return TokenShard(path=path, split="train", bytes=written.size, sha256=written.sha256, **counts)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--read", type=int, default=20_000_000, help="tokens to read in each row of the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        shards = write_shards(store, arguments.tokens)
        print(f"{sum(s.tokens for s in shards):,} tokens in {sum(s.documents for s in shards):,} documents")
        print("| packing | documents apart | order (s) | peak memory of order (MB) | padding | million tokens/s |")
        print("|---|---|---|---|---|---|")
        for packing in ("cut", "best-fit"):
            for apart in (False, True):
                _measure(store, shards, arguments, DataSettings(packing=packing, attend_across_documents=not apart))


def _measure(store: Store, shards: list[TokenShard], arguments: argparse.Namespace, data: DataSettings) -> None:
    settings = TrainingSettings.model_validate({"data": data.model_dump(), "model": {"sequence_length": 4096}})
    model = settings.model.model_copy(update={"sequence_length": arguments.length})
    settings = settings.model_copy(update={"model": model})
    began = time.process_time()
    documents = Documents(store, shards)
    order = training_order([documents], data, arguments.length, seed=1)
    order.sample(0)
    seconds = time.process_time() - began
    tracemalloc.start()
    training_order([Documents(store, shards)], data, arguments.length, seed=1).sample(0)
    memory = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    loader = Loader(order, settings, END, device=torch.device("cpu"))
    count = 64
    steps = max(arguments.read // (count * arguments.length), 1)
    for document in range(len(documents)):  # into the page cache
        documents.read(document, 0, 1 << 30).max()
    began = time.process_time()
    for step in range(steps):
        loader.read(Request(step * count, count))
    rate = steps * count * arguments.length / (time.process_time() - began) / 1e6
    apart = "no" if data.attend_across_documents else "yes"
    padding = f"{order.padding_share:.3%}"
    print(f"| {data.packing} | {apart} | {seconds:.2f} | {memory:.0f} | {padding} | {rate:.0f} |", flush=True)


if __name__ == "__main__":
    main()
