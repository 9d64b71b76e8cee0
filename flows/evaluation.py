"""The evaluation flow: what a trained model makes of held-out text."""

import logging

from prefect import flow

from flows import progress
from flows.config import DatasetSettings
from flows.pretraining import launch
from infra.errors import BadInput
from infra.manifest import load_dataset
from infra.settings import Environment, Settings
from infra.store import Store
from model.config import EvaluationSettings, TrainingSettings, validate_evaluation
from model.run import EvaluationRecord, RunRecord, evaluation_path, finished_training, prepare_run

logger = logging.getLogger(__name__)


class Evaluation(Settings):
    """What the flow returns."""

    run: RunRecord
    record: EvaluationRecord


@flow(name="evaluate", persist_result=False)
def evaluate(
    dataset: DatasetSettings = DatasetSettings(),
    run: str = "model",
    training: TrainingSettings = TrainingSettings(),
    evaluation: EvaluationSettings = EvaluationSettings(),
    environment: Environment = Environment(),
) -> Evaluation:
    """Measure held-out loss and bits per byte of a finished run, beside the untrained model and token frequencies."""
    progress.let_through()
    store = Store(environment.root)
    manifest = load_dataset(store, dataset.name, dataset.version)
    record = prepare_run(store, manifest, run, training)
    summary = finished_training(store, record)
    if summary is None:
        raise BadInput(f"run {record.folder}", "it must be trained before it is evaluated", "Run `gristmill pretrain`")
    validate_evaluation(evaluation, training.model, manifest.tokenizer.vocabulary_size)
    path = evaluation_path(record, summary.steps)
    if store.exists(path) and (found := EvaluationRecord.load(store, path)).settings == evaluation:
        logger.info("evaluate: already done, %s", path)
        return Evaluation(run=record, record=found)
    settings_path = f"{record.folder}/evaluation-settings.json"
    store.write_bytes(settings_path, evaluation.model_dump_json(indent=1).encode())
    settings_file = str(store.local_path(settings_path).absolute())
    launch("model.evaluate", store, record, evaluation.parallel.processes, settings_file)
    return Evaluation(run=record, record=EvaluationRecord.load(store, path))
