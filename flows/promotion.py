"""The promotion flow: an evaluated checkpoint becomes the champion of MLflow's registry if stated conditions hold.

    runs/NAME/VERSION-FINGERPRINT/promotion/step-00000100.json    the Verdict, written before any alias moves

Whatever it says, the checkpoint is registered, and stays `candidate` if it is refused.
"""

import io
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.beginning import begin
from flows.reports.tracking_tags import experiment
from flows.runs import find_run, remember_tracked, tracking_uri
from infra.environment import Environment
from infra.errors import BadInput
from infra.registry import Alias, ModelVersion, Registry
from infra.settings import Settings
from infra.store import Store
from infra.tracked_models import Checkpoint
from infra.tracking import TrackedRun, finish_run, log_text, open_run, run_at, run_url
from model.findings.contender import Contender
from model.findings.judgement import judge
from model.findings.records import ITEMS, SCORES
from model.findings.verdict import PromotionSettings, Verdict
from model.run import (
    EvaluationRecord,
    RunRecord,
    evaluation_path,
    load_launch,
    open_run_folder,
    step_name,
)
from model.tracked_checkpoints import checkpoint_of, meta_path

logger = logging.getLogger(__name__)
pc: Any = pyarrow.compute  # its functions are made when it is imported: types know few of them
_TABLES: Mapping[str, pa.Schema] = {
    "scores": SCORES,
    "items": pa.schema([ITEMS.field(name) for name in ("task", "item", "digest")]),
    "contaminated": pa.schema([ITEMS.field(name) for name in ("task", "item")]),
}


_FOUND = _TABLES["contaminated"].append(pa.field("documents", pa.int64()))
"""Columns of what flows.contamination writes: each item, and in how many training documents it stands."""


class Promotion(Settings):
    """What the flow returns."""

    verdict: Verdict
    champion: ModelVersion | None
    """The champion now."""
    url: str | None
    """The candidate's run in the MLflow UI, where a server shows it."""

    def text(self) -> str:
        """The same for people."""
        champion = "none" if self.champion is None else _name(self.champion)
        return f"{self.verdict.text()}\nChampion {champion}"


class Champion(Settings):
    """The aliases of a model, as `gristmill champion` shows them."""

    model: str
    versions: dict[str, ModelVersion]

    def text(self) -> str:
        """A line for each alias."""
        lines = [
            f"{alias:<10} {_name(version)}, {version.tags.get('verdict', 'not judged')}"
            for alias, version in self.versions.items()
        ]
        return "\n".join(lines or [f"{self.model} has no version with an alias; `gristmill promote RUN` makes one"])


def _name(version: ModelVersion) -> str:
    tags = version.tags
    return f"{version.name}: {tags.get('run', '?')} at step {tags.get('step', '?')}"


@flow(name="promote", persist_result=False)
def promote(
    run: str,
    promotion: PromotionSettings = PromotionSettings(),
    environment: Environment = Environment(),
) -> Promotion:
    """Register an evaluated checkpoint, judge it beside the champion, and let it take the champion's place or not.

    Args:
        run: Name or folder of the run.
        promotion: When a checkpoint takes the champion's place.
        environment: Where the work is done.
    """
    found = promote_run(begin(environment), run, promotion, environment)
    create_markdown_artifact(found.verdict.markdown(), key="promotion", description=found.verdict.reason)
    return found


