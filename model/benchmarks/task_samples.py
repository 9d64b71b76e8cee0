"""What lm-evaluation-harness logged of the items of one task, read with the help of the task itself.

The harness's own metrics are kept as they are. Two more are taken of every task whose answers are given, because they
move long before a small model chooses right:

- `answer_bits_per_byte`: bits that the right answer costs, by UTF-8 byte of it as it was scored, the space before it
  included. The measure that tells small models apart most surely, with the least noise (Heineman et al. 2025,
  arXiv:2508.13144; Bhagia et al. 2024, arXiv:2412.04403). Where several answers are right, all of them count.
- `margin`: log-likelihood of the right choice less that of the best wrong one, in nats; for each character of the
  choice where the task's main metric is acc_norm, which compares choices so (as in Magnusson et al. 2025,
  arXiv:2504.11393, there of probabilities). It is above zero where the model chooses right.

A metric whose figure over many items is no mean of theirs (mcc, the f1 of a whole task, bleu) has no rows in SCORES; it
is estimated by the harness's own function on resampled items.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from infra.errors import RunFailed
from model.findings.records import EXPONENTIAL, Estimate
from model.settings.benchmarks import BenchmarkSettings

MAIN_METRICS = (
    "acc_norm",
    "acc",
    "exact_match",
    "pass@1",
    "em",
    "exact",
    "contains",
    "mcc",
    "f1",
    "bits_per_byte",
    "perplexity",
)
"""The first of these that a task has is its main metric, else the first that the task names. Of several filters of the
same metric (gsm8k: strict-match, flexible-extract) it is the one that the task names first."""

_RESAMPLED_VALUES = 2_000_000
_RESAMPLED_TEXTS = 200_000
_FEWEST_DRAWS = 20


class Score(NamedTuple):
    """One score of one item."""

    item: int
    value: float
    weight: float


class Choices(NamedTuple):
    """Answers among which the model chooses, and what it thinks of each."""

    texts: Sequence[str]
    scored: Sequence[str]
    """Continuations whose likelihood was measured."""
    log_likelihoods: Sequence[float]
    right: frozenset[int]
    """None where only the task's own function knows."""


Scores = dict[str, list[Score]]
"""Scores of a task by metric."""


