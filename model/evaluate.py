"""A rank of an evaluation: `torchrun --nproc-per-node N -m model.evaluate RUN_DIR [EVALUATION_SETTINGS_JSON]`.

Measures a checkpoint on the dataset's held-out split, under a layout of its own, beside the model as initialised and a
unigram baseline on the same tokens; writes `evaluations/step-00000100.json`. An evaluation that stands there already
with the same settings is not made again.
"""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from infra.errors import BadInput
from infra.manifest import DatasetManifest
from infra.store import Store
from model.config import EvaluationSettings, validate_evaluation
from model.findings.tracking import track_evaluation
from model.run import EvaluationRecord, RunRecord, evaluation_path, open_run_folder

if TYPE_CHECKING:
    from model.evaluation.measuring import Measuring
    from model.parallel import Place
    from model.recovery.checkpoint import CheckpointRecord, Checkpoints

logger = logging.getLogger(__name__)


def main(arguments: list[str]) -> None:
    """Evaluate the run whose folder is given, with the settings in the JSON file that may be given."""
    if len(arguments) not in (1, 2):
        raise BadInput(f"arguments {arguments}", "model.evaluate takes a run's folder and a settings file", "Give both")
    settings = _read_settings(Path(arguments[1])) if len(arguments) == 2 else EvaluationSettings()
    store, run, dataset = open_run_folder(Path(arguments[0]))
    validate_evaluation(settings, run.training.model, run.vocabulary_size)
    evaluate(store, run, dataset, settings)


def _read_settings(path: Path) -> EvaluationSettings:
    try:
        return EvaluationSettings.model_validate_json(path.read_text())
    except (FileNotFoundError, ValidationError) as error:
        raise BadInput(
            f"{path} ({error})", "evaluation settings are the JSON of EvaluationSettings", "Correct the file"
        ) from error


def evaluate(store: Store, run: RunRecord, dataset: DatasetManifest, settings: EvaluationSettings) -> EvaluationRecord:
    """Measure, and write and track the record; every rank calls this and gets it."""
    from model.evaluation.measuring import Measuring
    from model.parallel import parallel
    from model.recovery.checkpoint import Checkpoints

    # Sequence parallelism and overlap help training only, and a single position cannot be shared out.
    layout = settings.parallel.model_copy(
        update={"sequence_parallel": False, "tensor_overlap": False, "overlap": False}
    )
    settings = settings.model_copy(update={"parallel": layout})
    with parallel(layout, run.training.seed) as place:
        checkpoints = Checkpoints(store, run, place)
        checkpoint = _find(checkpoints, settings.step, run)
        measuring = Measuring(store, run, dataset, settings, place)
        record = _same_evaluation(store, run, checkpoint.step, settings, measuring.items_digest)
        if record is None:
            record = _measure(measuring, run, settings, place, checkpoints, checkpoint)
            if place.rank == 0:
                record.save(store, evaluation_path(run, checkpoint.step))
                measuring.forget_answers(checkpoint.step)
                tokens = checkpoint.consumed_samples * run.training.model.sequence_length
                track_evaluation(store, run, record, tokens)
        if place.rank == 0:
            _announce(record)
        place.wait_for_all()
    return record


def _find(checkpoints: "Checkpoints", step: int | None, run: RunRecord) -> "CheckpointRecord":
    record = checkpoints.latest(step)
    if record is None or step not in (None, record.step):
        raise BadInput(
            f"{run.folder} has no whole checkpoint {'' if step is None else f'of step {step}'}".rstrip(),
            f"an evaluation needs one; there are those of steps {[each.step for each in checkpoints.complete()]}",
            "Train the run first, or name a step that is there",
        )
    return record


def _same_evaluation(
    store: Store, run: RunRecord, step: int, settings: EvaluationSettings, items_digest: str | None
) -> EvaluationRecord | None:
    path = evaluation_path(run, step)
    if not store.exists(path):
        return None
    found = EvaluationRecord.load(store, path)
    same = found.fingerprint == run.fingerprint and _chosen(found.settings) == _chosen(settings)
    return found if same and found.items_digest == items_digest and found.untrained_loss is not None else None


def _chosen(settings: EvaluationSettings) -> dict[str, Any]:
    """What decides the numbers; the step is in the file's name, however it was chosen."""
    return {**settings.identity(), "step": None}


def _measure(
    measuring: "Measuring",
    run: RunRecord,
    settings: EvaluationSettings,
    place: "Place",
    checkpoints: "Checkpoints",
    checkpoint: "CheckpointRecord",
) -> EvaluationRecord:
    from model.architectures.build import build_model

    # Texts of many lengths are many shapes, for which compiling would take longer than it saves.
    training = run.training.model_copy(update={"compiled": False})
    chunks = build_model(training, settings.parallel, place, run.vocabulary_size)
    measuring.measure_baselines(chunks)
    checkpoints.load(checkpoint, chunks)
    return measuring.measure(chunks, checkpoint.step)


def _announce(record: EvaluationRecord) -> None:
    tokens = f"{record.tokens:,}"
    logger.info(
        "step %d on %s held-out tokens: loss %.4f, perplexity %.2f", record.step, tokens, record.loss, record.perplexity
    )
    if (bits := record.bits_per_byte) is not None:
        logger.info("bits per byte %.3f", bits.trained)
    if record.tasks:
        logger.info("%d benchmarks in %.0f s", len(record.tasks), record.seconds)


if __name__ == "__main__":
    from model.rank import rank_process

    with rank_process():
        main(sys.argv[1:])
