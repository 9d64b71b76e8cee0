"""From manifests to reports: what each stage did, as people and programs read it."""

from collections.abc import Mapping, Sequence
from typing import cast

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.servers.server import look_further
from infra.manifest import DatasetManifest, StageManifest, Telemetry
from infra.report import (
    BitsPerByte,
    CorpusReport,
    CurveRow,
    DatasetIdentity,
    Layout,
    LossRange,
    RecordCounts,
    Report,
    Sample,
    StageCounts,
    render_html,
)
from infra.store import Store
from infra.tracking import TrackedRun, log_file, run_url
from model.run import EvaluationRecord, RunRecord, TrainingSummary, read_metrics


def corpus_report(
    store: Store, dataset: DatasetManifest, stages: Sequence[StageManifest], helpers: Mapping[str, list[StageManifest]]
) -> CorpusReport:
    """The report of a dataset, from the manifests of its stages in order; the first is fetch, the last tokenization.

    Helpers are stages that see no document leave, by the stage that they work for: they count into its time, but for
    the tokenizer, which has a row of its own.
    """
    rows = [_counts(store, each, helpers[each.stage]) for each in stages[:-1]]
    documents = stages[-1].rows_in
    rows.append(_stage("tokenizer", documents, documents, {}, _seconds(store, helpers[stages[-1].stage])))
    rows.append(_counts(store, stages[-1], []))
    fetched = stages[0]
    quarantined = fetched.rows_of("quarantined")
    return CorpusReport(
        dataset=DatasetIdentity(name=dataset.name, version=dataset.version, fingerprint=dataset.fingerprint),
        stages=tuple(rows),
        records=RecordCounts(
            read=fetched.kept + quarantined,
            documents=fetched.kept,
            quarantined=quarantined,
            skipped=fetched.total("reasons"),
        ),
        tokens=dataset.tokens("train") + dataset.tokens("heldout"),
    )


def run_report(
    corpus: CorpusReport,
    training: TrainingSummary,
    evaluation: EvaluationRecord,
    tracked: TrackedRun | None,
    flow_run_id: str | None,
) -> Report:
    """The report of a whole run."""
    layout, bits = training.layout, evaluation.bits_per_byte
    return Report(
        dataset=corpus.dataset,
        stages=corpus.stages,
        records=corpus.records,
        tokens=corpus.tokens,
        parameters=training.parameters,
        layout=Layout(tp=layout.tensor, pp=layout.pipeline, dp=layout.data),
        loss=LossRange(first=training.loss.first, last=training.loss.last),
        bits_per_byte=None if bits is None else BitsPerByte.model_validate(bits.model_dump()),
        samples=tuple(Sample(prompt=each.prompt, text=each.text) for each in evaluation.samples),
        mlflow_run_id=None if tracked is None else tracked.run_id,
        prefect_flow_run_id=flow_run_id,
    )


def write_report(store: Store, run: RunRecord, report: Report, tracked: TrackedRun | None) -> None:
    """Write report.json and report.html into the run's folder, and copy them into the MLflow run."""
    folder = store.local_path(run.folder)
    page = render_html(report, cast("list[CurveRow]", read_metrics(folder)), look_further(store))
    store.write_bytes(f"{run.folder}/report.html", page.encode())
    report.save(store, f"{run.folder}/report.json")
    if tracked is not None:
        for name in ("report.json", "report.html"):
            log_file(tracked, folder / name)


def publish_funnel(report: CorpusReport) -> None:
    """Show in Prefect what each stage kept and dropped."""
    rows = [
        {
            "stage": each.name,
            "in": each.entered,
            "kept": each.kept,
            "dropped": sum(each.dropped.values()),
            "reasons": ", ".join(f"{reason} {count}" for reason, count in each.dropped.items()),
            "seconds": each.seconds,
        }
        for each in report.stages
    ]
    dataset = f"{report.dataset.name}/{report.dataset.version}"
    create_table_artifact(rows, key="corpus-funnel", description=f"Documents of dataset {dataset} at each stage")


def link_mlflow_run(store: Store, tracked: TrackedRun, key: str = "mlflow-run") -> None:
    """Say in Prefect which MLflow run belongs to this flow run, with a link where a server shows it."""
    url = run_url(tracked)
    name = f"run `{tracked.run_id}` of experiment `{tracked.experiment}`"
    text = f"MLflow {name}. To see it: `{look_further(store)['MLflow']}`" if url is None else f"MLflow [{name}]({url})"
    create_markdown_artifact(text, key=key, description="Metrics, settings, dataset and report")


def _counts(store: Store, manifest: StageManifest, helpers: Sequence[StageManifest]) -> StageCounts:
    seconds = _seconds(store, [manifest, *helpers])
    copies = manifest.total("counters").get("copies", 0)  # a mixture repeats documents: they are counted once
    return _stage(manifest.stage, manifest.rows_in - copies, manifest.kept - copies, manifest.total("reasons"), seconds)


def _stage(name: str, entered: int, kept: int, dropped: Mapping[str, int], seconds: float) -> StageCounts:
    """A row of the report; its field `in` is a keyword in Python."""
    return StageCounts.model_validate(
        {"name": name, "in": entered, "kept": kept, "dropped": dropped, "seconds": seconds}
    )


def _seconds(store: Store, manifests: Sequence[StageManifest]) -> float:
    """Wall time of the runs that made some stages."""
    telemetry = [Telemetry.load(store, f"{each.folder}/telemetry.json") for each in manifests]
    return round(sum(each.seconds for each in telemetry), 3)