class TaskSamples:
    """Reads the samples of one task, with the help of the task itself."""

    def __init__(self, name: str, task: Any, samples: Sequence[Mapping[str, Any]]) -> None:
        self.name, self._task = name, task
        self._filters = list(dict.fromkeys(sample["filter"] for sample in samples))
        self._by_filter = {
            each: sorted((sample for sample in samples if sample["filter"] == each), key=lambda one: one["doc_id"])
            for each in self._filters
        }
        self.logged: list[Mapping[str, Any]] = self._by_filter[self._filters[0]] if samples else []
        self._choices = {sample["doc_id"]: self._choices_of(sample) for sample in self.logged}
        self.raw = {
            (metric, each): [(sample["doc_id"], sample[metric]) for sample in chosen if metric in sample["metrics"]]
            for each, chosen in self._by_filter.items()
            for metric in dict.fromkeys(metric for sample in chosen for metric in sample["metrics"])
            if metric != "bypass"
        }

    def metric_name(self, metric: str, filter_name: str) -> str:
        """The harness's name, without the filter where there is but one."""
        return metric if len(self._filters) == 1 else f"{metric},{filter_name}"

    @property
    def metrics(self) -> list[str]:
        """Names of the harness's metrics, in its order."""
        return [self.metric_name(*each) for each in self.raw]

    @property
    def main_metric(self) -> str:
        """The metric to look at first."""
        return main_metric(self.metrics)

    @property
    def chance(self) -> float | None:
        """Accuracy of guessing; None where not all items have choices of which is known which are right."""
        shares = [len(each.right) / len(each.texts) for each in self._choices.values() if each and each.right]
        return math.fsum(shares) / len(shares) if shares and len(shares) == len(self.logged) else None

    def scores(self) -> Scores:
        """Scores of all metrics whose figure is a ratio of sums."""
        found: Scores = {}
        for key, values in self.raw.items():
            convert = self._conversion(key[0], [value for _, value in values])
            if convert is not None:
                found[self.metric_name(*key)] = [Score(item, *convert(value)) for item, value in values]
        for metric, score in (("margin", self._margin), ("answer_bits_per_byte", self._answer)):
            if rows := [made for sample in self.logged if (made := score(sample))]:
                found[metric] = rows
        for metric, rows in found.items():
            found[metric] = [row for row in rows if row.weight]
            _require_finite(self.name, metric, found[metric])
        return found

    def aggregated(self, settings: BenchmarkSettings) -> dict[str, Estimate]:
        """Figures of the metrics that are no ratio of sums."""
        return {
            self.metric_name(*key): made
            for key, values in self.raw.items()
            if self._conversion(key[0], [value for _, value in values]) is None
            and (made := _resampled(self._aggregation(key[0]), [value for _, value in values], settings))
        }

    def items(self) -> list[dict[str, Any]]:
        """Rows of ITEMS."""
        return [
            {
                "task": self.name,
                "item": sample["doc_id"],
                "digest": sample["doc_hash"],
                **{name: _valid(text) for name, text in self._texts(sample).items()},
            }
            for sample in self.logged
        ]

    def _aggregation(self, metric: str) -> Callable[[list[Any]], Any] | None:
        return self._task.aggregation().get(metric)

    def _conversion(self, metric: str, values: list[Any]) -> Callable[[Any], tuple[float, float]] | None:
        """What makes value and weight of a metric's value for an item; None where there is no such thing."""
        from lm_eval.api import metrics as harness

        aggregation = self._aggregation(metric) or harness.mean
        known: dict[Any, Callable[[Any], tuple[float, float]]] = {
            harness.mean: lambda value: (float(value), 1.0),
            harness.nanmean: lambda value: (0.0, 0.0) if np.isnan(value) else (float(value), 1.0),
            harness.perplexity: lambda value: (-float(value), 1.0),
            harness.weighted_perplexity: lambda value: (-float(value[0]), float(value[1])),
            harness.bits_per_byte: lambda value: (-float(value[0]) / math.log(2), float(value[1])),
        }
        if aggregation in (harness.perplexity, harness.weighted_perplexity) and metric not in EXPONENTIAL:
            return None
        return known.get(aggregation)

    def _choices_of(self, sample: Mapping[str, Any]) -> Choices | None:
        """Choices as they were asked for: to have the task say them again takes a millisecond for each item."""
        if self._task.OUTPUT_TYPE != "multiple_choice":
            return None
        asked = sample["arguments"]
        if "acc_mutual_info" in sample["metrics"]:  # asks for as many again, without the question
            asked = asked[: len(asked) // 2]
        scored = [arguments[1] for arguments in asked]
        if self._task.multiple_input:
            texts = list(self._task.doc_to_choice(sample["doc"]))
        else:
            texts = [text.removeprefix(self._task.config.target_delimiter) for text in scored]
        nats = [float(answer[0]) for answer in sample["filtered_resps"][: len(asked)]]
        return Choices(texts, scored, nats, self._right(sample, texts))

    def _right(self, sample: Mapping[str, Any], texts: Sequence[str]) -> frozenset[int]:
        if callable(self._task.config.process_results):
            return _labelled(sample["doc"], texts)
        gold = self._task.doc_to_text(sample["doc"]) if self._task.multiple_input else sample["target"]
        if isinstance(gold, str):
            gold = texts.index(gold) if gold in texts else -1
        return frozenset(each for each in (gold if isinstance(gold, list) else [gold]) if 0 <= each < len(texts))

    def _margin(self, sample: Mapping[str, Any]) -> Score | None:
        choices = self._choices[sample["doc_id"]]
        if choices is None or not 0 < len(choices.right) < len(choices.texts):
            return None
        compared = self._compared(choices)
        right = max(compared[each] for each in choices.right)
        wrong = max(value for each, value in enumerate(compared) if each not in choices.right)
        return Score(sample["doc_id"], right - wrong, 1.0)

    def _compared(self, choices: Choices) -> list[float]:
        """Log-likelihoods as the main metric compares them: acc_norm by character."""
        if self.main_metric.partition(",")[0] != "acc_norm":
            return list(choices.log_likelihoods)
        lengths = (max(len(text), 1) for text in choices.texts)
        return [value / length for value, length in zip(choices.log_likelihoods, lengths, strict=True)]

    def _answer(self, sample: Mapping[str, Any]) -> Score | None:
        choices = self._choices[sample["doc_id"]]
        if choices is not None:
            right = [(choices.log_likelihoods[each], choices.scored[each]) for each in sorted(choices.right)]
        elif self._task.OUTPUT_TYPE == "loglikelihood" and len(sample["arguments"]) == 1:
            right = [(float(sample["filtered_resps"][0][0]), sample["arguments"][0][1])]
        else:
            return None
        size = sum(len(text.encode(errors="replace")) for _, text in right)
        nats = -math.fsum(value for value, _ in right)
        return Score(sample["doc_id"], nats / math.log(2), float(size)) if size else None

    def _texts(self, sample: Mapping[str, Any]) -> dict[str, str]:
        """Question, right answer and response of an item."""
        choices = self._choices[sample["doc_id"]]
        if self._task.OUTPUT_TYPE == "loglikelihood_rolling":
            return {"text": str(sample["target"]), "answer": "", "response": ""}
        if choices is not None:
            return self._choice_texts(sample, choices)
        target = sample["target"]
        alone = target[0] if isinstance(target, list) and len(target) == 1 else target
        answer = "" if isinstance(alone, list) else str(alone)
        response = sample["resps"][0][0]
        if not isinstance(response, str):  # a log-likelihood, and whether the answer is the likeliest text
            response = answer if response[1] else ""
        return {"text": self._question(sample), "answer": answer, "response": response}

    def _question(self, sample: Mapping[str, Any]) -> str:
        """The question alone; a prompt is that where it holds no examples, which its first one shows."""
        return str(sample["arguments"][0][0] if self._prompts_are_questions else self._task.doc_to_text(sample["doc"]))

    @cached_property
    def _prompts_are_questions(self) -> bool:
        first = self.logged[0]
        return not self._task.get_config("num_fewshot") and first["arguments"][0][0] == self._task.doc_to_text(
            first["doc"]
        )

    def _choice_texts(self, sample: Mapping[str, Any], choices: Choices) -> dict[str, str]:
        answer = choices.texts[min(choices.right)] if len(choices.right) == 1 else ""
        response = choices.texts[int(np.argmax(self._compared(choices)))]
        if self._task.multiple_input:  # choices differ in what stands before a common ending, as in WinoGrande
            text, ending = answer or choices.texts[0], choices.scored[0]
            return {"text": f"{text}{ending}", "answer": answer, "response": response}
        return {"text": self._question(sample), "answer": answer, "response": response}


def main_metric(metrics: Sequence[str]) -> str:
    """The metric to look at first; see MAIN_METRICS."""
    for wanted in MAIN_METRICS:
        for metric in metrics:
            if metric.partition(",")[0] == wanted:
                return metric
    return metrics[0]


def _labelled(document: Mapping[str, Any], texts: Sequence[str]) -> frozenset[int]:
    """Right choices of a document that labels each with 1 or 0, as TruthfulQA does; none where it does not."""
    for each in document.values():
        if isinstance(each, Mapping) and list(each.get("choices", ())) == list(texts):
            labels = list(each.get("labels", ()))
            if len(labels) == len(texts):
                return frozenset(place for place, label in enumerate(labels) if label == 1)
    return frozenset()


def _require_finite(task: str, metric: str, rows: Sequence[Score]) -> None:
    for row in rows:
        if not (math.isfinite(row.value) and math.isfinite(row.weight)):
            raise RunFailed(
                f"task {task}, item {row.item}: {metric} is {row.value} / {row.weight}",
                "every score is a finite number",
                "See whether the training's loss is finite at this step, and evaluate an earlier checkpoint",
            )


def _resampled(
    aggregation: Callable[[list[Any]], Any] | None, values: list[Any], settings: BenchmarkSettings
) -> Estimate | None:
    """The harness's figure with error and interval from resampled items, fewer times where it takes long."""
    if aggregation is None:
        return None
    has_text = any(isinstance(part, str) for value in values for part in _parts(value))
    draws = min(settings.bootstrap_draws, (_RESAMPLED_TEXTS if has_text else _RESAMPLED_VALUES) // len(values))
    draws = min(draws, 100) if has_text else draws  # as many as the harness takes
    generator = np.random.default_rng(settings.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # resampled items may all be of one kind, of which the harness's libraries warn
        figure = aggregation(values)
        if not isinstance(figure, int | float | np.number) or not math.isfinite(figure):
            return None
        if draws < _FEWEST_DRAWS or len(values) < 2:
            return Estimate(value=float(figure))
        places = (generator.integers(0, len(values), len(values)) for _ in range(draws))
        drawn = np.array([float(aggregation([values[each] for each in chosen])) for chosen in places])
    low, high = np.quantile(drawn, ((1 - settings.confidence) / 2, (1 + settings.confidence) / 2))
    return Estimate(value=float(figure), standard_error=float(drawn.std(ddof=1)), low=float(low), high=float(high))


def _parts(value: Any) -> Sequence[Any]:
    return value if isinstance(value, tuple | list) else (value,)


def _valid(text: str) -> str:
    """Text that Arrow can hold: halves of surrogate pairs, which JSON lets through, are replaced."""
    return text.encode(errors="replace").decode()
