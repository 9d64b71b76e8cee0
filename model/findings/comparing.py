"""Evaluated checkpoints side by side, item by item: what `gristmill compare` finds.

The first checkpoint is what the others are compared with. Differences are taken over the items that both have, and
only where these are the same items: those of a benchmark by their digests, held-out documents by their dataset and
their sizes. Of held-out text only bits per byte are compared, which mean the same for every tokenizer.

Rows of a table are a family of tests: p-values are corrected by Holm's method for the number of rows.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from pydantic import Field

from infra.manifest import Manifest
from infra.settings import Settings
from infra.tracking import TrackedRun
from model.benchmarks.items import is_exponential
from model.findings.contender import BITS_PER_BYTE, Contender, leaves, lower_is_better, same_held_out, top_tasks
from model.findings.intervals import Floats, PairedDifference, holm, paired
from model.findings.records import Estimate, TaskResult
from model.run import EvaluationRecord

pc: Any = pyarrow.compute  # its functions are made when it is imported: types know few of them

HELD_OUT = "heldout/"
"""What names of held-out text begin with in SCORES."""
MARGINS, MEMBERS = "Margin of the right choice", "Members of groups"
"""Titles of tables that no figure shows: their rows would not fit on the axis of others."""


class ComparisonSettings(Settings):
    """How sure a comparison is to be."""

    name: str | None = Field(default=None, pattern=r"^[\w.-]+$")
    """Name of the comparison's folder; unset makes one of the runs' names."""
    bootstrap_draws: int = Field(default=1_000, ge=100)
    """Resamplings of the items behind each interval of a difference."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Part of intervals that are to contain the true difference."""
    significance: float = Field(default=0.05, gt=0, lt=0.5)
    """P-value, after correction for the number of rows, below which a difference is marked."""
    seed: int = Field(default=1234, ge=0, lt=2**31)
    """Seed of the resampling."""


class ComparedRun(Settings):
    """A checkpoint, as it is shown."""

    label: str
    """Name of the run, with as much more as tells it apart."""
    folder: str
    """Of the run, relative to the root."""
    step: int
    tokens: int
    """Trained on up to this step."""
    dataset: str
    """NAME/VERSION."""


class ComparedFigure(Settings):
    """A figure of one checkpoint, and how it differs from that of the first."""

    estimate: Estimate | None = None
    """None where it was not measured."""
    difference: PairedDifference | None = None
    """Less the first checkpoint's; None for the first, and where `note` says why."""
    corrected_p: float | None = None
    """After Holm's method."""
    significant: bool = False
    better: bool = False
    """Whether the difference is to the good, significant or not."""
    note: str = ""


class ComparedRow(Settings):
    """A metric of a task under all checkpoints."""

    task: str
    metric: str
    items: int
    """Most items that it was measured on."""
    chance: float | None = None
    figures: tuple[ComparedFigure, ...]
    """In the order of the checkpoints."""


class ComparedTable(Settings):
    """Rows that were tested together."""

    title: str
    caption: str
    rows: tuple[ComparedRow, ...]


class CurvePoint(Settings):
    """A figure after so many tokens."""

    tokens: int
    estimate: Estimate


class Curve(Settings):
    """How a figure grew over a training."""

    label: str
    """Of the run."""
    task: str
    metric: str
    points: tuple[CurvePoint, ...]


class Comparison(Manifest):
    """A finished comparison."""

    name: str
    settings: ComparisonSettings
    runs: tuple[ComparedRun, ...]
    """The first is what the others are compared with."""
    tables: tuple[ComparedTable, ...]
    curves: tuple[Curve, ...] = ()
    """Where some run was evaluated at several steps."""
    tracked: TrackedRun | None = None

    @property
    def folder(self) -> str:
        """Folder of the comparison, relative to the root."""
        return f"comparison/{self.name}"


