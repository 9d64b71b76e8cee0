"""Delivers an evaluation to MLflow: curves over steps, tables of benchmarks and groups, samples that grow."""

from infra.store import Store
from infra.tracking import describe_run, log_file, log_metrics, log_table
from model.findings.tracked import (
    benchmark_rows,
    evaluation_metrics,
    evaluation_page,
    heldout_rows,
    sample_rows,
)
from model.run import EvaluationRecord, RunRecord, evaluation_path, load_launch


def track_evaluation(store: Store, run: RunRecord, record: EvaluationRecord, tokens: int) -> None:
    """Deliver an evaluation of a step, after so many tokens, to the run that training is tracked in, if any."""
    tracked = load_launch(store, run).tracked
    if tracked is None:
        return
    log_metrics(tracked, record.step, {**evaluation_metrics(record), "evaluated_tokens": tokens})
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
