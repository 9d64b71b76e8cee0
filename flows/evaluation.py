"""The evaluation flow: held-out text, benchmarks and samples of a trained model; and what of the items it has read."""

import logging

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.beginning import begin
from flows.config import DatasetSettings, PipelineSettings
from flows.contamination import look_for_contamination, with_clean_scores
from flows.jobs import job_of, require_measurable
from flows.live.training_watch import watched_evaluation
from flows.live.watching import watched_runner
from flows.plans.whole_plan import affordable
from flows.pretraining import launch
from flows.reports.evaluation_report import evaluation_tables, publish_evaluation
from flows.runs import chosen_run, measured_step, tracked_run
from infra.environment import Environment
from infra.launching.launchers import open_launcher
from infra.manifest import fingerprint
from infra.settings import Settings
from infra.store import Store
from infra.tables_page import as_markdown
from model.config import EvaluationSettings, TrainingSettings
from model.findings.tracking import track_evaluation
from model.run import (
    EvaluationRecord,
    RunRecord,
    evaluation_folder,
    evaluation_path,
    trained_tokens,
)
from tasks.phrases.contamination import ContaminationRecord, ContaminationSettings

logger = logging.getLogger(__name__)


class Evaluation(Settings):
    """What the flow returns."""

    run: RunRecord
    record: EvaluationRecord
    page: str
    """The HTML page."""


@flow(name="evaluate", persist_result=False)
def evaluate(
    run: str = "model",
    evaluation: EvaluationSettings = EvaluationSettings(),
    contamination: ContaminationSettings | None = ContaminationSettings(),
    training: TrainingSettings | None = None,
    dataset: DatasetSettings | None = None,
    environment: Environment = Environment(),
) -> Evaluation:
    """Measure a finished run on held-out text and benchmarks, beside the untrained model and token frequencies.

    Where several runs have the same name, `run` is NAME/VERSION-FINGERPRINT, or `training` and `dataset` are those that
    the run was made with.
    """
    store = begin(environment)
    record, manifest = chosen_run(store, run, training, dataset)
    step = measured_step(store, record, evaluation)
    require_measurable(evaluation, record.training, manifest.tokenizer.vocabulary_size, environment)
    tracked_run(store, record, environment)  # ranks and pages go by what it writes down
    if (found := _measured(store, record, step, evaluation)) is None:
        _afford(record, evaluation, environment)
        _launch(store, record, evaluation, environment)
        found = EvaluationRecord.load(store, evaluation_path(record, step))
    if contamination is not None and found.tasks:
        found = contaminated(store, record, found, contamination, environment)
    page = publish_evaluation(store, record, found, trained_tokens(store, record, step))
    _show(found)
    return Evaluation(run=record, record=found, page=store.full_path(page))


def _measured(store: Store, run: RunRecord, step: int, settings: EvaluationSettings) -> EvaluationRecord | None:
    """An earlier evaluation with the same settings; of benchmarks the ranks have to say, who read the tasks' files."""
    path = evaluation_path(run, step)
    if settings.benchmarks.tasks or not store.exists(path):
        return None
    found = EvaluationRecord.load(store, path)
    if found.settings != settings or found.untrained_loss is None:
        return None
    logger.info("evaluate: already done, %s", path)
    return found


def _afford(run: RunRecord, evaluation: EvaluationSettings, environment: Environment) -> None:
    """BadInput for an evaluation that the launcher cannot start, or that costs more than a budget."""
    dataset = DatasetSettings(name=run.dataset, version=run.dataset_version)
    made_with = {"dataset": dataset, "run": run.name, "training": run.training}
    affordable("evaluate", PipelineSettings(environment=environment, evaluation=evaluation, **made_with))


def _launch(store: Store, run: RunRecord, settings: EvaluationSettings, environment: Environment) -> None:
    """The settings' file has a name of its own, so that a job that still works for others is told from this one."""
    content = settings.model_dump(mode="json")
    path = f"{run.folder}/evaluation-settings-{fingerprint(settings=content)}.json"
    store.write_bytes(path, settings.model_dump_json(indent=1).encode())
    arguments = (str(store.local_path(path).absolute()),)
    with watched_evaluation() as told:
        job = job_of("model.evaluate", store, run, settings.parallel.processes, *arguments)
        launch(job, open_launcher(environment.launcher), on_line=told)


@task(cache_policy=NO_CACHE, persist_result=False)
def contaminated(
    store: Store,
    run: RunRecord,
    record: EvaluationRecord,
    settings: ContaminationSettings,
    environment: Environment,
) -> EvaluationRecord:
    """The evaluation with the items that stand in the training documents counted, and its figures without them."""
    folder = evaluation_folder(run, record.step)
    path = f"{folder}/contamination.json"
    looked_for = any(task.contaminated is not None for task in record.tasks)
    if looked_for and store.exists(path) and ContaminationRecord.load(store, path).settings == settings:
        return record
    with watched_runner(store, environment) as runner:
        found = look_for_contamination(runner, run, folder, settings)
    if found is None:
        return record
    tasks = with_clean_scores(store, folder, record.tasks, found, record.settings.benchmarks)
    record = record.model_copy(update={"tasks": tasks})
    record.save(store, evaluation_path(run, record.step))
    track_evaluation(store, run, record, trained_tokens(store, run, record.step))
    return record


def _show(record: EvaluationRecord) -> None:
    page = as_markdown(evaluation_tables(record))
    create_markdown_artifact(page, key="evaluation", description=f"Evaluation of step {record.step:,}")
