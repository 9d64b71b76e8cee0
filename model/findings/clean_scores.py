"""Results with and without the items that a model has seen in training."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute

from model.benchmarks.items import estimates, pool, read_scores
from model.benchmarks.task_samples import Score, Scores
from model.findings.records import Estimate, TaskResult
from model.settings.benchmarks import BenchmarkSettings

pc: Any = pyarrow.compute  # its functions are made when it is imported: types know few of them


def with_contamination(
    results: Sequence[TaskResult],
    scores: pa.Table,
    contaminated: Mapping[str, Collection[int]],
    settings: BenchmarkSettings,
) -> tuple[TaskResult, ...]:
    """Results that say how many of their items are contaminated, and their metrics over the others.

    `scores` are SCORES, `contaminated` the items of each task that was looked for, perhaps none; other tasks stay as
    they are, as do groups of such. A metric that is no ratio of sums over items has no figure without some of them.
    """
    tasks = sorted({task for each in results for task in _tasks(each)})
    known = read_scores(scores.filter(pc.is_in(scores["task"], pa.array(tasks, pa.string()))))
    return tuple(_with_contamination(each, known, contaminated, settings) for each in results)


def _tasks(result: TaskResult) -> tuple[str, ...]:
    return result.members or (result.task,)


def _with_contamination(
    result: TaskResult,
    scores: Mapping[str, Scores],
    contaminated: Mapping[str, Collection[int]],
    settings: BenchmarkSettings,
) -> TaskResult:
    tasks = _tasks(result)
    if contaminated.keys().isdisjoint(tasks):
        return result
    bad = {task: frozenset(contaminated.get(task, ())) for task in tasks}
    count = sum(map(len, bad.values()))
    clean = _clean_metrics(result, scores, bad, settings) if count else result.metrics
    return result.model_copy(update={"contaminated": count, "clean_metrics": clean})


def _clean_metrics(
    result: TaskResult,
    scores: Mapping[str, Scores],
    bad: Mapping[str, frozenset[int]],
    settings: BenchmarkSettings,
) -> dict[str, Estimate]:
    clean: dict[str, list[Score]] = {}
    for metric in result.metrics:
        whole = [scores.get(task, {}).get(metric, []) for task in bad]
        left = [[row for row in rows if row.item not in seen] for rows, seen in zip(whole, bad.values(), strict=True)]
        clean[metric] = pool([rows for rows in left if rows], alike=result.members_alike)
    return estimates(clean, settings)
