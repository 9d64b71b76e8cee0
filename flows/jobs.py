"""Jobs of ranks: how those of a run are described, and what is refused before anything starts, a corpus included."""

import logging
import re
from urllib.parse import urlsplit

from flows.plans.flow_plan import free_bytes
from flows.plans.training_left import steps_done, training_left
from infra.environment import Environment
from infra.errors import BadInput
from infra.launching.launch import JobSpec
from infra.launching.launchers import open_launcher
from infra.store import Store
from model.config import EvaluationSettings, TrainingSettings, validate_evaluation
from model.estimates.fitting import require_fitting, require_weights
from model.estimates.flops import parameters
from model.run import RunRecord, require_folder

logger = logging.getLogger(__name__)
_QUIET = {"TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
"""Libraries of the harness draw bars, which are no lines of a log."""
_OWN = re.compile(r"(.*\.)?localhost|127\..*|::1")
"""Hosts that are another machine on every machine."""


def job_of(module: str, store: Store, record: RunRecord, processes: int, *arguments: str) -> JobSpec:
    """The job of a module of `model` that works for a run."""
    return _job(module, store, record.folder, record.training, processes, *arguments)


def _job(
    module: str, store: Store, folder: str, training: TrainingSettings, processes: int, *arguments: str
) -> JobSpec:
    whole = str(store.local_path(folder).absolute())
    return JobSpec(
        module=module,
        arguments=(whole, *arguments),
        processes=processes,
        environment=_QUIET,
        grace_seconds=training.checkpoint.grace_seconds + 5,
        folder=whole,
    )


def require_trainable(training: TrainingSettings, vocabulary_size: int, dataset: str, environment: Environment) -> None:
    """Refuse with BadInput what cannot work or does not fit, before the dataset is built that is trained on.

    Other machines say themselves what they have.
    """
    require_folder(Store(environment.root), dataset)
    require_fitting(training, vocabulary_size, elsewhere=environment.ranks_elsewhere)


def require_measurable(
    evaluation: EvaluationSettings, training: TrainingSettings, vocabulary_size: int, environment: Environment
) -> None:
    """Refuse with BadInput an evaluation of a model of a training that cannot work or whose weights do not fit."""
    validate_evaluation(evaluation, training.model, vocabulary_size)
    require_weights(training, evaluation.parallel, vocabulary_size, elsewhere=environment.ranks_elsewhere)


def require_disk(store: Store, run: RunRecord) -> None:
    """BadInput where the checkpoints that a training has still to write do not fit on its disk."""
    weights, free = parameters(run.training.model, run.vocabulary_size), free_bytes(store)
    needed = round(training_left(run.training, weights, run.steps, [steps_done(store, run)]).checkpoint_bytes)
    if free is not None and free < needed:
        raise BadInput(
            f"{needed:,} bytes are needed under {store.root} for checkpoints of {run.name}, {free:,} are free",
            "a training is not started whose checkpoints do not fit",
            "Make room, or set training.checkpoint.keep to fewer",
        )


def require_launchable(environment: Environment, training: TrainingSettings, *processes: int) -> None:
    """BadInput where the launcher could not start a run's jobs of so many processes; nothing is started."""
    launcher, store = open_launcher(environment.launcher), Store(environment.root)
    for each in dict.fromkeys(processes):
        launcher.check(_job("model.train", store, "runs/run", training, each))
    if environment.ranks_elsewhere and not _reached(environment.mlflow_tracking_uri):
        logger.warning(
            "MLflow is %s, where ranks on other machines cannot tell it anything, or as a file not safely: until a run "
            "ends it has no curves, and no load of their machines. Set environment.mlflow_tracking_uri to a server's "
            "address that they reach",
            environment.mlflow_tracking_uri or "a file under the root",
        )


def _reached(uri: str | None) -> bool:
    """Whether other machines may reach MLflow."""
    address = urlsplit(uri or "")
    return address.scheme not in ("", "sqlite", "file") and not _OWN.fullmatch(address.hostname or "")
