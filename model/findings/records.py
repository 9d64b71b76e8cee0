"""What evaluations find, as it is written: estimates with their uncertainty, and the files of one evaluation.

    evaluations/step-00000100.json             EvaluationRecord, written last
    evaluations/step-00000100/items.parquet    ITEMS: one row for each item of a benchmark
    evaluations/step-00000100/scores.parquet   SCORES: what was measured of each item and of each held-out document
    evaluations/step-00000100/answers/         answers of the model as they came, for an evaluation that goes on

Every figure of SCORES is a ratio of sums over items, sum(value) / sum(weight): an accuracy has weights of 1, bits per
byte have bytes. So one bootstrap and one paired test serve them all. A perplexity is the exponential of such a ratio.
"""

import pyarrow as pa

from infra.settings import Settings

ITEMS = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),  # the harness's doc_id: number in the task's split
        pa.field("digest", pa.string(), nullable=False),  # the harness's doc_hash
        pa.field("text", pa.string(), nullable=False),  # question as the model reads it, without examples
        pa.field("answer", pa.string(), nullable=False),  # the right one, or "" where there are several or none
        pa.field("response", pa.string(), nullable=False),  # the model's choice or text
    ]
)
SCORES = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),  # or heldout/all, heldout/source=web, heldout/language=en
        pa.field("item", pa.int32(), nullable=False),  # for held-out text: number of the document in the split
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
    ]
)
EXPONENTIAL = frozenset({"perplexity", "word_perplexity", "byte_perplexity"})
"""Metrics whose figure is the exponential of sum(value) / sum(weight)."""
LOWER_IS_BETTER = EXPONENTIAL | {"loss", "bits_per_byte", "answer_bits_per_byte"}


class Estimate(Settings):
    """A figure, and how far chance in the choice of items may have moved it."""

    value: float
    standard_error: float | None = None
    low: float | None = None
    """Lower end of the bootstrap interval."""
    high: float | None = None


class TaskResult(Settings):
    """What a model reaches at a task, or at a group of tasks over all their items."""

    task: str
    version: str
    """The task's own."""
    items: int
    few_shot: int
    metrics: dict[str, Estimate]
    """By name: acc, acc_norm, exact_match, ... as the harness computes them, and the continuous ones: margin,
    answer_bits_per_byte, perplexity."""
    main_metric: str
    """What to look at first."""
    chance: float | None = None
    """Accuracy of guessing; none where there are no choices."""
    members: tuple[str, ...] = ()
    """Tasks of a group."""
    members_alike: bool = False
    """Whether every member of a group counts the same, not every item: the harness's weight_by_size: false."""
    truncated: int = 0
    """Items whose prompts lost their beginning for want of room."""
    contaminated: int | None = None
    """Items whose text occurs in the training tokens; none where that was not looked for."""
    clean_metrics: dict[str, Estimate] | None = None
    """The same metrics over the other items."""


class GroupLikelihood(Settings):
    """Likelihood of held-out documents that have something in common."""

    group: str
    """all, or source=web, language=en, host=example.org."""
    documents: int
    tokens: int
    words: int
    """Between white space, as word perplexities are counted."""
    text_bytes: int
    metrics: dict[str, Estimate]
    """loss, perplexity (for each token), word_perplexity, byte_perplexity, bits_per_byte."""