def compared_tables(contenders: Sequence[Contender], settings: ComparisonSettings) -> tuple[ComparedTable, ...]:
    """All tables that have rows."""
    groups = [group.group for each in contenders for group in each.record.groups if BITS_PER_BYTE in group.metrics]
    tops = _named([top_tasks(each.record) for each in contenders])
    inner = [name for name in _named([each.record.tasks for each in contenders]) if name not in tops]
    main = "Main metric of each task"
    made = (
        (
            "Benchmarks",
            f"{main}; groups over all their items.",
            [_task_row(contenders, name, None) for name in tops],
        ),
        (
            "Cost of the right answer",
            "Bits that the right answer costs for each of its bytes: lower is better.",
            [_task_row(contenders, name, "answer_bits_per_byte") for name in tops],
        ),
        (
            MARGINS,
            "Log-likelihood of the right choice less that of the best wrong one, in nats (by character where choices "
            "are compared so): higher is better.",
            [_task_row(contenders, name, "margin") for name in tops],
        ),
        (
            "Held-out text",
            "Bits per byte: lower is better.",
            [_held_out_row(contenders, name) for name in dict.fromkeys(groups)],
        ),
        (MEMBERS, f"{main}.", [_task_row(contenders, name, None) for name in inner]),
    )
    tables = [ComparedTable(title=title, caption=text, rows=tuple(filter(None, rows))) for title, text, rows in made]
    return tuple(_tested(table, contenders, settings) for table in tables if table.rows)


def curves(label: str, evaluations: Sequence[EvaluationRecord], tokens: Sequence[int]) -> Iterator[Curve]:
    """Main metrics and held-out bits per byte of one run over tokens.

    Where some evaluations measured fewer items than others, as those during training do, the curve is made of those of
    the most frequent number of items: others are no part of the same curve.
    """
    points: dict[tuple[str, str], list[tuple[int, CurvePoint]]] = {}
    for record, count in zip(evaluations, tokens, strict=True):
        for task in top_tasks(record):
            point = CurvePoint(tokens=count, estimate=task.metrics[task.main_metric])
            points.setdefault((task.task, task.main_metric), []).append((task.items, point))
        for group in record.groups:
            if group.group == "all" and BITS_PER_BYTE in group.metrics:
                point = CurvePoint(tokens=count, estimate=group.metrics[BITS_PER_BYTE])
                points.setdefault((f"{HELD_OUT}all", BITS_PER_BYTE), []).append((group.documents, point))
    for (task, metric), found in sorted(points.items(), key=lambda each: each[0]):
        sizes = Counter(items for items, _ in found)
        size = max(sizes, key=lambda items: (sizes[items], items))
        alike = tuple(point for items, point in found if items == size)
        yield Curve(label=label, task=task, metric=metric, points=alike)


def grown(found: Sequence[Curve]) -> tuple[Curve, ...]:
    """Curves of what was measured several times in some run; lone points of others stand beside them."""
    several = {(each.task, each.metric) for each in found if len(each.points) > 1}
    return tuple(each for each in found if (each.task, each.metric) in several)


def _named(results: Sequence[Sequence[TaskResult]]) -> list[str]:
    """Names that any has, in their order."""
    return list(dict.fromkeys(task.task for each in results for task in each))


def _result(contender: Contender, task: str) -> TaskResult | None:
    return next((each for each in contender.record.tasks if each.task == task), None)


def _task_row(contenders: Sequence[Contender], task: str, metric: str | None) -> ComparedRow | None:
    """A row without differences; None where no checkpoint has the metric."""
    found = [_result(each, task) for each in contenders]
    known = [each for each in found if each is not None]
    metric = metric or known[0].main_metric
    if not any(metric in each.metrics for each in known):
        return None
    return ComparedRow(
        task=task,
        metric=metric,
        items=max(each.items for each in known),
        chance=known[0].chance if metric.partition(",")[0] in ("acc", "acc_norm") else None,
        figures=tuple(ComparedFigure(estimate=each.metrics.get(metric) if each else None) for each in found),
    )


def _held_out_row(contenders: Sequence[Contender], group: str) -> ComparedRow:
    found = [next((each for each in one.record.groups if each.group == group), None) for one in contenders]
    return ComparedRow(
        task=f"{HELD_OUT}{group}",
        metric=BITS_PER_BYTE,
        items=max(each.documents for each in found if each is not None),
        figures=tuple(ComparedFigure(estimate=each.metrics.get(BITS_PER_BYTE) if each else None) for each in found),
    )


def _tested(table: ComparedTable, contenders: Sequence[Contender], settings: ComparisonSettings) -> ComparedTable:
    """The table with differences, corrected for the number of its rows for each checkpoint."""
    columns: list[list[ComparedFigure]] = [[row.figures[0] for row in table.rows]]
    for place, other in enumerate(contenders[1:], 1):
        figures = [_compared(contenders[0], other, row, row.figures[place], settings) for row in table.rows]
        columns.append(_corrected(figures, settings))
    figures_of_rows = list(zip(*columns, strict=True))
    rows = [row.model_copy(update={"figures": each}) for row, each in zip(table.rows, figures_of_rows, strict=True)]
    return table.model_copy(update={"rows": tuple(rows)})


