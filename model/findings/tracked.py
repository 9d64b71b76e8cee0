"""An evaluation as MLflow shows it: metrics by names that make sections of charts, and rows of tables.

    benchmarks/hellaswag acc_norm                  main metric of each benchmark; groups, but not their members
    benchmarks/answer_bits_per_byte/hellaswag      the measure that moves while accuracies are still near chance
    heldout/bits_per_byte                          of the whole held-out split
    heldout/bits_per_byte/source web               of its groups
    heldout/baseline/unigram bits_per_byte         what is known of the same text without the model

MLflow makes a section of all that stands before the last slash; sections by task would be dozens. The tables hold
every metric with its standard error and interval.
"""

import re
from typing import Any

from model.findings.contender import top_tasks
from model.findings.records import Estimate
from model.run import EvaluationRecord

_MEASURES = ("loss", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte")
_CONTINUOUS = "answer_bits_per_byte"
_REFUSED = re.compile(r"[^\w.\- /]")


def evaluation_metrics(record: EvaluationRecord) -> dict[str, float]:
    """All that MLflow draws of an evaluation, by name."""
    metrics = _heldout_metrics(record)
    for task in top_tasks(record):
        metrics[f"benchmarks/{_allowed(f'{task.task} {task.main_metric}')}"] = task.metrics[task.main_metric].value
        if (bits := task.metrics.get(_CONTINUOUS)) is not None:
            metrics[f"benchmarks/{_CONTINUOUS}/{_allowed(task.task)}"] = bits.value
    return metrics


def _heldout_metrics(record: EvaluationRecord) -> dict[str, float]:
    metrics = {"heldout/loss": record.loss, "heldout/perplexity": record.perplexity}
    if record.untrained_loss is not None:
        metrics["heldout/baseline/untrained loss"] = record.untrained_loss
    if (bits := record.bits_per_byte) is not None:
        metrics["heldout/bits_per_byte"] = bits.trained
        if bits.untrained is not None:
            metrics["heldout/baseline/untrained bits_per_byte"] = bits.untrained
        if bits.unigram is not None:
            metrics["heldout/baseline/unigram bits_per_byte"] = bits.unigram
    for group in record.groups:
        if group.group == "all":
            metrics |= {f"heldout/{name}": group.metrics[name].value for name in _MEASURES if name in group.metrics}
        else:
            measure = "bits_per_byte" if "bits_per_byte" in group.metrics else "loss"
            metrics[f"heldout/{measure}/{_allowed(group.group.replace('=', ' '))}"] = group.metrics[measure].value
    return metrics


def _allowed(name: str) -> str:
    """A part of a metric's name as MLflow takes it: without slashes of its own, which would make sections."""
    return _REFUSED.sub("_", name).replace("/", "_")


def benchmark_rows(record: EvaluationRecord) -> list[dict[str, Any]]:
    """A row for each task and metric, for `infra.tracking.log_table`; main metrics are marked."""
    return [
        {
            "task": task.task,
            "metric": name,
            **_figures(estimate),
            "main": "main" if name == task.main_metric else "",
            "chance": task.chance,
            "items": task.items,
            "few_shot": task.few_shot,
            "contaminated": task.contaminated,
            "without_contaminated": clean.value if (clean := (task.clean_metrics or {}).get(name)) else None,
        }
        for task in record.tasks
        for name, estimate in task.metrics.items()
    ]


def heldout_rows(record: EvaluationRecord) -> list[dict[str, Any]]:
    """A row for each group of held-out documents and metric."""
    return [
        {"group": group.group, "metric": name, **_figures(estimate), "documents": group.documents}
        | {"tokens": group.tokens, "bytes": group.text_bytes}
        for group in record.groups
        for name, estimate in group.metrics.items()
    ]


def sample_rows(record: EvaluationRecord, tokens: int) -> list[dict[str, Any]]:
    """A row for each prompt, with how the continuation was sampled; `tokens` is how many were trained on."""
    settings = record.settings
    sampling = {"temperature": settings.temperature, "top_k": settings.top_k, "most_tokens": settings.sample_tokens}
    return [
        {"tokens": tokens, "prompt": each.prompt, "continuation": each.text, **sampling, "seed": settings.seed}
        for each in record.samples
    ]


def evaluation_page(record: EvaluationRecord, tokens: int) -> str:
    """What an evaluation after so many tokens came to, in Markdown, for `infra.tracking.describe_run`."""
    lines = [f"Step {record.step:,}, after {tokens:,} tokens: held-out loss {record.loss:.4f} nats for each token"]
    if record.bits_per_byte is not None:
        lines[0] += f", {record.bits_per_byte.trained:.4f} bits for each byte"
    lines[0] += f", on {record.documents:,} documents."
    if tasks := top_tasks(record):
        lines += ["", "| Benchmark | Metric | Value | Interval | Chance | Items |", "|---|---|---|---|---|---|"]
    for task in tasks:
        main = task.metrics[task.main_metric]
        interval = "" if main.low is None or main.high is None else f"{main.low:.4f} to {main.high:.4f}"
        chance = "" if task.chance is None else f"{task.chance:.4f}"
        lines.append(
            f"| {task.task} | {task.main_metric} | {main.value:.4f} | {interval} | {chance} | {task.items:,} |"
        )
    return "\n".join([*lines, ""])


def _figures(estimate: Estimate) -> dict[str, float | None]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "stderr": estimate.standard_error}
