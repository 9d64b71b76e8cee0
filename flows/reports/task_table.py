"""Benchmarks of one evaluation as a table: for the report, the terminal and Prefect."""

from collections.abc import Sequence

from infra.tables_page import PageTable, as_text
from model.findings.records import Estimate, TaskResult
from model.run import EvaluationRecord

_ANSWER = "answer_bits_per_byte"


def task_table(record: EvaluationRecord, *, members: bool = False) -> PageTable:
    """A row for each task, and for members of groups if asked: main metric with interval, chance, cost of answers."""
    inner = {name for task in record.tasks for name in task.members}
    shown = [task for task in record.tasks if members or task.task not in inner]
    confidence = f"{100 * record.settings.benchmarks.confidence:g}%"
    return PageTable(
        title=f"Benchmarks at step {record.step:,}",
        caption=f"With intervals of {confidence}. Chance: the score of guessing. Cost: bits that the right answer "
        "costs for each of its bytes, lower is better. Cut: items whose prompt lost its beginning for want of room. "
        "Contaminated: items that occur in the training text.",
        head=(
            *("task", "items", "examples", "metric", "score", "chance", "cost of the answer", "cut", "contaminated"),
            "clean",
        ),
        rows=tuple(_row(task, task.task in inner) for task in shown),
    )


def heldout_table(record: EvaluationRecord) -> PageTable:
    """A row for each group of held-out documents."""
    return PageTable(
        title=f"Held-out text at step {record.step:,}",
        caption="Bits per byte compare models of any tokenizer; perplexity is that of a token.",
        head=("group", "documents", "tokens", "bits per byte", "perplexity of a word", "perplexity"),
        rows=tuple(
            (
                group.group,
                f"{group.documents:,}",
                f"{group.tokens:,}",
                *(figure_text(group.metrics.get(name)) for name in ("bits_per_byte", "word_perplexity", "perplexity")),
            )
            for group in record.groups
        ),
    )


def evaluation_text(record: EvaluationRecord) -> str:
    """All tables of an evaluation for a terminal."""
    return as_text([*([task_table(record)] if record.tasks else []), heldout_table(record)])


def number(value: float, sign: str = "") -> str:
    """Four decimals, fewer of large numbers."""
    decimals = 4 if abs(value) < 10 else 2 if abs(value) < 1_000 else 0
    return f"{value:{sign},.{decimals}f}"


def figure_text(estimate: Estimate | None) -> str:
    """`0.3012 [0.2921, 0.3103]`; empty for none."""
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return number(estimate.value)
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def _row(task: TaskResult, is_member: bool) -> Sequence[str]:
    share = "" if task.contaminated is None else f"{task.contaminated:,} ({task.contaminated / max(task.items, 1):.1%})"
    return (
        f"{'  ' if is_member else ''}{task.task}",
        f"{task.items:,}",
        str(task.few_shot),
        task.main_metric,
        figure_text(task.metrics[task.main_metric]),
        "" if task.chance is None else f"{task.chance:.3f}",
        figure_text(task.metrics.get(_ANSWER)),
        f"{task.truncated:,}" if task.truncated else "",
        share,
        figure_text((task.clean_metrics or {}).get(task.main_metric)) if task.contaminated else "",
    )
