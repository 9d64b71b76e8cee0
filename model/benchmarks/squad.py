"""SQuAD from files: the harness's `squadv2` with its items beside it, measured without code from the hub.

Prompts are the harness's. Its measures are those of SQuAD's own script (Rajpurkar et al. 2018, arXiv:1806.03822), in
percent, here of each item, so that intervals can be had. What that script says of questions with and without an answer
apart, and of the best threshold over all items, is left out. A question without an answer is answered right by saying
nothing.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lm_eval.api.metrics import mean
from lm_eval.tasks.squadv2.task import SQuAD2

_METRICS = ("exact", "f1")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


class SquadFiles(SQuAD2):
    """The task `squadv2` on the data that its YAML names."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._data: Callable[[], Any] = config["custom_dataset"]
        super().__init__(config={"metadata": {"version": self.VERSION}})
        self.config.task = config["task"]

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """Read the files."""
        self.dataset = self._data()

    def has_training_docs(self) -> Any:
        """Whether examples can be had that are not asked."""
        return "train" in self.dataset

    def validation_docs(self) -> Any:
        """The items that are asked."""
        return self.dataset["validation" if "validation" in self.dataset else max(self.dataset)]

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Exact match and F1 of one answer in percent."""
        best = _best(results[0], list(doc["answers"]["text"]) or [""])
        return {name: 100.0 * each for name, each in zip(_METRICS, best, strict=True)}

    def aggregation(self) -> dict[str, Any]:
        """Means over the items."""
        return dict.fromkeys(_METRICS, mean)

    def higher_is_better(self) -> dict[str, bool]:
        """All of them."""
        return dict.fromkeys(_METRICS, True)


def _best(answer: str, right: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 with the right answer that is nearest, each for itself, in [0, 1]."""
    given, each = normalized(answer), [normalized(text) for text in right]
    return max(float(given == text) for text in each), max(_overlap(given.split(), text.split()) for text in each)


def normalized(text: str) -> str:
    """Small letters without punctuation, articles and superfluous spaces."""
    kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", kept).split())


def _overlap(given: list[str], right: list[str]) -> float:
    """F1 of words."""
    if not given or not right:
        return float(given == right)
    same = sum((Counter(given) & Counter(right)).values())
    return 2 * same / (len(given) + len(right))
