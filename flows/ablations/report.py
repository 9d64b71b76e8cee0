"""What people get to see of an ablation: text, a page in Markdown, a figure; in files, in Prefect and in MLflow.

ablations/NAME/FINGERPRINT/ablation.json    AblationRecord
                           ablation.md      the same for people
                           ablation.svg     differences with their intervals
                           launch.json      its MLflow run
"""

import io
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.ablations.findings import Conclusion, Measure
from flows.ablations.settings import AblationSettings
from flows.reports.tracking_tags import experiment, run_tags
from infra.manifest import DatasetManifest, Manifest
from infra.run_description import used_dataset
from infra.settings import Settings
from infra.store import Store
from infra.tracking import TrackedRun, log_figure, log_file, log_metrics, log_table, log_text, open_run
from model.findings.seeds import Interval
from model.run import LaunchRecord

logger = logging.getLogger(__name__)


class VariantRecord(Settings):
    """A variant, as it was built and trained on."""

    name: str
    dataset: str
    """NAME/VERSION."""
    fingerprint: str
    train_tokens: int
    epochs: float
    """How often a training goes through them."""
    changes: dict[str, Any]
    """What differs from the base."""
    runs: tuple[str, ...]
    """Folders of its runs, in the order of the seeds."""


class AblationRecord(Manifest):
    """A finished ablation."""

    name: str
    fingerprint: str
    tokens: int
    """Tokens that went through every model."""
    seeds: tuple[int, ...]
    confidence: float
    variants: tuple[VariantRecord, ...]
    """The first is what the others are compared with."""
    measures: tuple[Measure, ...]
    conclusions: tuple[Conclusion, ...]

    @property
    def folder(self) -> str:
        """Folder of the ablation, relative to the root."""
        return _folder(self.name, self.fingerprint)

    @property
    def title(self) -> str:
        """What was done, in a line."""
        seeds = f"{len(self.seeds)} seeds" if len(self.seeds) > 1 else "1 seed"
        return f"{len(self.variants)} corpora, {seeds}, {self.tokens:,} tokens each"

    @property
    def caveats(self) -> tuple[str, ...]:
        """What the intervals hold and what they do not."""
        covers = "the choice of items and the seeds of training" if len(self.seeds) > 1 else "the choice of items alone"
        notes = [
            "Measures marked * decide; of those marked + higher is better, of those marked - lower. Held-out documents "
            "and items of benchmarks that stand in what a variant is trained on are left out.",
            f"Intervals of {100 * self.confidence:g}% cover {covers}, for a model of this size trained on so many "
            "tokens; another draw of the corpora is not covered.",
            "p: chance of such a difference where there is none, corrected by Holm's method for the number of "
            "comparisons.",
        ]
        if len(self.seeds) == 1:
            notes.append("With one seed, a small difference may be the noise of training: give two seeds or more.")
        if any(measure.decides and measure.task.startswith("heldout/") for measure in self.measures):
            notes.append(
                "Any model does well on text like its own: of held-out text, that of a corpus known to be good says "
                "most, and benchmarks say more."
            )
        return tuple(notes)

    def text(self) -> str:
        """The same for people."""
        variants = [("variant", "dataset", "training tokens", "epochs")]
        variants += [
            (each.name, each.dataset, f"{each.train_tokens:,}", f"{each.epochs:.2f}") for each in self.variants
        ]
        lines = [f"Ablation {self.name}: {self.title}", "", *_aligned(variants), "", *_aligned([*self.table()]), ""]
        lines += [f"=> {each.text}" for each in self.conclusions]
        return "\n".join([*lines, "", *self.caveats])

    def markdown(self) -> str:
        """The same as a page."""
        head, *rows = self.table()
        lines = [f"# Ablation {self.name}", "", f"{self.title}.", ""]
        lines += [f"**{each.text}**\n" for each in self.conclusions]
        lines += [_row(head), _row(["---"] * len(head)), *map(_row, rows), ""]
        lines += ["| variant | dataset | training tokens | epochs |", "| --- | --- | --- | --- |"]
        lines += [
            _row([each.name, each.dataset, f"{each.train_tokens:,}", f"{each.epochs:.2f}"]) for each in self.variants
        ]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.caveats)]) + "\n"

    def table(self) -> Iterator[tuple[str, ...]]:
        """A row for each measure and variant, after a row of headings."""
        percent = f"{100 * self.confidence:g}%"
        above = f"above {self.variants[0].name}"
        yield ("measure", "items", "variant", "mean", "by seed", above, f"{percent} interval", "p", "verdict")
        for measure in self.measures:
            differences = {each.variant: each for each in measure.differences}
            for number, each in enumerate(measure.figures):
                mark = f"({'+' if measure.higher_is_better else '-'}){' *' if measure.decides else ''}"
                name = (f"{measure.name} {mark}", f"{measure.items:,}") if number == 0 else ("", "")
                shown = (each.variant, f"{each.mean.value:.4f}", " ".join(f"{value:.4f}" for value in each.by_seed))
                found = differences.get(each.variant)
                if found is None:
                    yield (*name, *shown, "", _range(each.mean), "", "")
                    continue
                tested = (f"{found.above.value:+.4f}", _range(found.above, "+"), _p(found.p_value))
                yield (*name, *shown, *tested, found.verdict)


