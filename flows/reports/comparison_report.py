"""What people get to see of a comparison: text, Markdown, an HTML page, figures; in files and in MLflow.

comparison/NAME/comparison.json    Comparison, written last
                comparison.md      for people
                comparison.html    the same with figures
                figures/           scores.svg, scores.png; curves.svg and curves.png where runs have several evaluations
"""

import json
from collections.abc import Iterator, Sequence

from flows.reports.task_table import figure_text, number
from flows.reports.tracking_tags import experiment, run_tags
from infra.environment import Environment
from infra.figures import CurvePanel, Dot, DotPanel, DotRow, draw_curves, draw_dots
from infra.report import short
from infra.run_description import HELD_OUT as HELD_OUT_INPUT
from infra.run_description import UsedDataset
from infra.store import Store
from infra.tables_page import PageTable, as_html, as_markdown, as_text
from infra.tracking import TrackedRun, finish_run, log_figure, log_file, log_metrics, log_table, log_text, open_run
from model.findings.comparing import (
    HELD_OUT,
    MARGINS,
    MEMBERS,
    ComparedFigure,
    ComparedRow,
    ComparedTable,
    Comparison,
)
from model.findings.contender import lower_is_better
from model.findings.records import Estimate
from model.run import RunRecord

_MOST_PANELS = 12
"""Curves that are drawn: the first tasks."""


def text(comparison: Comparison) -> str:
    """For a terminal."""
    return "\n".join([as_text(_tables(comparison)), "", *_notes(comparison)])


def markdown(comparison: Comparison) -> str:
    """As a page."""
    notes = "".join(f"- {note}\n" for note in _notes(comparison))
    return f"# {title(comparison)}\n\n{as_markdown(_tables(comparison))}\n{notes}"


def publish(store: Store, comparison: Comparison, environment: Environment) -> Comparison:
    """Write the files, and show them in MLflow; returns the record with its MLflow run."""
    figures = draw(comparison)
    vector = [image for name, image in figures.items() if name.endswith(".svg")]
    page = as_html(title(comparison), _notes(comparison), _tables(comparison), vector)
    for name, image in figures.items():
        store.write_bytes(f"{comparison.folder}/figures/{name}", image)
    store.write_bytes(f"{comparison.folder}/comparison.md", markdown(comparison).encode())
    store.write_bytes(f"{comparison.folder}/comparison.html", page.encode())
    rows = list(table_rows(comparison))
    made = comparison.model_copy(update={"tracked": _open(store, comparison, environment)})
    assert made.tracked is not None
    made.save(store, f"{made.folder}/comparison.json")
    log_metrics(made.tracked, 0, _metrics(comparison))
    log_table(made.tracked, rows, "comparison-table.json")
    for name, image in figures.items():
        log_figure(made.tracked, image, f"figures/{name}")
    log_text(made.tracked, markdown(comparison), "comparison.md")
    for name in ("comparison.html", "comparison.json"):
        log_file(made.tracked, store.local_path(f"{made.folder}/{name}"))
    finish_run(made.tracked)
    return made


def table_rows(comparison: Comparison) -> Iterator[dict[str, str]]:
    """A row for each figure, as MLflow and Prefect show tables."""
    for table in comparison.tables:
        for row in table.rows:
            for run, figure in zip(comparison.runs, row.figures, strict=True):
                yield {
                    "table": table.title,
                    "task": row.task,
                    "metric": row.metric,
                    "run": run.label,
                    "score": figure_text(figure.estimate),
                    "difference": _difference(figure),
                    "p": _p(figure),
                    "verdict": _verdict(figure),
                }


def title(comparison: Comparison) -> str:
    """Which runs are compared."""
    first, *others = (run.label for run in comparison.runs)
    return f"Comparison of {', '.join(others)} with {first}"


def _tables(comparison: Comparison) -> list[PageTable]:
    head = ("run", "step", "tokens", "dataset", "folder")
    runs = [(each.label, f"{each.step:,}", short(each.tokens), each.dataset, each.folder) for each in comparison.runs]
    return [PageTable("Runs", "", head, runs), *(_table(comparison, table) for table in comparison.tables)]


def _table(comparison: Comparison, table: ComparedTable) -> PageTable:
    first, *others = comparison.runs
    head = ["task", "metric", "items", first.label]
    for other in others:
        head += [other.label, "difference", "p", "verdict"]
    with_chance = any(row.chance is not None for row in table.rows)
    rows = [_cells(row, with_chance) for row in table.rows]
    return PageTable(table.title, table.caption, [*head, *(["chance"] if with_chance else [])], rows)


def _cells(row: ComparedRow, with_chance: bool) -> Sequence[str]:
    cells = [row.task, row.metric, f"{row.items:,}", figure_text(row.figures[0].estimate)]
    for figure in row.figures[1:]:
        cells += [figure_text(figure.estimate), _difference(figure), _p(figure), _verdict(figure)]
    return [*cells, *([f"{row.chance:.3f}" if row.chance is not None else ""] if with_chance else [])]


