"""Small tasks of every kind as lm-evaluation-harness's own YAML, and a model for them that makes its answers up."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.model import LM

SENTENCE = "the mill by the river grinds wheat and rye all day while the miller sleeps in the warm straw"
ACCURACY = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
BOTH_ACCURACIES = [*ACCURACY, {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True}]


class MadeUpModel(LM):
    """Likelihoods and texts that depend on nothing but the request and a seed."""

    def __init__(self, seed: int = 0, skill: float = 0.0) -> None:
        super().__init__()
        self._seed, self._skill = seed, skill

    def _number(self, *parts: str) -> float:
        return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16) / 2**32

    def _nats(self, context: str, text: str) -> float:
        shared = self._number(context, text) + 0.2 * self._number(str(self._seed), context, text)
        return -(1.5 + shared - self._skill * ("rye" in text)) * len(text.encode())

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        return [(self._nats(*each.args), self._number(*each.args) < 0.4) for each in requests]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        return [self._nats("", each.args[0]) for each in requests]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        return [f" It is #### {int(10 * self._number(each.args[0]))}" for each in requests]


def words(*numbers: int) -> str:
    known = SENTENCE.split()
    return " ".join(known[number % len(known)] for number in numbers)


def write_tasks(folder: Path) -> None:
    """Tasks of every kind, and groups whose members count by their items and alike."""
    rows = _rows()
    for name, config in {**_choices(), **_texts()}.items():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows[name]))
        extra = "process_results: !function labelled.process_results\n" if name == "labels" else ""
        common: Mapping[str, Any] = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "metadata": {"version": 1.5},
        }
        (folder / f"{name}.yaml").write_text(extra + _yaml({**common, **config}))
    (folder / "labelled.py").write_text(
        "import math\n\n\ndef process_results(document, results):\n"
        "    mass = [math.exp(value / 10) for value, _ in results]\n"
        "    right = [share for share, label in zip(mass, document['targets']['labels']) if label]\n"
        "    return {'acc': sum(right) / sum(mass)}\n"
    )
    for name, by_size, tasks in (
        ("pairs", True, ["pair", "other_pair"]),
        ("pairs_alike", False, ["third_pair", "fourth_pair"]),
    ):
        members = [{"metric": "acc", "aggregation": "mean", "weight_by_size": by_size}]
        group = {"group": name, "task": tasks, "aggregate_metric_list": members}
        (folder / f"{name}.yaml").write_text(_yaml({**group, "metadata": {"version": 2}}))


def _rows() -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {
        "ending": [
            {"question": words(n, n + 3, n + 5), "choices": [words(*range(k, 2 * k + n % 4 + 1)) for k in range(4)]}
            | {"label": n % 4}
            for n in range(24)
        ],
        "pair": [{"good": words(n, n + 1, n + 2), "bad": words(n + 2, n, n + 1)} for n in range(12)],
        "other_pair": [{"good": words(n, n + 4), "bad": words(n + 4, n)} for n in range(6)],
        "several": [{"question": words(n), "choices": ["rye", "wheat", "straw"], "label": [0, 2]} for n in range(9)],
        "labels": [
            {"question": words(n), "targets": {"choices": ["rye", "wheat", "oats", "é"], "labels": [1, 0, 1, 0]}}
            for n in range(9)
        ],
        "sure": [{"question": words(n, n + 1), "choices": ["no", "yes"], "label": n % 2} for n in range(30)],
        "last_word": [{"text": words(*range(n, n + 5))} for n in range(15)],
        "pages": [{"page": words(*range(n, 3 * n + 5))} for n in range(7)],
        "sum": [{"question": f"{n} + 1", "answer": f"So #### {n + 1}"} for n in range(10)],
        "told": [{"question": words(n, n + 1), "answer": words(n)} for n in range(8)],
        "fill": [{"start": words(n, n + 1), "label": n % 2, "rest": words(n + 5)} for n in range(10)],
    }
    return rows | {"third_pair": rows["other_pair"], "fourth_pair": rows["pair"]}


def _choices() -> dict[str, dict[str, Any]]:
    choice = {"output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_target": "{{label}}"}
    pair = {"output_type": "multiple_choice", "doc_to_text": "", "doc_to_target": 0, "metric_list": ACCURACY}
    pair["doc_to_choice"] = "{{[good, bad]}}"
    corpus = [
        {"metric": "mcc", "aggregation": "matthews_corrcoef", "higher_is_better": True},
        {"metric": "f1", "aggregation": "f1", "higher_is_better": True},
        {"metric": "acc_mutual_info", "aggregation": "mean", "higher_is_better": True},
    ]
    return {
        "ending": {**choice, "doc_to_choice": "choices", "metric_list": BOTH_ACCURACIES, "num_fewshot": 2},
        "several": {**choice, "doc_to_target": "label", "doc_to_choice": "choices", "metric_list": ACCURACY},
        "labels": {**choice, "doc_to_target": 0, "doc_to_choice": "{{targets.choices}}", "metric_list": ACCURACY},
        "sure": {**choice, "doc_to_choice": "choices", "metric_list": corpus},
        "pair": pair,
        **dict.fromkeys(("other_pair", "third_pair", "fourth_pair"), pair),
        "fill": {
            "output_type": "multiple_choice",
            "doc_to_text": "label",
            "doc_to_target": "rest",
            "doc_to_choice": "{{[start + ' rye', start + ' oats']}}",
            "metric_list": ACCURACY,
        },
    }


def _texts() -> dict[str, dict[str, Any]]:
    filters = [
        {"name": name, "filter": [{"function": "regex", "regex_pattern": pattern}, {"function": "take_first"}]}
        for name, pattern in (("strict-match", "#### ([0-9]+)"), ("flexible-extract", "([0-9]+)"))
    ]
    sums = {"output_type": "generate_until", "doc_to_text": "{{question}} =", "doc_to_target": "{{answer}}"}
    exact = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
    bleu = {"metric": "bleu", "aggregation": "bleu", "higher_is_better": True}
    return {
        "last_word": {
            "output_type": "loglikelihood",
            "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
            "doc_to_target": "{{' ' + text.split(' ')[-1]}}",
            "metric_list": [
                {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
                *ACCURACY,
            ],
        },
        "pages": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{page}}",
            "metric_list": [
                {"metric": name, "aggregation": aggregation, "higher_is_better": False}
                for name, aggregation in (
                    ("word_perplexity", "weighted_perplexity"),
                    ("byte_perplexity", "weighted_perplexity"),
                    ("bits_per_byte", "bits_per_byte"),
                )
            ],
        },
        "sum": {**sums, "metric_list": [{**exact, "regexes_to_ignore": ["(?s).*#### "]}], "filter_list": filters},
        "told": {**sums, "doc_to_target": "{{answer}}", "metric_list": [exact, bleu]},
    }


def _yaml(config: Mapping[str, Any]) -> str:
    """JSON is YAML, but for a tag of ours that stands on a line of its own."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items())


TASKS = ("ending", "several", "labels", "sure", "last_word", "pages", "sum", "told", "fill", "pairs", "pairs_alike")


def load(folder: Path) -> dict[str, Any]:
    """What the harness makes of the folder's tasks."""
    from lm_eval.tasks import TaskManager

    return dict(TaskManager(include_path=str(folder), include_defaults=False).load(list(TASKS)))


def ask(loaded: Mapping[str, Any], model: LM) -> dict[str, Any]:
    """What the harness returns; its own intervals are left out."""
    from lm_eval import evaluator

    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=1234)
    asked: Any = dict(loaded)
    found: Any = evaluator.evaluate(lm=model, task_dict=asked, bootstrap_iters=0, log_samples=True)
    return dict(found)
