"""Evaluated checkpoints, and how two of them compare item by item."""

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute

from model.findings.intervals import paired
from model.findings.records import LOWER_IS_BETTER, Estimate, TaskResult
from model.findings.verdict import PromotionSettings
from model.run import EvaluationRecord, RunRecord

pc: Any = pyarrow.compute  # its functions are made when it is imported: types know few of them

BITS_PER_BYTE = "bits_per_byte"


@dataclass(frozen=True)
class Contender:
    """An evaluated checkpoint."""

    run: RunRecord
    record: EvaluationRecord
    scores: pa.Table
    """SCORES; without rows where items were not recorded."""
    items: pa.Table
    """Columns task, item and digest of ITEMS."""
    contaminated: pa.Table
    """Columns task and item: those whose text occurs in the training text."""
    version: int | None = None
    """In the registry."""
    was_taken_back: bool = False

    @property
    def name(self) -> str:
        """As people say it."""
        return f"{self.run.folder.removeprefix('runs/')} at step {self.record.step:,}"


class Difference(NamedTuple):
    """A figure of the candidate less that of the champion, with its interval."""

    items: int
    value: float
    low: float
    high: float


def common_held_out(one: Contender, other: Contender) -> list[str]:
    """Groups of held-out documents that both mean: those of the run's dataset if it is the same, and of further ones.

    A further dataset's group bears its name and version; see model.evaluation.further. Contenders `with_own_name` have
    their own dataset's so too.
    """
    theirs = {group.group for group in other.record.groups}
    further = [each.group for each in one.record.groups if each.group.endswith("/all") and each.group in theirs]
    own = {_own_group(one), _own_group(other)}
    if same_held_out(one, other) or len(own) == 1:  # the same text twice, or two texts of one name
        further = [each for each in further if each not in own]
    return ["all"] * same_held_out(one, other) + further


def with_own_name(contender: Contender) -> Contender:
    """A contender whose own held-out text bears its dataset's name too, as it does where others are measured on it."""
    groups, own = contender.record.groups, _own_group(contender)
    whole = next((each for each in groups if each.group == "all"), None)
    if whole is None or any(each.group == own for each in groups):
        return contender
    named = whole.model_copy(update={"group": own})
    scores = _of_tasks(contender.scores, ("heldout/all",))
    column = pa.array([f"heldout/{own}"] * scores.num_rows, pa.string())
    renamed = scores.set_column(scores.schema.get_field_index("task"), scores.schema.field("task"), column)
    return replace(
        contender,
        record=contender.record.model_copy(update={"groups": (*groups, named)}),
        scores=pa.concat_tables([contender.scores, renamed]),
    )


def _own_group(contender: Contender) -> str:
    return f"{contender.run.dataset}/{contender.run.dataset_version}/all"


def same_held_out(one: Contender, other: Contender) -> bool:
    """Whether numbers of held-out documents mean the same documents."""
    return one.run.dataset_fingerprint == other.run.dataset_fingerprint


def top_tasks(record: EvaluationRecord) -> list[TaskResult]:
    """Groups as wholes, and tasks in no group."""
    members = {name for task in record.tasks for name in task.members}
    return [task for task in record.tasks if task.task not in members]


def leaves(task: TaskResult, record: EvaluationRecord) -> tuple[str, ...]:
    """Tasks of a group at any depth; of a task that is no group, itself."""
    found = {each.task: each for each in record.tasks}
    if not task.members:
        return (task.task,)
    return tuple(leaf for name in task.members if name in found for leaf in leaves(found[name], record))


def altered_items(candidate: Contender, champion: Contender, tasks: tuple[str, ...]) -> int:
    """Items of the same number that are not the same."""
    ours, theirs = (_of_tasks(each.items, tasks) for each in (candidate, champion))
    both = ours.join(theirs, ["task", "item"], join_type="inner", right_suffix=".theirs")
    return pc.sum(pc.not_equal(both["digest"], both["digest.theirs"])).as_py() or 0


def _of_tasks(table: pa.Table, tasks: tuple[str, ...]) -> pa.Table:
    return table.filter(pc.is_in(table["task"], pa.array(tasks, pa.string())))


def paired_scores(
    candidate: Contender, champion: Contender, tasks: tuple[str, ...], metric: str, settings: PromotionSettings
) -> Difference | None:
    """The candidate's figure less the champion's on the items of both; None where there are none.

    Of perplexities it is the difference of their logarithms.
    """
    ours, theirs = (_scores(each, tasks, metric) for each in (candidate, champion))
    both = theirs.join(ours, ["task", "item"], join_type="inner", right_suffix=".ours")
    if settings.contamination != "ignored":
        for contender in (candidate, champion):
            both = both.join(contender.contaminated.select(["task", "item"]), ["task", "item"], join_type="left anti")
    if tasks[0].startswith("heldout/") and not pc.all(pc.equal(both["weight"], both["weight.ours"])).as_py():
        return None  # other documents: theirs are other bytes
    if not both.num_rows or pc.sum(both["weight"]).as_py() <= 0 or pc.sum(both["weight.ours"]).as_py() <= 0:
        return None
    columns = [both[name].to_numpy() for name in ("value", "value.ours", "weight", "weight.ours")]
    found = paired(
        *columns,
        draws=settings.bootstrap_draws,
        confidence=settings.confidence,
        seed=settings.seed,
    )
    return Difference(found.items, found.difference, found.low, found.high)


def _scores(contender: Contender, tasks: tuple[str, ...], metric: str) -> pa.Table:
    found = _of_tasks(contender.scores, tasks)
    return found.filter(pc.equal(found["metric"], metric)).drop_columns(["metric"])


def unpaired_figures(
    ours: Estimate, theirs: Estimate, task: TaskResult, settings: PromotionSettings
) -> Difference | None:
    """For figures that are no ratio over items, such as Matthews' correlation: as if measured on different items.

    Too wide rather than too narrow, because what is hard for one model is hard for the other.
    """
    if ours.standard_error is None or theirs.standard_error is None:
        return None
    difference, error = ours.value - theirs.value, math.hypot(ours.standard_error, theirs.standard_error)
    reach = NormalDist().inv_cdf((1 + settings.confidence) / 2) * error
    return Difference(task.items, difference, difference - reach, difference + reach)


def bits_per_byte(record: EvaluationRecord, group: str = "all") -> tuple[Estimate, int] | None:
    """Of a group of held-out documents and their number; None for a model that gives text no likelihood."""
    for each in record.groups:
        if each.group == group and BITS_PER_BYTE in each.metrics:
            return each.metrics[BITS_PER_BYTE], each.documents
    if group == "all" and record.bits_per_byte is not None:
        return Estimate(value=record.bits_per_byte.trained), record.documents
    return None


def main_figure(task: TaskResult, settings: PromotionSettings) -> Estimate:
    """The main figure, over items that are not contaminated where that is known and asked for."""
    clean = None if settings.contamination == "ignored" else task.clean_metrics
    return (clean or {}).get(task.main_metric) or task.metrics[task.main_metric]


def lower_is_better(metric: str) -> bool:
    """Whether a metric, perhaps with a filter's name behind a comma, points downwards."""
    return metric.partition(",")[0] in LOWER_IS_BETTER
