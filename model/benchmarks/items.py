"""From what lm-evaluation-harness returns to rows of ITEMS and SCORES, and to a result for each task and group."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from model.benchmarks.task_samples import Score, Scores, TaskSamples, main_metric
from model.findings.intervals import estimate
from model.findings.records import EXPONENTIAL, ITEMS, SCORES, Estimate, TaskResult
from model.settings.benchmarks import BenchmarkSettings


class Collected(NamedTuple):
    """What one run of the harness says."""

    items: pa.Table
    """ITEMS, by task and item."""
    scores: pa.Table
    """SCORES, by task, metric and item."""
    tasks: tuple[TaskResult, ...]
    """In the order of names, groups before their members."""


def collect(
    results: Mapping[str, Any], tasks: Mapping[str, Any], groups: Mapping[str, Any], settings: BenchmarkSettings
) -> Collected:
    """Take apart what `lm_eval.evaluate(..., log_samples=True)` returned.

    `tasks` and `groups` are the harness's own objects by name, as they were given to it. Raises RunFailed where an
    item has a score that is no finite number.
    """
    found = {name: TaskSamples(name, tasks[name], results["samples"][name]) for name in sorted(results["samples"])}
    scores = {name: samples.scores() for name, samples in found.items()}
    made = {name: _task_result(name, samples, scores[name], results, settings) for name, samples in found.items()}
    for name, group in groups.items():
        if group.has_aggregation and (members := tuple(sorted(_leaves(group) & made.keys()))):
            made[name] = _group_result(name, group, [made[each] for each in members], scores, results, settings)
    rows = [row for samples in found.values() for row in samples.items()]
    return Collected(
        items=pa.Table.from_pylist(rows, schema=ITEMS),
        scores=scores_table(scores),
        tasks=tuple(made[name] for name in _in_order(made)),
    )


def scores_table(scores: Mapping[str, Scores]) -> pa.Table:
    """SCORES of the scores of each task."""
    rows = [
        {"task": task, "metric": metric, **score._asdict()}
        for task in sorted(scores)
        for metric in sorted(scores[task])
        for score in sorted(scores[task][metric])
    ]
    return pa.Table.from_pylist(rows, schema=SCORES)


def read_scores(table: pa.Table) -> dict[str, Scores]:
    """The scores of each task, from SCORES; a part of its rows gives figures of a part of the items."""
    found: dict[str, Scores] = {}
    for row in table.to_pylist():
        rows = found.setdefault(row["task"], {}).setdefault(row["metric"], [])
        rows.append(Score(row["item"], row["value"], row["weight"]))
    return found


def estimates(scores: Mapping[str, Sequence[Score]], settings: BenchmarkSettings) -> dict[str, Estimate]:
    """The figure of each metric, over all its scores; none of a perplexity that is beyond all numbers."""
    with np.errstate(over="ignore"):
        found = {metric: _estimate(metric, rows, settings) for metric, rows in scores.items() if rows}
    return {metric: each for metric, each in found.items() if math.isfinite(each.value)}


def is_exponential(metric: str) -> bool:
    """Whether a metric's figure is the exponential of its ratio; a filter may follow the metric's name."""
    return metric.partition(",")[0] in EXPONENTIAL


def _estimate(metric: str, rows: Sequence[Score], settings: BenchmarkSettings) -> Estimate:
    return estimate(
        [row.value for row in rows],
        [row.weight for row in rows],
        settings.bootstrap_draws,
        settings.confidence,
        settings.seed,
        exponential=is_exponential(metric),
    )


def _task_result(
    name: str, samples: TaskSamples, scores: Scores, results: Mapping[str, Any], settings: BenchmarkSettings
) -> TaskResult:
    made = estimates(scores, settings) | samples.aggregated(settings)
    ordered = [each for each in (*samples.metrics, "margin", "answer_bits_per_byte") if each in made]
    return TaskResult(
        task=name,
        version=str(results["versions"].get(name)),
        items=len(samples.logged),
        few_shot=int(results["n-shot"].get(name) or 0),
        metrics={each: made[each] for each in ordered},
        main_metric=main_metric(ordered),
        chance=samples.chance,
    )


# Groups


def _leaves(group: Any) -> set[str]:
    return {task.task_name for task in group.get_all_tasks()}


def _group_result(
    name: str,
    group: Any,
    members: Sequence[TaskResult],
    scores: Mapping[str, Scores],
    results: Mapping[str, Any],
    settings: BenchmarkSettings,
) -> TaskResult:
    """The metrics that the harness takes of the group, and the two of ours, over all items of its members."""
    asked = {each.metric for each in group.aggregate_metric_list} | {"margin", "answer_bits_per_byte"}
    alike = not all(each.weight_by_size for each in group.aggregate_metric_list)
    names = dict.fromkeys(metric for member in members for metric in member.metrics)
    pooled = {
        metric: pool([scores[member.task].get(metric, []) for member in members], alike=alike)
        for metric in names
        if metric.partition(",")[0] in asked
    }
    made = estimates(pooled, settings)
    items = sum(member.items for member in members)
    chances = [(member.chance or 0.0, 1 if alike else member.items) for member in members]
    known = all(member.chance is not None for member in members)
    return TaskResult(
        task=name,
        version=str(results["versions"].get(name)),
        items=items,
        few_shot=max(member.few_shot for member in members),
        metrics=made,
        main_metric=main_metric(list(made)),
        chance=sum(chance * size for chance, size in chances) / sum(size for _, size in chances) if known else None,
        members=tuple(member.task for member in members),
        members_alike=alike,
    )


def pool(members: Sequence[Sequence[Score]], *, alike: bool = False) -> list[Score]:
    """Scores of a group from those of its members.

    Every item counts the same, or, where members are `alike` (the harness's weight_by_size: false), every member: its
    weights then sum to 1, so that the ratio of sums is the mean of the members' ratios.
    """
    sums = [sum(score.weight for score in rows) for rows in members]
    if not alike or len(set(sums)) == 1:
        return [score for rows in members for score in rows]
    return [
        score._replace(value=score.value / whole, weight=score.weight / whole)
        for rows, whole in zip(members, sums, strict=True)
        for score in rows
    ]


def _in_order(results: Mapping[str, TaskResult]) -> list[str]:
    """Names in order; tasks within a group follow it, and larger groups come before those that they contain."""
    groups = sorted(
        (each for each in results.values() if each.members), key=lambda each: (-len(each.members), each.task)
    )

    def path(result: TaskResult) -> list[str]:
        tasks = set(result.members or (result.task,))
        above = [group.task for group in groups if group.task != result.task and tasks <= set(group.members)]
        return [*above, result.task]

    return sorted(results, key=lambda name: path(results[name]))
