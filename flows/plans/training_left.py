"""What is left of trainings of which earlier launches made some steps: those that no checkpoint holds."""

from collections.abc import Sequence
from math import lcm

from infra.settings import Settings
from infra.store import Store
from model.config import EvaluationSettings, TrainingSettings
from model.run import EvaluationRecord, RunRecord, evaluation_path, finished_training
from model.settings.safety import CheckpointSettings
from model.tracked_checkpoints import checkpoint_steps


class TrainingLeft(Settings):
    """What trainings of the same settings have still to do, all together."""

    unfinished: int
    """Trainings with steps to make."""
    tokens: int
    """That go through the models."""
    evaluations: int
    """On the way of the trainings."""
    checkpoint_bytes: float
    """Of the checkpoints that come to those that are there."""


def steps_done(store: Store, run: RunRecord) -> int:
    """Steps from which a run would go on; 0 where it has not been started."""
    summary = finished_training(store, run)
    return run.steps if summary is not None else max(checkpoint_steps(store, run), default=0)


def is_evaluated(
    store: Store, run: RunRecord, step: int, wanted: EvaluationSettings, *, baselines: bool = False
) -> bool:
    """Whether a step was measured as wanted, and with `baselines` the untrained model too."""
    path = evaluation_path(run, step)
    if not store.exists(path):
        return False
    found = EvaluationRecord.load(store, path)
    return same_measures(found.settings, wanted) and not (baselines and found.untrained_loss is None)


def same_measures(one: EvaluationSettings, other: EvaluationSettings) -> bool:
    """Whether two evaluations of a step ask for the same."""
    return {**one.identity(), "step": None} == {**other.identity(), "step": None}


def training_left(training: TrainingSettings, weights: int, steps: int, done: Sequence[int]) -> TrainingLeft:
    """What is left of trainings of so many steps, given how many of them each has made."""
    unfinished = [each for each in done if each < steps]
    samples, length = training.batches.samples, training.model.sequence_length
    due = evaluations_until(training, steps)
    return TrainingLeft(
        unfinished=len(unfinished),
        tokens=sum(samples(steps) - samples(each) for each in unfinished) * length,
        evaluations=sum(due - evaluations_until(training, each) for each in unfinished),
        checkpoint_bytes=sum(checkpoint_bytes(training, weights, steps, each) for each in unfinished),
    )


def evaluations_until(training: TrainingSettings, steps: int) -> int:
    """Evaluations in the first so many steps: one at most after each, however many tokens it took."""
    if (during := training.evaluation) is None:
        return 0
    if during.every_tokens is None:
        return steps // (during.every_steps or 1)
    return min(steps, training.batches.samples(steps) * training.model.sequence_length // during.every_tokens)


def checkpoint_bytes(training: TrainingSettings, weights: int, steps: int, done: int = 0) -> float:
    """Bytes of all checkpoints at a time, one that is being written included, beside those that are there.

    Weights and Adam's two moments in float32, and in bfloat16 the weights in that type too; Muon has one moment.
    """
    each = weights * ((14 if training.dtype == "bfloat16" else 12) - (4 if training.optimizer.kind == "muon" else 0))
    return float(each * max(0, _kept(training.checkpoint, steps, writing=1) - _kept(training.checkpoint, done)))


def _kept(settings: CheckpointSettings, steps: int, writing: int = 0) -> int:
    """Checkpoints of the first so many steps that are not removed, the last step's among them."""
    if not steps:
        return 0
    every = settings.every_steps or steps
    made = -(-steps // every)
    if settings.keep is None:
        return made
    beside = 0 if settings.keep_every is None else steps // lcm(every, settings.keep_every)
    return min(made, settings.keep + beside + writing)