def _difference(figure: ComparedFigure) -> str:
    found = figure.difference
    if found is None:
        return figure.note
    return f"{number(found.difference, '+')} [{number(found.low, '+')}, {number(found.high, '+')}]"


def _p(figure: ComparedFigure) -> str:
    if figure.corrected_p is None:
        return ""
    return "<0.0001" if figure.corrected_p < 1e-4 else f"{figure.corrected_p:.4f}"


def _verdict(figure: ComparedFigure) -> str:
    if figure.difference is None:
        return ""
    return ("better" if figure.better else "worse") if figure.significant else "not sure"


def _notes(comparison: Comparison) -> list[str]:
    settings, first = comparison.settings, comparison.runs[0].label
    return [
        f"Intervals of {100 * settings.confidence:g}% say how far the choice of items may have moved a figure; another "
        "training with another seed is not covered.",
        f"Differences from {first} are taken item by item. p: chance of such a difference were the two alike, by "
        "McNemar's exact test or a permutation test, corrected by Holm's method for the rows of a table. Better and "
        f"worse: p below {settings.significance:g}.",
    ]


def _open(store: Store, comparison: Comparison, environment: Environment) -> TrackedRun:
    """One MLflow run for each comparison, the same one however often it is made."""
    path = f"{comparison.folder}/comparison.json"
    previous = Comparison.load(store, path).tracked if store.exists(path) else None
    return open_run(
        store,
        environment.mlflow_tracking_uri,
        experiment(environment, "comparison"),
        f"comparison {comparison.name}",
        datasets=_measured_on(store, comparison),
        tags=run_tags("comparison", {"comparison": comparison.name}),
        parameters={f"run {place}": run.folder for place, run in enumerate(comparison.runs, 1)},
        previous=previous,
    )


def _measured_on(store: Store, comparison: Comparison) -> list[UsedDataset]:
    """Whose held-out text was used, of the runs that are under this root."""
    found: dict[str, UsedDataset] = {}
    for run in comparison.runs:
        if store.exists(path := f"{run.folder}/run.json"):
            record = RunRecord.load(store, path)
            source = json.dumps({"uri": store.full_path(record.dataset_manifest)})
            name, digest = f"{run.dataset}{HELD_OUT_INPUT}", record.dataset_fingerprint
            found[name] = UsedDataset(name=name, digest=digest, source=source, context="evaluation")
    return list(found.values())


def _metrics(comparison: Comparison) -> dict[str, float]:
    """Differences of top tables, by names that MLflow takes."""
    found: dict[str, float] = {}
    for table in comparison.tables:
        for row in table.rows:
            for run, figure in zip(comparison.runs, row.figures, strict=True):
                if figure.difference is not None:
                    name = f"difference/{run.label}/{row.task}/{row.metric}"
                    found["".join(each if each.isalnum() or each in "_-. :/" else "_" for each in name)] = (
                        figure.difference.difference
                    )
    return found


# Figures


def draw(comparison: Comparison) -> dict[str, bytes]:
    """Figures by the names of their files."""
    labels = [run.label for run in comparison.runs]
    panels = list(_dot_panels(comparison))
    found = {f"scores.{kind}": image for kind, image in draw_dots(panels, labels).items()} if panels else {}
    curves = list(_curve_panels(comparison, labels))
    if curves:
        found |= {f"curves.{kind}": image for kind, image in draw_curves(curves, labels).items()}
    return found


def _dot_panels(comparison: Comparison) -> Iterator[DotPanel]:
    """Scores and costs on axes of their own; members of groups, margins and perplexities would not fit on them."""
    for table in comparison.tables:
        if table.title in (MEMBERS, MARGINS):
            continue
        for lower, axis in ((False, "higher is better; dotted: guessing"), (True, "bits per byte: lower is better")):
            rows = [row for row in table.rows if lower_is_better(row.metric) == lower]
            rows = [row for row in rows if not lower or row.metric.endswith("bits_per_byte")]
            if rows:
                yield DotPanel(table.title, axis, [_dot_row(row) for row in rows])


def _dot_row(row: ComparedRow) -> DotRow:
    name = row.task if row.task.startswith(HELD_OUT) else f"{row.task}: {row.metric}"
    return DotRow(name, [_dot(figure.estimate) for figure in row.figures], row.chance)


def _dot(estimate: Estimate | None) -> Dot | None:
    return None if estimate is None else Dot(estimate.value, estimate.low, estimate.high)


def _curve_panels(comparison: Comparison, labels: Sequence[str]) -> Iterator[CurvePanel]:
    kinds = list(dict.fromkeys((each.task, each.metric) for each in comparison.curves))
    for task, metric in kinds[:_MOST_PANELS]:
        curves = {
            labels.index(each.label): [
                (point.tokens, Dot(point.estimate.value, point.estimate.low, point.estimate.high))
                for point in each.points
            ]
            for each in comparison.curves
            if (each.task, each.metric) == (task, metric)
        }
        yield CurvePanel(task, metric, curves)
