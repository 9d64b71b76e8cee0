"""What an ablation finds: figures of every variant on the same items, and which variant is better by how much."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from infra.errors import BadInput, RunFailed
from infra.manifest import DatasetManifest
from infra.settings import Settings
from infra.store import Store
from model.evaluation.intervals import holm
from model.evaluation.records import EXPONENTIAL, LOWER_IS_BETTER, TaskResult
from model.evaluation.seeds import (
    Floats,
    Interval,
    Replicates,
    difference,
    figure,
    mean_of,
    replicates,
    seed_noise,
)
from model.run import EvaluationRecord, RunRecord, evaluation_folder
from tasks.tokens.mix import COPY_MARK

logger = logging.getLogger(__name__)
Verdict = Literal["better", "worse", "mixed", "no difference shown"]
BENCHMARKS = "benchmarks"
"""Name of the mean over tasks."""


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


class MeasuredRun(NamedTuple):
    """A finished run of a variant with one seed, and what its evaluation found."""

    variant: str
    seed: int
    run: RunRecord
    evaluation: EvaluationRecord

    @property
    def scores(self) -> str:
        """Path of its SCORES, relative to the root."""
        return f"{evaluation_folder(self.run, self.evaluation.step)}/scores.parquet"


class _Key(NamedTuple):
    task: str
    metric: str


@dataclass(frozen=True)
class _Scores:
    """Items of one metric of one run, by ascending number."""

    items: npt.NDArray[np.int64]
    values: Floats
    weights: Floats

    def only(self, wanted: npt.NDArray[np.bool_]) -> "_Scores":
        """The items whose number is marked."""
        chosen = wanted[self.items]
        return _Scores(self.items[chosen], self.values[chosen], self.weights[chosen])


def heldout_by_all(store: Store, dataset: DatasetManifest, others: Sequence[DatasetManifest]) -> npt.NDArray[np.bool_]:
    """Which documents of a held-out split none of the others trains on, in the split's order.

    Documents are held out by a hash of their text. Where two variants make other text of one record, it may be held
    out of one and trained on in the other; it is the same document still, by its id.
    """
    ids = pa.concat_arrays([_record_ids(store, shard.path) for shard in dataset.split("heldout")])
    trained = np.zeros(len(ids), dtype=bool)
    for other in others:
        for shard in other.split("train"):
            known = _call("is_in", ids, value_set=_record_ids(store, shard.path))
            trained |= known.to_numpy(zero_copy_only=False)
    return ~trained


def _record_ids(store: Store, path: str) -> pa.Array:
    """Ids of a token shard's documents, copies by the name of what they are copies of."""
    column = store.read_table(path, ["doc_id"])["doc_id"].combine_chunks()
    return _call("list_element", _call("split_pattern", column, COPY_MARK), 0)


def _call(name: str, *arguments: object, **options: object) -> pa.Array:
    """A function of pyarrow.compute, which makes them when it is imported, unseen by type checkers."""
    return getattr(pyarrow.compute, name)(*arguments, **options)


