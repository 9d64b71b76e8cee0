"""Corpus stages as Prefect's pages show them while they run: progress, a table of shards, links to other pages."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flows.live.panels import Panel, Panels, Shown
from flows.live.shard_table import ShardTable
from infra.cluster import open_cluster
from infra.environment import Environment
from infra.lock import in_use
from infra.manifest import ShardRecord, StageManifest, Telemetry
from infra.report import duration
from infra.retained import STAGES_LOCK
from infra.store import Store
from tasks.observer import FailedShard, MadeShard, StageObserver
from tasks.stage import StageRunner

logger = logging.getLogger(__name__)
PROGRESS_SECONDS = 1.0
TABLE_SECONDS = 5.0


@contextmanager
def watched_runner(store: Store, environment: Environment) -> Iterator[StageRunner]:
    """A runner of stages on the environment's cluster, inside a flow run, whose pages show what happens."""
    with in_use(store, STAGES_LOCK), open_cluster(environment) as cluster, Panels() as panels:
        logger.info("Dask: %d workers, dashboard %s", cluster.workers, cluster.dashboard)
        panels.show_links({"Dask dashboard": cluster.dashboard, "MLflow": environment.mlflow_tracking_uri})
        yield StageRunner(store, cluster, StageWatch(panels), environment.max_failed_shards)


class StageWatch(StageObserver):
    """Shows one stage after the other; the panels of each belong to the task run that it runs in."""

    def __init__(self, panels: Panels) -> None:
        self._panels = panels
        self._running: _Running | None = None

    def stage_started(self, stage: str, folder: str, shards: int, reused: Sequence[ShardRecord]) -> None:
        """Open the panels of a stage."""
        self._running = _Running(self._panels, stage, folder, shards, reused)

    def shard_done(self, made: MadeShard) -> None:
        """Count a shard."""
        if self._running:
            self._running.add(made)

    def shard_failed(self, failed: FailedShard) -> None:
        """Count and list a shard."""
        if self._running:
            self._running.add(failed)

    def stage_finished(self, manifest: StageManifest, telemetry: Telemetry | None) -> None:
        """Close the panels, or show a full bar for a stage that was found done."""
        if self._running:
            self._running.close("done")
            self._running = None
        else:
            shown = Shown(
                100.0,
                f"{manifest.stage}: found done, {len(manifest.shards):,} shards, {manifest.kept:,} documents kept",
            )
            self._panels.open(Panel("progress", artifact_key("progress", manifest.stage), lambda: shown, 0.0)).close()

    def stage_failed(self, reason: str) -> None:
        """Close the panels as they are."""
        if self._running:
            self._running.close(f"stopped ({reason})")
            self._running = None


class _Running:
    """A stage that runs: what its shards told, and its two panels."""

    def __init__(self, panels: Panels, stage: str, folder: str, shards: int, reused: Sequence[ShardRecord]) -> None:
        self._stage, self._shards = stage, shards
        self._table = ShardTable(folder)
        for record in reused:
            self._table.add_reused(record)
        self._lock = threading.Lock()
        self._made, self._documents, self._state = 0, 0, ""
        self._started = time.monotonic()
        self._progress = panels.open(
            Panel("progress", artifact_key("progress", stage), self._show_progress, PROGRESS_SECONDS)
        )
        self._listing = panels.open(Panel("table", artifact_key("shards", stage), self._show_table, TABLE_SECONDS))

    def add(self, shard: MadeShard | FailedShard) -> None:
        with self._lock:
            self._made += 1
            if isinstance(shard, MadeShard):
                self._documents += shard.record.rows_in
                self._table.add(shard)
            else:
                self._table.add_failed(shard)
        self._progress.changed()
        self._listing.changed()

    def close(self, state: str) -> None:
        self._state = state
        self._progress.close()
        self._listing.close()

    def _show_progress(self) -> Shown:
        with self._lock:
            done, failed, reused = (self._table.totals[name] for name in ("done", "failed", "reused"))
            quarantined, made = self._table.totals["quarantined"], self._made
        words = [f"{self._stage}: {done:,}/{self._shards:,} shards"]
        words += [f"{reused:,} of them made before"] if reused else []
        words += [f"{failed:,} failed"] if failed else []
        words += [f"{quarantined:,} records quarantined"] if quarantined else []
        words += [f"{self._speed():,.0f} documents/s"]
        left = self._shards - done - failed
        if self._state:
            words.append(self._state)
        elif made and left:
            words.append(f"{duration((time.monotonic() - self._started) / made * left)} left")
        return Shown(100.0 * done / self._shards if self._shards else 100.0, ", ".join(words))

    def _show_table(self) -> Shown:
        with self._lock:
            rows = self._table.as_json(self._shards, self._speed())
        return Shown(rows, f"Shards of {self._stage}: those that failed, lost records or took longest")

    def _speed(self) -> float:
        return self._documents / max(time.monotonic() - self._started, 1e-3)


def artifact_key(kind: str, name: str) -> str:
    """The key of an artifact: lower case, digits and dashes."""
    return "-".join([kind, *"".join(each if each.isalnum() else " " for each in name.lower()).split()])
