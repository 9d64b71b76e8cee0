"""The comparison flow: evaluated runs side by side, with paired differences."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.beginning import begin
from flows.promotion import evaluated
from flows.reports import comparison_report
from flows.runs import find_run
from infra.environment import Environment
from infra.errors import BadInput
from infra.settings import Settings
from infra.store import Store
from model.findings.comparing import (
    ComparedRun,
    Comparison,
    ComparisonSettings,
    Curve,
    compared_tables,
    curves,
    grown,
)
from model.findings.contender import Contender
from model.run import EvaluationRecord, RunRecord, evaluation_path, open_run_folder, trained_tokens

logger = logging.getLogger(__name__)


class Compared(Settings):
    """What the flow returns."""

    comparison: Comparison
    page: str
    """The HTML page."""

    def text(self) -> str:
        """For people."""
        return f"{comparison_report.text(self.comparison)}\nPage     {self.page}"


@dataclass(frozen=True)
class Evaluated:
    """A run that was named, at the step that is compared."""

    store: Store
    """Of the run's own root."""
    contender: Contender

    @property
    def run(self) -> RunRecord:
        """The run."""
        return self.contender.run

    @property
    def step(self) -> int:
        """The step whose evaluation is compared."""
        return self.contender.record.step


@flow(name="compare", persist_result=False)
def compare(
    runs: tuple[str, ...],
    comparison: ComparisonSettings = ComparisonSettings(),
    environment: Environment = Environment(),
) -> Compared:
    """Put evaluated runs beside the first.

    Args:
        runs: Two or more names or folders, or RUN@STEP for another than the newest evaluation.
        comparison: How sure a comparison is to be.
        environment: Where the work is done.
    """
    found = compare_runs(begin(environment), runs, comparison, environment)
    title = comparison_report.title(found.comparison)
    rows = list(comparison_report.table_rows(found.comparison))
    create_table_artifact(rows, key="comparison", description=title)
    create_markdown_artifact(comparison_report.markdown(found.comparison), key="comparison-page", description=title)
    return found


def compare_runs(store: Store, runs: Sequence[str], settings: ComparisonSettings, environment: Environment) -> Compared:
    """What the flow does, without Prefect; BadInput for fewer than two runs, and for one without evaluation."""
    made = comparison_report.publish(store, compared(store, runs, settings), environment)
    page = str(store.local_path(f"{made.folder}/comparison.html").absolute())
    logger.info("compare: %s", page)
    return Compared(comparison=made, page=page)


def compared(store: Store, runs: Sequence[str], settings: ComparisonSettings) -> Comparison:
    """The comparison alone, published nowhere; BadInput as of the flow."""
    if len(runs) < 2:
        raise BadInput(
            f"{len(runs)} runs to compare",
            "it takes two or more",
            "Name them: `gristmill compare RUN RUN`, or RUN@STEP",
        )
    found = [_find(store, run) for run in runs]
    labels = _labels([each.contender for each in found])
    return Comparison(
        name=settings.name or _name(labels),
        settings=settings,
        runs=tuple(_shown(each, label) for each, label in zip(found, labels, strict=True)),
        tables=compared_tables([each.contender for each in found], settings),
        curves=grown([curve for each, label in zip(found, labels, strict=True) for curve in _curves(each, label)]),
    )


def alone(store: Store, run: RunRecord, step: int) -> Comparison:
    """One evaluation in the form of a comparison, for its figures."""
    found, settings = Evaluated(store, evaluated(store, run, step)), ComparisonSettings()
    return Comparison(
        name=run.name,
        settings=settings,
        runs=(_shown(found, run.name),),
        tables=compared_tables([found.contender], settings),
        curves=grown(_curves(found, run.name)),
    )


def _find(store: Store, run: str) -> Evaluated:
    """RUN or RUN@STEP; BadInput where there is no such run or evaluation."""
    name, separator, step = run.rpartition("@")
    if separator and not step.isdigit():
        raise BadInput(f"run {run}", "a step is a number: RUN@STEP", "Correct it")
    own, record, _ = open_run_folder(find_run(store, name if separator else run))
    return Evaluated(own, evaluated(own, record, int(step) if separator else None))


def _labels(contenders: Sequence[Contender]) -> list[str]:
    """Shortest names that tell the checkpoints apart; BadInput where one is named twice."""
    forms = (
        lambda each: each.run.name,
        lambda each: f"{each.run.name}@{each.record.step}",
        lambda each: f"{each.run.folder.removeprefix('runs/')}@{each.record.step}",
    )
    labels: list[str] = []
    for form in forms:
        labels = [form(each) for each in contenders]
        if len(set(labels)) == len(labels):
            return labels
    twice = next(label for label in labels if labels.count(label) > 1)
    raise BadInput(f"run {twice} twice", "a comparison needs different checkpoints", "Name another run or step")


def _name(labels: Sequence[str]) -> str:
    """A folder's name: `base-vs-dedup`, not longer than file systems take."""
    name = "-vs-".join(label.replace("/", "-").replace("@", "-") for label in labels)
    return name if len(name) <= 100 else f"{name[:80]}-and-{len(labels) - 1}-more"


def _shown(found: Evaluated, label: str) -> ComparedRun:
    return ComparedRun(
        label=label,
        folder=found.run.folder,
        step=found.step,
        tokens=trained_tokens(found.store, found.run, found.step),
        dataset=f"{found.run.dataset}/{found.run.dataset_version}",
    )


def _curves(found: Evaluated, label: str) -> list[Curve]:
    """Of all evaluations of the run up to the step that is compared."""
    names = (name for name in found.store.names(f"{found.run.folder}/evaluations") if name.endswith(".json"))
    steps = [step for name in names if (step := int(name[5:-5])) <= found.step]
    records = [EvaluationRecord.load(found.store, evaluation_path(found.run, step)) for step in steps]
    return list(curves(label, records, [trained_tokens(found.store, found.run, step) for step in steps]))