@dataclass(frozen=True)
class Findings:
    """All runs of an ablation, and the documents that each held-out set is cut down to."""

    store: Store
    runs: Sequence[MeasuredRun]
    datasets: Mapping[str, DatasetManifest]
    common: Mapping[str, npt.NDArray[np.bool_]]
    """By variant: which of its held-out documents no variant trains on."""
    judges: Sequence[str]
    confidence: float

    @property
    def variants(self) -> list[str]:
        """Names of the variants, the baseline first."""
        return list(self.datasets)

    def measures(self) -> tuple[Measure, ...]:
        """Every figure of every variant, with differences from the first; BadInput for a judge that there is not."""
        figures = dict(self._figures())
        tasks = list(dict.fromkeys(key.task for key in figures))
        if unknown := [name for name in self.judges if name not in tasks]:
            raise BadInput(
                f"judges {', '.join(unknown)}", f"a judge is one of {', '.join(tasks)}", "Name some of these, or none"
            )
        judges = self.judges or [task for task in tasks if not task.startswith("heldout/")] or tasks
        measures = [self._measure(key, found, key.task in judges) for key, found in figures.items()]
        return tuple(_corrected(measures, 1 - self.confidence))

    def _figures(self) -> Iterator[tuple[_Key, dict[str, Replicates]]]:
        """Figures by variant: of held-out text, of tasks and groups, and of the mean over these."""
        mean: dict[_Key, list[dict[str, Replicates]]] = {}
        for key in self._chosen():
            rows = {
                variant: [self._scores[each.variant, each.seed][key] for each in self.runs if each.variant == variant]
                for variant in self.variants
            }
            items = _same_items(key, [each for runs in rows.values() for each in runs])
            if items < 2:
                logger.warning("%s %s is left out: %d items are too few to say how sure it is", *key, items)
                continue
            found = {variant: _replicates(runs) for variant, runs in rows.items()}
            yield key, found
            if not key.task.startswith("heldout/"):
                kind = key.metric if key.metric in LOWER_IS_BETTER else "score"
                mean.setdefault(_Key(BENCHMARKS, kind), []).append(found)
        for key, parts in mean.items():
            if len(parts) > 1:
                yield key, {variant: mean_of([part[variant] for part in parts]) for variant in self.variants}

    def _chosen(self) -> Iterator[_Key]:
        """What to look at: likelihood of held-out text, then each task's main metric and the likelihood of answers."""
        known = self._scores[self.runs[0].variant, self.runs[0].seed]
        others = sorted({key.task for key in known if key.task.startswith("heldout/")})
        for task in dict.fromkeys([*(f"heldout/{name}" for name in self.variants), *others]):
            found = [key for key in (_Key(task, "bits_per_byte"), _Key(task, "loss")) if key in known]
            yield from found[:1]
        for task in _outermost(self.runs[0].evaluation.tasks):
            for metric in dict.fromkeys((task.main_metric, "answer_bits_per_byte", "bits_per_byte")):
                if _Key(task.task, metric) in known and metric not in EXPONENTIAL:
                    yield _Key(task.task, metric)

    @cached_property
    def _scores(self) -> dict[tuple[str, int], dict[_Key, _Scores]]:
        first = self.runs[0]
        for each in self.runs[1:]:
            if each.evaluation.items_digest != first.evaluation.items_digest:
                raise RunFailed(
                    f"{each.run.folder} and {first.run.folder} were asked different items",
                    "all variants answer the same items",
                    "A task was changed meanwhile: remove the folders `evaluations` of both, and run again",
                )
        return {(each.variant, each.seed): self._read(each) for each in self.runs}

    def _read(self, run: MeasuredRun) -> dict[_Key, _Scores]:
        """Scores of a run; held-out documents that some variant trains on are left out."""
        table = pq.read_table(self.store.local_path(run.scores))
        found: dict[_Key, _Scores] = {}
        groups = {task.task: task.members or (task.task,) for task in _outermost(run.evaluation.tasks)}
        for key, scores in _by_task(table, groups):
            task = self._heldout_of(key.task, run.variant)
            if task is None:
                continue
            variant = task.removeprefix("heldout/")
            found[_Key(task, key.metric)] = scores.only(self.common[variant]) if variant in self.common else scores
        return found

    def _heldout_of(self, task: str, variant: str) -> str | None:
        """A task's name in an ablation: held-out text bears the name of its variant; its parts are left out."""
        if not task.startswith("heldout/"):
            return task
        names = {f"heldout/{each.name}/{each.version}/all": f"heldout/{name}" for name, each in self.datasets.items()}
        names["heldout/all"] = f"heldout/{variant}"
        if task in names:
            return names[task]
        return task.removesuffix("/all") if task.endswith("/all") and task.count("/") == 3 else None

    def _measure(self, key: _Key, found: Mapping[str, Replicates], decides: bool) -> Measure:
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


def _outermost(tasks: Sequence[TaskResult]) -> list[TaskResult]:
    """Tasks and groups that are not within another group."""
    found: list[TaskResult] = []
    for task in sorted(tasks, key=lambda each: -len(each.members)):
        if not any(set(task.members or (task.task,)) <= set(other.members) for other in found):
            found.append(task)
    return [task for task in tasks if task in found]


def _by_task(table: pa.Table, groups: Mapping[str, Sequence[str]]) -> Iterator[tuple[_Key, _Scores]]:
    """Scores by task and metric; those of a group are of all its members' items, one after the other."""
    table = table.sort_by([("task", "ascending"), ("metric", "ascending"), ("item", "ascending")])
    own: dict[_Key, _Scores] = {}
    names = table.select(["task", "metric"]).to_pylist()
    keys = [_Key(row["task"], row["metric"]) for row in names]
    starts = [row for row, key in enumerate(keys) if row == 0 or key != keys[row - 1]]
    columns = [table[name].to_numpy() for name in ("item", "value", "weight")]
    for start, end in zip(starts, [*starts[1:], len(keys)], strict=True):
        items, values, weights = (column[start:end] for column in columns)
        own[keys[start]] = _Scores(items.astype(np.int64), values, weights)
    yield from ((key, scores) for key, scores in own.items() if key.task.startswith("heldout/"))
    for group, members in groups.items():
        metrics = dict.fromkeys(key.metric for key in own if key.task in members)
        for metric in metrics:
            parts = [own[_Key(member, metric)] for member in members if _Key(member, metric) in own]
            yield _Key(group, metric), _joined(parts)


def _joined(parts: Sequence[_Scores]) -> _Scores:
    if len(parts) == 1:
        return parts[0]
    firsts = np.cumsum([0, *(int(part.items[-1]) + 1 for part in parts)])
    items = np.concatenate([part.items + first for part, first in zip(parts, firsts, strict=False)])
    return _Scores(
        items, np.concatenate([part.values for part in parts]), np.concatenate([part.weights for part in parts])
    )


def _same_items(key: _Key, runs: Sequence[_Scores]) -> int:
    """How many items all runs were measured on; RunFailed if they are not the same ones."""
    first = runs[0].items
    if any(not np.array_equal(each.items, first) for each in runs):
        raise RunFailed(
            f"{key.task} {key.metric} was measured on other items in one run than in another",
            "all variants answer the same items",
            "Remove the folders `evaluations` of the runs, and run the same command again",
        )
    return len(first)


def _replicates(runs: Sequence[_Scores]) -> Replicates:
    return replicates(np.stack([each.values for each in runs]), np.stack([each.weights for each in runs]))


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