def promote_run(store: Store, run: str, promotion: PromotionSettings, environment: Environment) -> Promotion:
    """What the flow does, without Prefect; repeating it changes nothing, whenever it was stopped before."""
    store, record, _ = open_run_folder(find_run(store, run))
    candidate = evaluated(store, record, promotion.step)
    registry = open_registry(store, environment, promotion.model)
    tracked = _tracked(store, record, environment, registry)
    version = registry.register(tracked, _checkpoint(store, candidate), _files(store, candidate))
    candidate = _with_version(candidate, version)
    champion = registry.at("champion")
    path = f"{record.folder}/promotion/{step_name(candidate.record.step)}.json"
    if champion is not None and champion.version == version.version and store.exists(path):
        logger.info("promote: already done, %s is the champion", version.name)
        registry.drop("candidate", version)
        return Promotion(verdict=Verdict.load(store, path), champion=champion, url=run_url(tracked))
    registry.nominate(version)
    verdict = _judged(store, registry, candidate, champion, promotion)
    verdict.save(store, path)
    _publish(registry, tracked, version, verdict, candidate.record.step)
    if verdict.promoted:
        registry.promote(version, champion)
    logger.info("promote: %s", verdict.reason)
    return Promotion(verdict=verdict, champion=registry.at("champion"), url=run_url(tracked))


def foreseen(store: Store, run: str, promotion: PromotionSettings, environment: Environment) -> Verdict:
    """What the flow would say now; nothing is registered, and BadInput is that of the flow."""
    store, record, _ = open_run_folder(find_run(store, run))
    candidate = evaluated(store, record, promotion.step)
    checkpoint = _checkpoint(store, candidate)
    if not _has_registry(store, environment):
        return judge(candidate, None, promotion)
    registry = open_registry(store, environment, promotion.model)
    if (version := registry.of_checkpoint(checkpoint.digest)) is not None:
        candidate = _with_version(candidate, version)
    return _judged(store, registry, candidate, registry.at("champion"), promotion)


def _judged(
    store: Store,
    registry: Registry,
    candidate: Contender,
    champion: ModelVersion | None,
    promotion: PromotionSettings,
) -> Verdict:
    """The candidate beside the champion, unless that is itself."""
    other = champion if champion is not None and champion.version != candidate.version else None
    return judge(candidate, None if other is None else _champion(store, registry, other), promotion)


def _has_registry(store: Store, environment: Environment) -> bool:
    """Whether there is one; none is made by asking."""
    return environment.mlflow_tracking_uri is not None or not store.is_local or store.exists("mlflow.db")


def champion_of(environment: Environment, model: str) -> Champion:
    """Which versions the aliases of a model stand for."""
    store = Store(environment.root)
    if not _has_registry(store, environment):
        return Champion(model=model, versions={})
    registry = open_registry(store, environment, model)
    aliases: tuple[Alias, ...] = ("champion", "previous", "candidate")
    found = {alias: registry.at(alias) for alias in aliases}
    return Champion(model=model, versions={alias: version for alias, version in found.items() if version is not None})


def take_back(environment: Environment, model: str, reason: str) -> Champion:
    """Let the previous champion be champion again, because of a reason; BadInput where there is none."""
    registry = open_registry(Store(environment.root), environment, model)
    registry.take_back(reason)
    return champion_of(environment, model)


def open_registry(store: Store, environment: Environment, model: str) -> Registry:
    """The registry where runs are tracked."""
    return Registry(tracking_uri(store, environment), model)


def evaluated(store: Store, run: RunRecord, step: int | None = None) -> Contender:
    """A run's evaluation at a step, by default the newest; BadInput where there is none."""
    steps = [int(name[5:-5]) for name in store.names(f"{run.folder}/evaluations") if name.endswith(".json")]
    chosen = step or max(steps, default=None)
    if chosen not in steps:
        raise BadInput(
            f"{run.folder} has no evaluation{'' if step is None else f' of step {step}'}",
            f"a checkpoint is judged by one; there are those of steps {sorted(steps)}",
            "Evaluate the run first: `gristmill evaluate`",
        )
    path = evaluation_path(run, chosen)
    folder = path.removesuffix(".json")
    tables = {name: _table(store, f"{folder}/{name}.parquet", _TABLES[name]) for name in ("scores", "items")}
    found = _table(store, f"{folder}/contamination/items.parquet", _FOUND)
    contaminated = found.filter(pc.greater(found["documents"], 0)).select(_TABLES["contaminated"].names)
    return Contender(run=run, record=EvaluationRecord.load(store, path), contaminated=contaminated, **tables)


