"""What an ablation finds: figures of every variant on the same items, and which variant is better by how much."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from flows.ablations.scores import HELDOUT, Key, MeasuredRun, Scores, outermost, over_seeds
from infra.errors import BadInput
from infra.settings import Settings
from model.findings.intervals import holm
from model.findings.records import EXPONENTIAL, LOWER_IS_BETTER
from model.findings.seeds import Interval, Replicates, difference, figure, mean_of, seed_noise

logger = logging.getLogger(__name__)
Verdict = Literal["better", "worse", "mixed", "no difference shown"]
BENCHMARKS = "benchmarks"
"""Name of the mean over tasks."""
FEWEST_ITEMS = 2
"""Of one item nobody can say how sure it is."""


class VariantFigure(Settings):
    """A variant's figure: mean over seeds, with an interval over items and seeds."""

    variant: str
    mean: Interval
    by_seed: tuple[float, ...]


class Difference(Settings):
    """A variant against the baseline, on the same items."""

    variant: str
    above: Interval
    """Its figure less the baseline's, with the p-value of this comparison alone."""
    p_value: float
    """By Holm's method for all comparisons that decide, or for all that do not."""
    verdict: Verdict


class Measure(Settings):
    """One metric on one set of items that every model was measured on."""

    task: str
    """heldout/VARIANT for the held-out text of a variant, benchmarks for the mean over tasks, or a task."""
    metric: str
    higher_is_better: bool
    items: int
    decides: bool
    """Whether the conclusion rests on it."""
    figures: tuple[VariantFigure, ...]
    differences: tuple[Difference, ...]

    @property
    def name(self) -> str:
        """Task and metric."""
        return f"{self.task} {self.metric}"


class Conclusion(Settings):
    """What the deciding measures say of a variant."""

    variant: str
    baseline: str
    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Findings:
    """All runs of an ablation with their scores."""

    runs: Sequence[MeasuredRun]
    scores: Sequence[Mapping[Key, Scores]]
    """Of each run, of the same items."""
    judges: Sequence[str]
    confidence: float
    unasked: frozenset[str] = frozenset()
    """Tasks without questions: how likely the right sentence is says no more of them than held-out text does, so that
    the margin over the wrong one is looked at."""

    @property
    def variants(self) -> list[str]:
        """Names of the variants, the baseline first."""
        return list(dict.fromkeys(run.variant for run in self.runs))

    def measures(self) -> tuple[Measure, ...]:
        """Every figure of every variant, with differences from the first; BadInput for a judge that there is not."""
        figures = dict(self._figures())
        tasks = list(dict.fromkeys(key.task for key in figures))
        if unknown := [name for name in self.judges if name not in tasks]:
            raise BadInput(
                f"judges {', '.join(unknown)}", f"a judge is one of {', '.join(tasks)}", "Name some of these, or none"
            )
        judges = self.judges or [task for task in tasks if not task.startswith(HELDOUT)] or tasks
        measures = [self._measure(key, found, key.task in judges) for key, found in figures.items()]
        return tuple(_corrected(measures, 1 - self.confidence))

    def _figures(self) -> Iterator[tuple[Key, dict[str, Replicates]]]:
        """Figures by variant: of held-out text, of tasks and groups, and of the mean over these."""
        mean: dict[Key, list[dict[str, Replicates]]] = {}
        for key in self._chosen():
            if (items := len(self.scores[0][key].items)) < FEWEST_ITEMS:
                logger.warning("%s %s is left out: %d items are too few to say how sure it is", *key, items)
                continue
            yield key, (found := {variant: self._of(variant, key) for variant in self.variants})
            if (kind := self._kind(key)) is not None:
                mean.setdefault(Key(BENCHMARKS, kind), []).append(found)
        for key, parts in mean.items():
            if len(parts) > 1:
                yield key, {variant: mean_of([part[variant] for part in parts]) for variant in self.variants}

    def _of(self, variant: str, key: Key) -> Replicates:
        return over_seeds(
            [each[key] for run, each in zip(self.runs, self.scores, strict=True) if run.variant == variant]
        )

    def _chosen(self) -> Iterator[Key]:
        """What to look at: likelihood of held-out text, then each task's main metric and the likelihood of answers."""
        known = self.scores[0]
        others = sorted({key.task for key in known if key.task.startswith(HELDOUT)})
        for task in dict.fromkeys([*(f"{HELDOUT}{name}" for name in self.variants), *others]):
            found = [key for key in (Key(task, "bits_per_byte"), Key(task, "loss")) if key in known]
            yield from found[:1]
        for task in outermost(self.runs[0].evaluation.tasks):
            answer = "margin" if task.task in self.unasked else "answer_bits_per_byte"
            for metric in dict.fromkeys((task.main_metric, answer, "bits_per_byte")):
                if Key(task.task, metric) in known and metric not in EXPONENTIAL:
                    yield Key(task.task, metric)

    def _kind(self, key: Key) -> str | None:
        """Which mean over tasks a figure belongs to: that of scores, or of bits per byte."""
        if key.task.startswith(HELDOUT) or key.metric == "margin":
            return None
        return key.metric if key.metric in LOWER_IS_BETTER else "score"

    def _measure(self, key: Key, found: Mapping[str, Replicates], decides: bool) -> Measure:
        noise = seed_noise(found)
        baseline, *others = self.variants
        higher = key.metric not in LOWER_IS_BETTER
        figures = [
            VariantFigure(
                variant=name, mean=figure(each, noise, self.confidence), by_seed=tuple(map(float, each.by_seed))
            )
            for name, each in found.items()
        ]
        differences = [(name, difference(found[name], found[baseline], noise, self.confidence)) for name in others]
        return Measure(
            task=key.task,
            metric=key.metric,
            higher_is_better=higher,
            items=len(found[baseline].parts),
            decides=decides,
            figures=tuple(figures),
            differences=tuple(
                Difference(variant=name, above=above, p_value=above.p_value, verdict=_direction(above, higher))
                for name, above in differences
            ),
        )


