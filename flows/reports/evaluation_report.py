"""What people get to see of one evaluation: a page and figures, in files and in MLflow.

evaluations/step-00000100/report.html      tables, samples and figures
                          figures/         scores.svg, scores.png; curves.svg and curves.png of a run that was evaluated
                                           at several steps
"""

from collections.abc import Sequence

from flows.comparison import alone
from flows.reports.comparison_report import draw
from flows.reports.task_table import heldout_table, task_table
from infra.report import short
from infra.store import Store
from infra.tables_page import PageTable, as_html
from infra.tracking import log_figure, log_text
from model.delivery import deliver_rest
from model.run import EvaluationRecord, RunRecord, evaluation_folder, finished_training, load_launch


def publish_evaluation(store: Store, run: RunRecord, record: EvaluationRecord, tokens: int) -> str:
    """Write the page and the figures of an evaluation after so many tokens, and show them in MLflow; gives its path."""
    folder, figures = evaluation_folder(run, record.step), draw(alone(store, run, record.step))
    drawn = [image for name, image in figures.items() if name.endswith(".svg")]
    title = f"{run.name} at step {record.step:,}"
    page = as_html(title, _lines(run, record, tokens), evaluation_tables(record), drawn)
    store.write_bytes(f"{folder}/report.html", page.encode())
    for name, image in figures.items():
        store.write_bytes(f"{folder}/figures/{name}", image)
    if (tracked := load_launch(store, run).tracked) is not None:
        if finished_training(store, run) is not None:  # one that goes on delivers by itself
            deliver_rest(store, run, tracked)
        log_text(tracked, page, "evaluation.html")
        for name, image in figures.items():
            log_figure(tracked, image, f"figures/{name}")
    return f"{folder}/report.html"


def evaluation_tables(record: EvaluationRecord) -> list[PageTable]:
    """Benchmarks with the members of groups last, held-out text, and samples."""
    tables = [task_table(record)] if record.tasks else []
    tables.append(heldout_table(record))
    if record.samples:
        tables.append(_samples(record))
    return tables


def _samples(record: EvaluationRecord) -> PageTable:
    settings = record.settings
    how = "the likeliest token each time" if settings.temperature == 0 else f"temperature {settings.temperature:g}"
    rows = tuple((each.prompt, each.text) for each in record.samples)
    return PageTable("Samples", f"Continued with {how}, seed {settings.seed}.", ("prompt", "continuation"), rows)


def _lines(run: RunRecord, record: EvaluationRecord, tokens: int) -> Sequence[str]:
    layout = record.layout
    found = [
        f"Run {run.folder}, trained on {short(tokens)} tokens of {run.dataset}/{run.dataset_version}.",
        f"Measured in {record.seconds:,.0f} s.",
        f"Processes: tensor {layout.tensor} x pipeline {layout.pipeline} x data {layout.data}.",
    ]
    if (bits := record.bits_per_byte) is not None and bits.untrained is not None:
        found.append(
            f"Held-out text costs {bits.trained:.3f} bits per byte; {bits.untrained:.3f} before training, "
            f"{bits.unigram:.3f} by token frequencies alone."
        )
    return found