def _table(store: Store, path: str, schema: pa.Schema) -> pa.Table:
    """Columns of a Parquet file; no rows where there is no file."""
    return _parse(store.read_bytes(path), schema) if store.exists(path) else schema.empty_table()


def _parse(data: bytes, schema: pa.Schema) -> pa.Table:
    return pq.read_table(io.BytesIO(data), columns=schema.names).cast(schema)


def _with_version(contender: Contender, version: ModelVersion) -> Contender:
    return replace(contender, version=version.version, was_taken_back=version.was_taken_back)


def _publish(registry: Registry, tracked: TrackedRun, version: ModelVersion, verdict: Verdict, step: int) -> None:
    """Say why in MLflow: on the version and in its run."""
    page = verdict.markdown()
    registry.annotate(version.version, {"verdict": verdict.reason}, page)
    log_text(tracked, page, f"promotion/{step_name(step)}.md")


def _checkpoint(store: Store, candidate: Contender) -> Checkpoint:
    """What the registry is told of a checkpoint; BadInput where it has been removed since its evaluation."""
    found = checkpoint_of(store, candidate.run, candidate.record.step)
    if found is None:
        raise BadInput(
            f"{candidate.name} has no checkpoint any more",
            "only a checkpoint that is there can be used as champion",
            "Evaluate and promote one that is kept (training.checkpoint.keep)",
        )
    return found


def _files(store: Store, candidate: Contender) -> dict[str, bytes]:
    """What a later judgement needs of a champion whose folder may be gone or on another machine by then."""
    files = {
        "run.json": candidate.run.model_dump_json(indent=1).encode(),
        "evaluation.json": candidate.record.model_dump_json(indent=1).encode(),
        "checkpoint.json": store.read_bytes(meta_path(candidate.run, candidate.record.step)),
    }
    for name in _TABLES:
        buffer = io.BytesIO()
        pq.write_table(getattr(candidate, name), buffer, compression="zstd")
        files[f"{name}.parquet"] = buffer.getvalue()
    return files


def _tracked(store: Store, run: RunRecord, environment: Environment, registry: Registry) -> TrackedRun:
    """The run's own MLflow run if it is in the registry's server, else one that stands for it there."""
    launch = load_launch(store, run)
    if launch.tracked is not None and (found := run_at(launch.tracked, registry.tracking_uri)) is not None:
        return remember_tracked(store, run, launch, found)
    name, dataset = f"{run.name}/{run.dataset_version}-{run.fingerprint}", f"{run.dataset}/{run.dataset_version}"
    tags = {"dataset": dataset, "run.fingerprint": run.fingerprint}
    made = open_run(store, environment.mlflow_tracking_uri, experiment(environment, "pretraining"), name, tags=tags)
    finish_run(made)
    return remember_tracked(store, run, launch, made)


def _champion(store: Store, registry: Registry, version: ModelVersion) -> Contender:
    """The champion as it was evaluated last: by its folder, or by what is registered where the folder is gone."""
    folder, step = f"runs/{version.tags.get('run', '')}", int(version.tags.get("step", 0))
    if store.exists(f"{folder}/run.json"):  # the folder's name holds its fingerprint
        run = RunRecord.load(store, f"{folder}/run.json")
        if store.exists(evaluation_path(run, step)):
            return _with_version(evaluated(store, run, step), version)
    names = ["run.json", "evaluation.json", *(f"{table}.parquet" for table in _TABLES)]
    files = {name: data for name in names if (data := registry.read(version, name)) is not None}
    if len(files) < len(names):
        raise BadInput(
            f"{version.name} has no evaluation, neither in {store.full_path(folder)} nor in the registry",
            "a candidate is judged beside the champion's evaluation",
            "Restore its folder, or take the alias champion away to start anew",
        )
    contender = Contender(
        run=RunRecord.model_validate_json(files["run.json"]),
        record=EvaluationRecord.model_validate_json(files["evaluation.json"]),
        **{name: _parse(files[f"{name}.parquet"], schema) for name, schema in _TABLES.items()},
    )
    return _with_version(contender, version)
