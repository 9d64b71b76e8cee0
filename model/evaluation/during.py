"""Evaluations of a run while it trains, by the ranks that train it, on a part of what an evaluation measures.

Everything that needs no weights is done before the first step. An evaluation changes nothing of the training: no
generator of random numbers is drawn from, and the next step is the one that would have come. One whose record is there
is not made again, so that a run that resumes at a step has it once.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from infra.manifest import DatasetManifest
from infra.store import Store
from model.evaluation.interruption import Interruption
from model.evaluation.measuring import Measuring
from model.findings.contender import top_tasks
from model.parallel import Place
from model.rank import StopRequest
from model.run import EvaluationRecord, RunRecord, evaluation_path, step_name

logger = logging.getLogger(__name__)


class Evaluations:
    """See the module docstring; every rank makes one and calls it after each step."""

    def __init__(self, store: Store, run: RunRecord, dataset: DatasetManifest, place: Place, stop: StopRequest) -> None:
        self._store, self._run, self._place = store, run, place
        self._settings = run.training.evaluation
        self._measuring: Measuring | None = None
        if self._settings is not None:
            of = self._settings.of.model_copy(update={"parallel": run.training.parallel, "step": None})
            self._measuring = Measuring(store, run, dataset, of, place, Interruption(place, stop))
        self._length = run.training.model.sequence_length

    def due(self, step: int, samples_before: int, samples: int) -> bool:
        """Whether to evaluate after a step that took the run from some samples to others."""
        length = self._length
        return self._settings is not None and self._settings.due(step, samples_before * length, samples * length)

    def make(self, chunks: Sequence[Any], step: int, samples: int) -> None:
        """Evaluate the model of a step, unless that has been done; Interrupted, on every rank, after a stop signal."""
        assert self._measuring is not None, "only what is due is made"
        path = evaluation_path(self._run, step)
        if self._place.share(self._place.rank == 0 and self._store.exists(path)):
            return
        with _between_steps(chunks):
            record = self._measuring.measure(chunks, step)
        if self._place.rank == 0:
            record.save(self._store, path)
            self._measuring.forget_answers(step)
            logger.info("%s", evaluation_line(record))

    def forget_after(self, step: int) -> None:
        """Remove the evaluations of later steps, which will be other ones; rank 0 does it."""
        folder = f"{self._run.folder}/evaluations"
        if self._place.rank == 0:
            for name in self._store.names(folder):
                if name > f"{step_name(step)}.json" and name.startswith("step-"):
                    self._store.remove(f"{folder}/{name}")


@contextmanager
def _between_steps(chunks: Sequence[Any]) -> Iterator[None]:
    """Weights that are whole, of chunks that do not gather them as they go, and layers as in training afterwards."""
    gathering = [chunk for chunk in chunks if chunk.ddp_config.overlap_param_gather]
    training = [chunk.training for chunk in chunks]
    for chunk in gathering:
        chunk.disable_forward_pre_hook()
    try:
        yield
    finally:
        for chunk in gathering:
            chunk.enable_forward_pre_hook()
        for chunk, was in zip(chunks, training, strict=True):
            chunk.train(was)


def evaluation_line(record: EvaluationRecord) -> str:
    """One line for the terminal: held-out text, then the main metric of each task that is in no group."""
    figures = [
        f"{task.task} {task.main_metric} {task.metrics[task.main_metric].value:.4f}" for task in top_tasks(record)
    ]
    loss = f"evaluation of step {record.step:,} in {record.seconds:.1f} s: held-out loss {record.loss:.4f}"
    return ", ".join([loss, *figures])
