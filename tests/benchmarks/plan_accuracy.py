"""Plans beside the runs that they are of: `python -m tests.benchmarks.plan_accuracy [--steps 60] [--trial 12] ...`.

A training is planned from a short trial, then made with more steps; a corpus is planned from a sample, then built. For
each figure the plan, what was measured, and the ratio. Training: seconds from the command to its end, start included,
and memory of the fullest process beside `estimate_memory`, on a GPU (a CPU's memory is not estimated: the process
itself is most of it). Corpus: processor seconds, wall seconds and bytes on disk, with one worker for each core.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.plans.trial import measured_rate, trial
from infra.configuration import assignment, load_settings
from model.config import TrainingSettings
from model.estimates.memory import GIB, estimate_memory


def main() -> None:
    """Plan, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="steps of the training")
    parser.add_argument("--trial", type=int, default=12, help="steps of the trial that it is planned from")
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--set", action="append", metavar="PATH=VALUE", help="of the training; the demo's without any")
    parser.add_argument("--crawl-root", help="a mirror; without one no corpus is planned")
    parser.add_argument("--crawl", default="CC-MAIN-2026-91")
    parser.add_argument("--sample-shards", type=int, default=2)
    parser.add_argument("--sample-records", type=int, default=100)
    options = parser.parse_args()
    print("| what | planned | measured | planned / measured |\n|---|---:|---:|---:|")
    for name, planned, measured in [*_training(options), *_corpus(options)]:
        print(f"| {name} | {planned:,.2f} | {measured:,.2f} | {planned / max(measured, 1e-9):.2f} |", flush=True)


def _training(options: argparse.Namespace) -> Iterator[tuple[str, float, float]]:
    if options.set:
        training = load_settings(TrainingSettings, TrainingSettings(), None, list(map(assignment, options.set)))
    else:
        from flows.presets import preset

        training = preset("demo").training
    rate = measured_rate(training, options.vocabulary, options.trial)
    assert rate.tokens_per_second_per_device is not None
    whole = trial(training, options.vocabulary, options.steps)
    tokens = options.steps * training.tokens_per_step
    seconds = tokens / rate.tokens_per_second_per_device / training.parallel.processes
    yield f"{options.steps} steps, s", seconds, sum(row["seconds"] for row in whole.rows)
    yield "the same with its start, s", seconds + rate.startup_seconds, whole.job_seconds - whole.checkpoint_seconds
    if not whole.device.startswith("CPU"):
        estimate = estimate_memory(training, options.vocabulary).total / GIB
        yield "memory of the fullest GPU, GiB", estimate, whole.memory_gib


def _corpus(options: argparse.Namespace) -> Iterator[tuple[str, float, float]]:
    if options.crawl_root is None:
        return
    # A machine for training may have none of what corpora need.
    from flows.plans.planning import make_plan
    from flows.plans.sampling import PlanSettings
    from infra.cluster import open_cluster
    from infra.environment import Environment
    from infra.store import Store
    from tasks.config import CorpusSettings
    from tasks.pipeline import measure, pinned_corpus, refine
    from tasks.sources.transport import SourceSettings
    from tasks.stage import StageRunner

    corpus = CorpusSettings(source=SourceSettings(base_url=options.crawl_root, crawl=options.crawl))
    environment = Environment(workers=os.cpu_count())
    sample = PlanSettings(sample_shards=options.sample_shards, sample_records=options.sample_records)
    with tempfile.TemporaryDirectory() as root:
        environment = environment.model_copy(update={"root": root})
        planned = make_plan(corpus, environment, sample).totals
        started = time.monotonic()
        store = Store(root)
        with open_cluster(environment) as cluster:
            runner, pinned = StageRunner(store, cluster), pinned_corpus(corpus, store)
            refine(runner, measure(runner, pinned), pinned)
        seconds = time.monotonic() - started
        found = list(Path(root).glob("stages/*/*/telemetry.json"))
        counts: list[dict[str, Any]] = [json.loads(path.read_text()) for path in found]
        files = [path for path in Path(root).rglob("*") if path.suffix in (".arrow", ".parquet")]
        yield "corpus, processor s", planned.cpu_seconds, sum(each["counts"]["cpu_ms"] for each in counts) / 1000
        yield "corpus, s of its stages", planned.seconds, sum(each["seconds"] for each in counts)
        yield "corpus, s in all", planned.seconds, seconds
        yield "corpus, MB on disk", planned.disk_bytes / 1e6, sum(path.stat().st_size for path in files) / 1e6
        peak = max(each["peak_worker_bytes"] for each in counts)
        yield "corpus, MB of the largest worker", planned.peak_worker_bytes / 1e6, peak / 1e6


if __name__ == "__main__":
    main()