def _corrected(figures: Sequence[ComparedFigure], settings: ComparisonSettings) -> list[ComparedFigure]:
    tested = [(place, each.difference.p_value) for place, each in enumerate(figures) if each.difference]
    corrected = dict(zip([place for place, _ in tested], holm([value for _, value in tested]), strict=True))
    return [
        each.model_copy(
            update={"corrected_p": corrected[place], "significant": corrected[place] < settings.significance}
        )
        if place in corrected
        else each
        for place, each in enumerate(figures)
    ]


def _compared(
    first: Contender, other: Contender, row: ComparedRow, figure: ComparedFigure, settings: ComparisonSettings
) -> ComparedFigure:
    if row.figures[0].estimate is None or figure.estimate is None:
        return figure
    tasks = _leaves(first, row.task)
    both, note = matched(first, other, tasks, row.metric)
    if both is None:
        return figure.model_copy(update={"note": note})
    columns = {name: both[name].to_numpy() for name in ("value", "value.other", "weight", "weight.other")}
    if (result := _result(first, row.task)) is not None and result.members_alike:
        columns = _members_alike(columns, both["task"])
    found = paired(
        *columns.values(),
        draws=settings.bootstrap_draws,
        confidence=settings.confidence,
        seed=settings.seed,
        exponential=is_exponential(row.metric),
    )
    better = found.difference != 0 and (found.difference < 0) == lower_is_better(row.metric)
    return figure.model_copy(update={"difference": found, "better": better})


def _members_alike(columns: Mapping[str, Floats], tasks: pa.ChunkedArray) -> dict[str, Floats]:
    """Scores whose weights sum to 1 in each task."""
    codes = tasks.combine_chunks().dictionary_encode().indices.to_numpy()
    found: dict[str, Floats] = {}
    for name, column in columns.items():
        sums = np.bincount(codes, columns[name.replace("value", "weight")])
        found[name] = column / np.where(sums > 0, sums, 1.0)[codes]
    return found


def _leaves(contender: Contender, task: str) -> tuple[str, ...]:
    result = _result(contender, task)
    return leaves(result, contender.record) if result is not None else (task,)


def matched(
    first: Contender, other: Contender, tasks: Sequence[str], metric: str
) -> tuple[pa.Table, str] | tuple[None, str]:
    """Scores of the items that both have: columns value and weight, value.other and weight.other.

    None, and why, where there are none or where items of the same number are not the same.
    """
    mine, theirs = (_part(each.scores, tasks, metric) for each in (first, other))
    both = mine.join(theirs, ["task", "item"], join_type="inner", right_suffix=".other")
    if not both.num_rows or min(pc.sum(both[name]).as_py() for name in ("weight", "weight.other")) <= 0:
        return None, "no scores by item" if mine.num_rows == 0 or theirs.num_rows == 0 else "no items in common"
    if tasks[0].startswith(HELD_OUT):
        named = "/" in tasks[0].removeprefix(HELD_OUT)  # a further dataset by its own name
        same = named or same_held_out(first, other)
        if not same or not pc.all(pc.equal(both["weight"], both["weight.other"])).as_py():
            return None, "other held-out text"
        return both, ""
    digests = _digests(first, tasks).join(
        _digests(other, tasks), ["task", "item"], join_type="inner", right_suffix=".other"
    )
    if digests.num_rows == 0 or not pc.all(pc.equal(digests["digest"], digests["digest.other"])).as_py():
        return None, "other items"
    return both, ""


def _part(scores: pa.Table, tasks: Sequence[str], metric: str) -> pa.Table:
    chosen = pc.and_(pc.is_in(scores["task"], pa.array(tasks, pa.string())), pc.equal(scores["metric"], metric))
    return scores.filter(chosen).drop_columns(["metric"])


def _digests(contender: Contender, tasks: Sequence[str]) -> pa.Table:
    items = contender.items.select(["task", "item", "digest"])
    return items.filter(pc.is_in(items["task"], pa.array(tasks, pa.string())))
