"""Scores of all runs of an ablation, cut down to items that no variant has seen and that all were asked."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from infra.errors import RunFailed
from infra.manifest import DatasetManifest
from infra.store import Store
from model.findings.records import TaskResult
from model.findings.seeds import Floats, Replicates, replicates
from model.run import EvaluationRecord, RunRecord, evaluation_folder
from tasks.tokens.mix import COPY_MARK

logger = logging.getLogger(__name__)
HELDOUT = "heldout/"
"""What tasks of held-out text begin with."""


class MeasuredRun(NamedTuple):
    """A finished run of a variant with one seed, and what its evaluation found."""

    variant: str
    seed: int
    run: RunRecord
    evaluation: EvaluationRecord

    @property
    def folder(self) -> str:
        """Folder of the evaluation's tables, relative to the root."""
        return evaluation_folder(self.run, self.evaluation.step)


class Key(NamedTuple):
    """A metric of a task."""

    task: str
    metric: str


@dataclass(frozen=True)
class Scores:
    """Items of one metric of one run, by ascending number."""

    items: npt.NDArray[np.int64]
    values: Floats
    weights: Floats

    def only(self, wanted: npt.NDArray[np.bool_]) -> "Scores":
        """The items that are marked."""
        return Scores(self.items[wanted], self.values[wanted], self.weights[wanted])


@dataclass(frozen=True)
class Unseen:
    """Items that no variant was trained on."""

    heldout: Mapping[str, npt.NDArray[np.bool_]]
    """By variant, which documents of its held-out split are."""
    contaminated: Mapping[str, frozenset[int]]
    """By task, which items are not."""

    def of(self, key: Key, scores: Scores) -> Scores:
        """What is left of the scores of a task."""
        if (mask := self.heldout.get(key.task.removeprefix(HELDOUT))) is not None and key.task.startswith(HELDOUT):
            return scores.only(mask[scores.items])
        seen = self.contaminated.get(key.task)
        return scores.only(~np.isin(scores.items, list(seen))) if seen else scores


def heldout_by_all(
    store: Store, dataset: DatasetManifest, variants: Iterable[DatasetManifest]
) -> npt.NDArray[np.bool_]:
    """Which documents of a held-out split no variant trains on, in the split's order.

    Documents are held out by a hash of their text. Where two variants make other text of one record, it may be held
    out of one and trained on in the other; it is the same document still, by its id.
    """
    ids = pa.concat_arrays([_record_ids(store, shard.path) for shard in dataset.split("heldout")])
    trained = np.zeros(len(ids), dtype=bool)
    for each in variants:
        for shard in each.split("train"):
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


def contaminated_items(store: Store, runs: Sequence[MeasuredRun]) -> dict[str, frozenset[int]]:
    """By task, the items that stand in what some variant was trained on, where that was looked for."""
    found: dict[str, set[int]] = {}
    for each in {run.variant: run for run in runs}.values():
        path = f"{each.folder}/contamination/items.parquet"
        if store.exists(path):
            for row in pq.read_table(store.local_path(path), columns=["task", "item", "documents"]).to_pylist():
                if row["documents"]:
                    found.setdefault(row["task"], set()).add(row["item"])
        elif each.evaluation.tasks:
            logger.warning("which items of benchmarks stand in the text of %s is not known", each.variant)
    for task, items in found.items():
        logger.info("%s: %d items stand in the text of a variant and are left out", task, len(items))
    return {task: frozenset(items) for task, items in found.items()}


def without_question(store: Store, run: MeasuredRun) -> frozenset[str]:
    """Tasks and groups whose items ask nothing: models tell which of two sentences is the right one (BLiMP)."""
    path = f"{run.folder}/items.parquet"
    if not run.evaluation.tasks or not store.exists(path):
        return frozenset()
    rows = pq.read_table(store.local_path(path), columns=["task", "text"])
    asking = set(rows.filter(_call("not_equal", rows["text"], ""))["task"].unique().to_pylist())
    return frozenset(each.task for each in run.evaluation.tasks if not asking & set(each.members or (each.task,)))


