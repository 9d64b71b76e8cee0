"""How much of an evaluation's items stands in what the model was trained on, beside the evaluation's own files.

evaluations/step-00000100/contamination/items.parquet   CONTAMINATED: what was found of each item, with its passage
evaluations/step-00000100/contamination.json            ContaminationRecord, written last
"""

import logging
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from infra.store import Store
from model.findings.clean_scores import with_contamination
from model.findings.records import TaskResult
from model.run import RunRecord, training_datasets
from model.settings.benchmarks import BenchmarkSettings
from tasks.phrases.contamination import Contamination, ContaminationSettings, contamination
from tasks.stage import StageRunner

logger = logging.getLogger(__name__)


def look_for_contamination(
    runner: StageRunner, run: RunRecord, folder: str, settings: ContaminationSettings
) -> Contamination | None:
    """Look for the items of an evaluation, whose files are in a folder, in all that its run was trained on.

    The documents searched are those of the whole training splits, however far a run has come in them. None, with a
    warning, where they are gone.
    """
    if run.training.start_from is not None:
        logger.warning("%s went on from %s, whose training text is not known", run.folder, run.training.start_from)
    found = contamination(runner, f"{folder}/items.parquet", training_datasets(runner.store, run), settings)
    if found is None:
        return None
    # Passages are of documents, which may hold personal data.
    with runner.store.create(f"{folder}/contamination/items.parquet", private=True) as out:
        pq.write_table(found.items, pa.PythonFile(out, "w"), compression="zstd")
    found.record.save(runner.store, f"{folder}/contamination.json")
    for each in found.record.tasks:
        if each.contaminated:
            counts = (f"{each.contaminated:,}", f"{each.looked_for:,}")
            logger.info("%s: %s of %s items stand in the training documents", each.task, *counts)
    return found


def with_clean_scores(
    store: Store, folder: str, results: Sequence[TaskResult], found: Contamination, settings: BenchmarkSettings
) -> tuple[TaskResult, ...]:
    """The results of an evaluation, whose files are in a folder, with their figures over items that are clean."""
    scores = pq.read_table(pa.BufferReader(store.read_bytes(f"{folder}/scores.parquet")))
    contaminated = {each.task: list[int]() for each in found.record.tasks if each.looked_for}
    for row in found.items.select(["task", "item", "documents"]).to_pylist():
        if row["documents"]:
            contaminated[row["task"]].append(row["item"])
    return with_contamination(results, scores, contaminated, settings)
