"""datatrove's FineWeb recipe, as its examples/fineweb.py composes it, then its tokenizer: one process, in its own
environment.

    python peer_recipe.py FOLDER OUTPUT LANGUAGE_MODEL GLOB     prints one JSON object

Departures: the language model is lid.176.ftz instead of lid.176.bin, which nothing may fetch here; the extractor has
30 seconds for a page instead of one, because the machine may be busy; one task reads all archives, so that the block
lists are loaded once (their share is told apart).
"""

# pyright: reportMissingImports=false

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
    URLFilter,
)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.lid import FastTextLID
from fasttext.FastText import _FastText
from loguru import logger


class LocalModel(FastTextLID):
    """A fastText model from a file of this machine."""

    def __init__(self, path: str) -> None:
        super().__init__(None)
        self.path = path

    @property
    def model(self) -> Any:
        self._model = self._model or _FastText(self.path)
        return self._model


class TimedLists(URLFilter):
    """The URL filter, with the CPU seconds that loading its lists takes."""

    spent = 0.0

    def download_data(self) -> None:
        start = time.process_time()
        super().download_data()
        TimedLists.spent += time.process_time() - start


def language_filter(model: str) -> LanguageFilter:
    block = LanguageFilter()
    block.model = LocalModel(model)
    return block


def read_and_filter(folder: Path, output: Path, model: str, archives: str) -> list[Any]:
    return [
        WarcReader(str(folder / "warc"), glob_pattern=archives, default_metadata={"dump": "bench"}),
        TimedLists(),
        Trafilatura(favour_precision=True, timeout=30),
        language_filter(model),
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
        JsonlWriter(str(output / "filtered")),
    ]


def used_seconds() -> float:
    return sum(os.times()[:4])  # children count when they have ended, as each step's have


def main(folder: Path, output: Path, model: str, archives: str) -> None:
    logger.remove()
    config = MinhashConfig(hash_config=HashConfig(hash_fc="sha1", precision=64))
    minhash = {name: str(output / "minhash" / name) for name in ("signatures", "buckets", "remove")}
    tokenizer = str(folder / "tokenizer.json")
    steps = {
        "read, extract, filter": (read_and_filter(folder, output, model, archives), 1),
        "signatures": (
            [JsonlReader(str(output / "filtered")), MinhashDedupSignature(minhash["signatures"], config)],
            1,
        ),
        "buckets": ([MinhashDedupBuckets(minhash["signatures"], minhash["buckets"], config=config)], 14),
        "clusters": ([MinhashDedupCluster(minhash["buckets"], minhash["remove"], config=config)], 1),
        "duplicates, redact": (
            [
                JsonlReader(str(output / "filtered")),
                MinhashDedupFilter(minhash["remove"]),
                PIIFormatter(),
                JsonlWriter(str(output / "unique")),
            ],
            1,
        ),
        "tokenize": (
            [
                JsonlReader(str(output / "unique")),
                DocumentTokenizer(str(output / "tokens"), tokenizer, eos_token="<|endoftext|>", seed=1),
            ],
            1,
        ),
    }
    cpu: dict[str, float] = {}
    stats: dict[str, Any] = {}
    for name, (pipeline, tasks) in steps.items():
        start = used_seconds()
        logs = str(output / "logs" / name.replace(", ", "-"))
        stats[name] = LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=logs).run()
        cpu[name] = used_seconds() - start
    totals = {
        name: {each.name: each.stats for each in stats[name].stats} for name in ("duplicates, redact", "tokenize")
    }
    result = {
        "cpu": cpu,
        "lists": TimedLists.spent,
        "documents": count(totals["duplicates, redact"], "Jsonl", "total"),
        "tokens": count(totals["tokenize"], "Writer", "tokens"),
    }
    sys.stdout.write(f"\n{json.dumps(result)}")


def count(blocks: dict[str, Any], name: str, key: str) -> int:
    """A counter of the last block whose name ends so."""
    return int([stats[key].total for block, stats in blocks.items() if block.endswith(name) and key in stats][-1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