def read_scores(
    store: Store, runs: Sequence[MeasuredRun], datasets: Mapping[str, DatasetManifest], unseen: Unseen
) -> list[dict[Key, Scores]]:
    """Scores of every run by task or outermost group, with held-out text under the name of its variant.

    RunFailed if two runs were asked different items.
    """
    first = runs[0]
    for each in runs[1:]:
        if each.evaluation.items_digest != first.evaluation.items_digest:
            raise _other_items(f"{each.run.folder} and {first.run.folder}")
    found = [dict(_read(store, each, datasets, unseen)) for each in runs]
    for run, scores in zip(runs, found, strict=True):
        for key, each in found[0].items():
            if key not in scores or not np.array_equal(scores[key].items, each.items):
                raise _other_items(f"{run.run.folder} and {first.run.folder} ({key.task} {key.metric})")
    return found


def _other_items(which: str) -> RunFailed:
    return RunFailed(
        f"{which} were asked different items",
        "all variants answer the same items",
        "A task was changed meanwhile: remove the folders `evaluations` of both, and run the same command again",
    )


def _read(
    store: Store, run: MeasuredRun, datasets: Mapping[str, DatasetManifest], unseen: Unseen
) -> Iterator[tuple[Key, Scores]]:
    table = pq.read_table(store.local_path(f"{run.folder}/scores.parquet"))
    own: dict[Key, Scores] = {}
    for key, scores in _by_task(table):
        if (task := _named(key.task, run.variant, datasets)) is not None:
            named = Key(task, key.metric)
            own[named] = unseen.of(named, scores)
    yield from ((key, scores) for key, scores in own.items() if key.task.startswith(HELDOUT))
    for group in outermost(run.evaluation.tasks):
        members = group.members or (group.task,)
        for metric in dict.fromkeys(key.metric for key in own if key.task in members):
            parts = [own[Key(member, metric)] for member in members if Key(member, metric) in own]
            yield Key(group.task, metric), _joined(parts)


def _named(task: str, variant: str, datasets: Mapping[str, DatasetManifest]) -> str | None:
    """A task's name in an ablation: held-out text bears the name of its variant; its groups have none."""
    if not task.startswith(HELDOUT):
        return task
    if not task.endswith("/all"):
        return None
    dataset = task.removeprefix(HELDOUT).removesuffix("all").rstrip("/")
    names = {f"{each.name}/{each.version}": name for name, each in datasets.items()} | {"": variant}
    return HELDOUT + names.get(dataset, dataset)


def outermost(tasks: Sequence[TaskResult]) -> list[TaskResult]:
    """Tasks and groups that are not within another group."""
    found: list[TaskResult] = []
    for task in sorted(tasks, key=lambda each: -len(each.members)):
        if not any(set(task.members or (task.task,)) <= set(other.members) for other in found):
            found.append(task)
    return [task for task in tasks if task in found]


def _by_task(table: pa.Table) -> Iterator[tuple[Key, Scores]]:
    """Scores by task and metric."""
    table = table.sort_by([("task", "ascending"), ("metric", "ascending"), ("item", "ascending")])
    keys = [Key(row["task"], row["metric"]) for row in table.select(["task", "metric"]).to_pylist()]
    starts = [row for row, key in enumerate(keys) if row == 0 or key != keys[row - 1]]
    columns = [table[name].to_numpy() for name in ("item", "value", "weight")]
    for start, end in zip(starts, [*starts[1:], len(keys)], strict=True):
        items, values, weights = (column[start:end] for column in columns)
        yield keys[start], Scores(items.astype(np.int64), values, weights)


def _joined(parts: Sequence[Scores]) -> Scores:
    """The items of a group's members, one after the other."""
    sizes = [int(part.items.max(initial=-1)) + 1 for part in parts]
    firsts = np.cumsum([0, *sizes[:-1]])
    return Scores(
        np.concatenate([part.items + first for part, first in zip(parts, firsts, strict=True)]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.weights for part in parts]),
    )


def over_seeds(runs: Sequence[Scores]) -> Replicates:
    """The figure of a variant from the scores of its runs."""
    return replicates(np.stack([each.values for each in runs]), np.stack([each.weights for each in runs]))