def _folder(name: str, fingerprint: str) -> str:
    return f"ablations/{name}/{fingerprint}"


def publish(store: Store, record: AblationRecord, tracked: TrackedRun) -> None:
    """Write the files of an ablation, and show them in Prefect and MLflow."""
    head, *rows = record.table()
    figure = draw(record)
    store.write_bytes(f"{record.folder}/ablation.md", record.markdown().encode())
    store.write_bytes(f"{record.folder}/ablation.svg", figure)
    record.save(store, f"{record.folder}/ablation.json")
    table = [dict(zip(head, row, strict=True)) for row in rows]
    create_table_artifact(table, key="ablation", description=f"Ablation {record.name}: {record.title}")
    create_markdown_artifact(record.markdown(), key="ablation-verdict", description="Which corpus is better")
    _track(store, record, tracked, table, figure)
    for each in record.conclusions:
        logger.info("ablation %s: %s", record.name, each.text)


def open_tracked(
    store: Store, settings: AblationSettings, fingerprint: str, datasets: Sequence[DatasetManifest]
) -> TrackedRun:
    """One MLflow run for the whole ablation, the same one however often it is made; its trainings stand below it."""
    path = f"{_folder(settings.name, fingerprint)}/launch.json"
    previous = LaunchRecord.load(store, path).tracked if store.exists(path) else None
    tracked = open_run(
        store,
        settings.environment.mlflow_tracking_uri,
        experiment(settings.environment, "ablation"),
        f"ablation {settings.name}, {fingerprint[:6]}",
        datasets=[used_dataset(store, each, "training") for each in datasets],
        tags=run_tags("ablation", {"ablation": settings.name}),
        parameters=settings.model_dump(mode="json", exclude={"environment"}),
        previous=previous,
    )
    LaunchRecord(tracked=tracked).save(store, path)
    return tracked


def _track(
    store: Store, record: AblationRecord, tracked: TrackedRun, table: list[dict[str, str]], figure: bytes
) -> None:
    metrics = {
        f"{measure.task}/{measure.metric}/{each.variant}": each.mean.value
        for measure in record.measures
        for each in measure.figures
    }
    log_metrics(tracked, 0, metrics)
    log_table(tracked, table, "ablation-table.json")
    log_figure(tracked, figure, "ablation.svg")
    log_text(tracked, record.markdown(), "ablation.md")
    log_file(tracked, store.local_path(f"{record.folder}/ablation.json"))


def draw(record: AblationRecord) -> bytes:
    """An SVG: differences from the first variant with their intervals by measure and variant, better to the right.

    Scores and bits per byte have axes of their own.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = [[each for each in record.measures if each.higher_is_better == higher] for higher in (True, False)]
    panels = [panel for panel in panels if panel]
    rows = [sum(len(measure.differences) for measure in panel) for panel in panels]
    figure = Figure(figsize=(8, 1 + 0.8 * len(panels) + 0.35 * sum(rows)), layout="constrained")
    for axes, panel in zip(figure.subplots(len(panels), squeeze=False, height_ratios=rows)[:, 0], panels, strict=True):
        _draw_panel(axes, panel)
    figure.suptitle(f"Ablation {record.name}: {record.title}", fontsize=10)
    figure.supxlabel(f"worse  <  than {record.variants[0].name}  >  better", fontsize=10)
    out = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": record.fingerprint}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _draw_panel(axes: Any, measures: Sequence[Measure]) -> None:
    """Measures of one direction, the first on top; colours say what is sure."""
    colours = {"better": "#2a7f3f", "worse": "#b03030"}
    rows = [(measure, each) for measure in measures for each in measure.differences][::-1]
    for place, (measure, each) in enumerate(rows):
        above, sign = each.above, 1 if measure.higher_is_better else -1
        reach = [[above.value - above.low], [above.high - above.value]][::sign]
        colour = colours.get(each.verdict, "#777777")
        axes.errorbar(sign * above.value, place, xerr=reach, fmt="o", color=colour, capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{measure.name}: {each.variant}" for measure, each in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("difference" if measures[0].higher_is_better else "less by", fontsize=9)


def _range(interval: Interval, sign: str = "") -> str:
    return f"{interval.low:{sign}.4f} to {interval.high:{sign}.4f}"


def _p(value: float) -> str:
    return "<0.0001" if value < 1e-4 else f"{value:.4f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns of one width."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
