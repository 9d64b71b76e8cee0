"""What making a dataset anew from the signals of another will take: what that took from there on."""

from collections.abc import Iterator

from flows.plans.cached import already_made
from flows.plans.estimates import Estimate, StagePlan, files_bytes
from flows.plans.planning import Plan, nothing_to_do, stages_left, total, workers_of
from infra.environment import Environment
from infra.manifest import DatasetManifest, StageManifest, Telemetry, load_dataset
from infra.store import Store
from tasks.config import CorpusSettings
from tasks.pipeline import manifest_path
from tasks.signals import SIGNALS


def plan_rebuild(corpus: CorpusSettings, rebuild: str, environment: Environment) -> Plan:
    """Plan `dataset.rebuild`: nothing is sampled, as its source is not read. BadInput and RunFailed as of the flow."""
    store, workers = Store(environment.root), workers_of(environment)
    origin = load_dataset(store, *rebuild.split("/"))
    there = already_made(corpus, store, origin)
    if there.complete:
        return nothing_to_do(environment, workers, there)
    stages = tuple(stages_left(list(_stages(store, origin, workers)), there.stages))
    return nothing_to_do(environment, workers, there).model_copy(
        update={
            "stages": stages,
            "tokens_train": _as_before(origin.tokens("train")),
            "tokens_heldout": _as_before(origin.tokens("heldout")),
            "totals": total(stages),
            "assumptions": (f"all is as of {rebuild}: settings that keep more or less of it take more or less",),
        }
    )


def _stages(store: Store, origin: DatasetManifest, workers: int) -> Iterator[StagePlan]:
    """The stages after the signals that the dataset has still, as they ran."""
    names = list(origin.stages)
    for name in names[names.index(SIGNALS.name) + 1 :]:
        try:
            manifest = StageManifest.load(store, manifest_path(origin, name))
            ran = Telemetry.load(store, f"{manifest.folder}/telemetry.json")
        except FileNotFoundError:
            continue
        cpu, some = ran.counts.get("cpu_ms", 0) / 1000, max(1, min(workers, len(manifest.shards)))
        yield StagePlan(
            stage=name,
            documents_in=_as_before(manifest.rows_in),
            documents_out=_as_before(manifest.kept),
            disk_bytes=files_bytes(manifest),
            cpu_seconds=cpu,
            startup_seconds=0.0,
            workers=some,
            seconds=round(cpu / some, 2),
            peak_worker_bytes=ran.peak_worker_bytes,
        )


def _as_before(count: float) -> Estimate:
    return Estimate(expected=count, low=count, high=count)