def _direction(above: Interval, higher_is_better: bool) -> Verdict:
    return "better" if (above.value > 0) == higher_is_better else "worse"


def _corrected(measures: Sequence[Measure], level: float) -> Iterator[Measure]:
    """P-values for their number, those that decide apart from the others; what is not sure shows no difference."""
    corrected: dict[tuple[int, int], float] = {}
    for decides in (True, False):
        places = [
            (number, place)
            for number, measure in enumerate(measures)
            if measure.decides == decides
            for place in range(len(measure.differences))
        ]
        raw = [measures[number].differences[place].p_value for number, place in places]
        corrected |= dict(zip(places, holm(raw), strict=True))
    for number, measure in enumerate(measures):
        differences = []
        for place, each in enumerate(measure.differences):
            p_value = corrected[number, place]
            verdict: Verdict = each.verdict if p_value < level else "no difference shown"
            differences.append(each.model_copy(update={"p_value": p_value, "verdict": verdict}))
        yield measure.model_copy(update={"differences": tuple(differences)})


def conclude(measures: Sequence[Measure], variants: Sequence[str]) -> tuple[Conclusion, ...]:
    """What the deciding measures say of every variant but the first, in words."""
    baseline, *others = variants
    return tuple(_conclude(measures, variant, baseline) for variant in others)


def _conclude(measures: Sequence[Measure], variant: str, baseline: str) -> Conclusion:
    deciding = [measure for measure in measures if measure.decides]
    found: dict[str, list[str]] = {"better": [], "worse": [], "no difference shown": []}
    for measure in deciding:
        one = next(each for each in measure.differences if each.variant == variant)
        found[one.verdict].append(measure.name)
    sure = [verdict for verdict in ("better", "worse") if found[verdict]]
    verdict = cast("Verdict", "mixed" if len(sure) > 1 else sure[0] if sure else "no difference shown")
    text = " and ".join(f"{each} by {', '.join(found[each])}" for each in sure)
    text = f"{variant} against {baseline}: {text}" if sure else f"{variant} against {baseline}: no difference shown"
    if unsure := len(found["no difference shown"]):
        text += f"; {unsure} of {len(deciding)} deciding measures show none" if sure else ""
    return Conclusion(variant=variant, baseline=baseline, verdict=verdict, text=text)
