"""Delivers an evaluation to MLflow: curves over steps, tables, growing samples, the logged model of its checkpoint."""

from infra.manifest import load_dataset
from infra.run_description import log_inputs, used_dataset
from infra.store import Store
from infra.tracked_models import log_checkpoint
from infra.tracking import Tolerant, TrackedRun, client_of, describe_run, log_file, log_metrics, log_table
from model.findings.tracked import (
    benchmark_rows,
    evaluation_metrics,
    evaluation_page,
    heldout_rows,
    sample_rows,
)
from model.run import EvaluationRecord, RunRecord, evaluation_path, load_launch
from model.tracked_checkpoints import checkpoint_of

EVALUATED = "evaluated_tokens"
"""The metric that is sent last: an evaluation that has it is there in full."""


def track_evaluation(store: Store, run: RunRecord, record: EvaluationRecord, tokens: int) -> None:
    """Deliver an evaluation of a step, after so many tokens, to the run that training is tracked in, if any.

    A warning if the server does not answer.
    """
    tracked = load_launch(store, run).tracked
    if tracked is not None:
        with Tolerant(f"the evaluation of step {record.step}"):
            deliver_evaluation(store, run, record, tokens, tracked)


def deliver_evaluation(
    store: Store, run: RunRecord, record: EvaluationRecord, tokens: int, tracked: TrackedRun
) -> None:
    """The same; infra.tracking.tracking_errors() if the server does not answer."""
    client = client_of(tracked)
    names = [f"{run.dataset}/{run.dataset_version}", *record.settings.held_out]
    measured = [load_dataset(store, *name.split("/")) for name in dict.fromkeys(names)]
    log_inputs(client, tracked.run_id, [used_dataset(store, each, "evaluation") for each in measured])
    checkpoint = checkpoint_of(store, run, record.step)
    if checkpoint is None:
        log_metrics(tracked, record.step, evaluation_metrics(record))
    else:
        log_checkpoint(client, tracked, checkpoint)  # metrics of a logged model are its run's too
    tables = {
        "benchmarks.json": benchmark_rows(record),
        "heldout.json": heldout_rows(record),
        "samples.json": sample_rows(record, tokens),
    }
    for path, rows in tables.items():
        if rows:
            log_table(tracked, rows, path, record.step)
    describe_run(tracked, evaluation_page(record, tokens))
    log_file(tracked, store.local_path(evaluation_path(run, record.step)), "evaluations")
    client.log_metric(tracked.run_id, EVALUATED, tokens, step=record.step)
