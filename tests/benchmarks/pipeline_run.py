"""All our stages, measured one by one: `python -m tests.benchmarks.pipeline_run FOLDER --extractor NAME --root ROOT`.

The stages run as `gristmill corpus` runs them (tasks/pipeline.py), without Prefect, on Dask workers. Prints one JSON
object: for each step the CPU seconds of this process and its workers, wall seconds, and the bytes that it read.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute

from infra.cluster import open_cluster
from infra.environment import Environment
from infra.store import Store
from tasks.config import CorpusSettings
from tasks.extraction.extract import ExtractSettings
from tasks.filters import FilterSettings
from tasks.pipeline import Build, measure, pinned_corpus, refine
from tasks.privacy.redact import RedactSettings
from tasks.quality.families import QualitySettings, QualitySignalSettings
from tasks.quality.language import LanguageSettings, LanguageSignalSettings
from tasks.signals import SignalSettings
from tasks.sources.select import SelectSettings
from tasks.sources.transport import SourceSettings
from tasks.stage import StageRunner
from tasks.tokens.tokenizer import TokenizerSettings
from tests.benchmarks.inputs import Crawl

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers
SPLITS = ("train", "heldout")
WARM_RECORDS = 5


def fineweb_settings(folder: Path, source: SourceSettings, extractor: str) -> CorpusSettings:
    """The FineWeb recipe: its lists, rules, thresholds and kinds of personal data, in every language alike."""
    selection = json.loads((folder / "select.json").read_text())["settings"]
    return CorpusSettings(
        source=source,
        select=SelectSettings.model_validate(selection),
        extract=ExtractSettings.model_validate({"extractor": extractor}),
        signals=SignalSettings(
            language=LanguageSignalSettings(second_opinion=False), quality=QualitySignalSettings(rules_language="en")
        ),
        filter=FilterSettings(language=LanguageSettings(languages=None), quality=QualitySettings(by_language={})),
        redact=RedactSettings(kinds=("email", "ip")),
        tokenizer=TokenizerSettings(path=str(folder / "tokenizer.json")),
    )


@dataclass
class Steps:
    """CPU and wall seconds of each step, by name, in order."""

    cpu: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)

    def __call__(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a step, as tasks.pipeline asks for it."""
        used, started = used_seconds(), time.monotonic()
        result = function(*arguments)
        self.cpu[name] = self.cpu.get(name, 0) + used_seconds() - used
        self.wall[name] = self.wall.get(name, 0) + time.monotonic() - started
        return result


def used_seconds() -> float:
    """CPU seconds so far of this process, its living descendants and those that have been waited for."""
    total = 0.0
    for each in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            total += sum(each.cpu_times()[:4])
        except psutil.Error:
            continue
    return total


def run(options: argparse.Namespace) -> dict[str, Any]:
    """One corpus from its archives to token shards and ledger."""
    steps, store = Steps(), Store(str(options.root))
    source = Crawl.of(options.folder, options.shards).source.model_copy(update={"max_records": options.records})
    started, used = time.monotonic(), used_seconds()
    settings = pinned_corpus(fineweb_settings(options.folder, source, options.extractor), store)
    with open_cluster(Environment(root=str(options.root), workers=options.workers)) as cluster:
        if options.warm:
            few = settings.model_copy(update={"source": source.model_copy(update={"max_records": WARM_RECORDS})})
            build_corpus(StageRunner(Store(f"{options.root}-warm"), cluster), few, Steps())
        runner = StageRunner(store, cluster)
        begun = used_seconds() - used
        build, vocabulary = build_corpus(runner, settings, steps)
    wall, done = time.monotonic() - started, used_seconds()
    sizes = bytes_read(store, build)
    return {
        "start": begun,
        "aside": used_seconds() - done,
        "wall": wall,
        "stages wall": sum(steps.wall.values()),
        "cpu": steps.cpu,
        "wall by step": steps.wall,
        "documents": {each.stage: each.kept for each in build.passed},
        "bytes": sizes,
        "tokens": sum(build.stage("tokenization").total("counters").get(f"tokens_{each}", 0) for each in SPLITS),
        "vocabulary": vocabulary,
    }


def build_corpus(runner: StageRunner, settings: CorpusSettings, steps: Steps) -> tuple[Build, int]:
    """All stages, and the size of the vocabulary."""
    build = measure(runner, settings, steps)
    corpus = refine(runner, build, settings, None, steps)
    return build, corpus.tokenizer.vocabulary_size


def bytes_read(store: Store, build: Build) -> dict[str, int]:
    """Bytes of pages or of text that each stage kept, which the next one reads."""
    sizes = {}
    for manifest in build.passed:
        column = next((each for each in ("payload", "text") if each in _names(store, manifest.kept_paths)), None)
        if column is not None:
            tables = [store.read_table(path, [column]) for path in manifest.kept_paths]
            sizes[manifest.stage] = sum(pc.sum(pc.binary_length(table[column])).as_py() or 0 for table in tables)
    return sizes


def _names(store: Store, paths: list[str]) -> list[str]:
    reader: pa.ipc.RecordBatchFileReader = store.open_table(paths[0])
    return reader.schema.names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--extractor", default="resiliparse")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--shards", type=int)
    parser.add_argument("--records", type=int, help="of each archive")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--warm", action="store_true", help="run a few records first, so that nothing is loaded anew")
    sys.stdout.write(json.dumps(run(parser.parse_args())))


if __name__ == "__main__":
    main()
