"""Our answers against lm_eval's `hf` backend, item by item: `python -m tests.benchmarks.evaluation_agreement RUN_DIR`.

The run's newest checkpoint, or `--step`, is exported in float32 and read by transformers; ours is the checkpoint
itself, as an evaluation loads it, in float32 in one process. Both answer every log-likelihood request of the tasks:
HellaSwag and LAMBADA as they are published, or those of `--tasks-dir`. Printed for each task: the largest difference of
log-likelihoods in nats, and of how many items the choice, or what greedy decoding would say, is another. Ends with 1
where any is, or where log-likelihoods differ by more than 1e-3.
"""

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from model.config import ParallelSettings
from model.gpu import speed_up
from model.megatron import on_cpu
from model.run import open_run_folder
from model.settings.benchmarks import BenchmarkSettings
from tests.benchmarks.evaluation_speed import as_only_rank

TOLERANCE = 1e-3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--step", type=int)
    parser.add_argument("--tasks", nargs="+", default=["hellaswag", "lambada"])
    parser.add_argument("--tasks-dir", help="folder of the harness's YAML files")
    parser.add_argument("--limit", type=int, help="items of each task")
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.simplefilter("ignore")
    as_only_rank()
    on_cpu.install()
    speed_up.install()
    from model.parallel import parallel

    with parallel(ParallelSettings(), seed=1) as place, tempfile.TemporaryDirectory() as folder:
        ours, theirs = both(options, place, Path(folder) / "exported")
        agree = [compare(name, items, ours, theirs) for name, items in tasks(options)]
    return 0 if all(agree) else 1


def both(options: argparse.Namespace, place: Any, folder: Path) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What answers a list of pairs: our model and theirs."""
    from infra.vocabulary import load_vocabulary
    from model.architectures.build import build_model
    from model.evaluation.crew import Crew
    from model.evaluation.encoding import PromptEncoder
    from model.evaluation.harness import MegatronLM
    from model.evaluation.scoring import Scorer
    from model.interchange.export import ExportSettings, export_checkpoint
    from model.recovery.checkpoint import Checkpoints
    from tests.model.evaluation.their_model import their_model

    store, run, dataset = open_run_folder(options.run)
    provenance = export_checkpoint(store, run, dataset, folder, ExportSettings(step=options.step, dtype="float32"))
    length = run.training.model.sequence_length
    training = run.training.model_copy(update={"dtype": "float32", "parallel": ParallelSettings()})
    chunks = build_model(training, training.parallel, place, run.vocabulary_size, draw=False)
    checkpoints = Checkpoints(store, run, place)
    record = checkpoints.latest(provenance.step)
    assert record is not None
    checkpoints.load(record, chunks)
    settings = BenchmarkSettings(tokens_at_once=options.batch_size * 128)
    crew = Crew(place, {"score": Scorer(chunks, place, settings, length, run.vocabulary_size).score})
    encoder = PromptEncoder(load_vocabulary(store, dataset.tokenizer), dataset.tokenizer.end_of_document)
    print(f"{run.folder}, step {provenance.step}, on {place.device}", flush=True)
    theirs = their_model(folder, length, options.batch_size, str(place.device))
    return MegatronLM(encoder, crew, settings, length).loglikelihood, theirs.loglikelihood


def tasks(options: argparse.Namespace) -> Iterator[tuple[str, list[list[tuple[str, str]]]]]:
    """For each task its items, as the pairs of texts that are asked of the model."""
    if options.tasks_dir is None:
        from tests.model.benchmarks.benchmark_items import hellaswag, lambada

        for name in options.tasks:
            yield name, list({"hellaswag": hellaswag, "lambada": lambada}[name]())[: options.limit]
        return
    from model.benchmarks.tasks import load_tasks

    settings = BenchmarkSettings(tasks=tuple(options.tasks), tasks_dir=options.tasks_dir, limit=options.limit)
    for name, task in load_tasks(settings).tasks.items():
        items: dict[int, list[tuple[str, str]]] = {}
        for each in task.instances:
            if each.request_type == "loglikelihood":
                items.setdefault(each.doc_id, []).append(each.args)
        if items:
            yield name, list(items.values())


def compare(
    name: str, items: list[list[tuple[str, str]]], ours: Callable[..., Any], theirs: Callable[..., Any]
) -> bool:
    """Print a line for a task; whether all is as it should be."""
    from lm_eval.api.instance import Instance

    given = [
        Instance("loglikelihood", {}, pair, number)
        for number, pair in enumerate(pair for item in items for pair in item)
    ]
    one, other = ours(given), theirs(given, disable_tqdm=True)
    furthest = max(abs(log - their_log) for (log, _), (their_log, _) in zip(one, other, strict=True))
    choices = sum(
        _choice(part) != _choice(theirs)
        for part, theirs in zip(_by_item(items, one), _by_item(items, other), strict=True)
    )
    greedy = sum(said != their_said for (_, said), (_, their_said) in zip(one, other, strict=True))
    print(
        f"{name}: {len(items):,} items, {len(given):,} requests, largest difference {furthest:.1e} nats, "
        f"{choices} other choices, {greedy} other greedy answers ({sum(said for _, said in one):,} greedy)",
        flush=True,
    )
    return furthest <= TOLERANCE and not choices and not greedy


def _by_item(items: list[Any], answers: list[Any]) -> Iterator[list[Any]]:
    left = iter(answers)
    return ([next(left) for _ in item] for item in items)


def _choice(answers: list[tuple[float, bool]]) -> int:
    return max(range(len(answers)), key=lambda number: answers[number][0])


if __name__ == "__main__":
    sys.exit(main())
