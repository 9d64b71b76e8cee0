"""What of a run's folder MLflow does not have yet, delivered: steps, cost, evaluations, checkpoints.

The folder is the truth and MLflow a view of it. A delivery can be stopped anywhere and made again, by another process
of the run or a later one: MLflow is asked what it has.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from infra.cost import Cost
from infra.errors import RunFailed
from infra.lock import only_one
from infra.metric_rows import MetricRows, log_rows
from infra.store import Store
from infra.system_metrics import SystemMetrics
from infra.tracking import Tolerant, TrackedRun, client_of, log_file
from model.findings.tracking import EVALUATED, deliver_evaluation
from model.run import EvaluationRecord, LaunchRecord, RunRecord, evaluation_path, trained_tokens
from model.tracked_checkpoints import TrackedCheckpoints

_COST_SECONDS = 30.0
_LOCK_SECONDS = 60.0
_SAMPLES = 10  # in one request


class Delivery:
    """Of one run to its MLflow run; `deliver` raises infra.tracking.tracking_errors() where that does not answer."""

    def __init__(self, store: Store, run: RunRecord, tracked: TrackedRun, cost: "CostMeter | None" = None) -> None:
        self._store, self._run, self._tracked, self._cost = store, run, tracked, cost
        self._rows = MetricRows(tracked, store.local_path(f"{run.folder}/metrics.jsonl"), "loss")
        self._checkpoints = TrackedCheckpoints(store, run, tracked)
        self._evaluated: dict[int, int] | None = None
        """When evaluations were delivered, in milliseconds since 1970, by step."""

    def deliver(self) -> int:
        """Send what is new, and say how many steps that was."""
        sent = self._rows.deliver()
        client = client_of(self._tracked)
        if sent and self._cost is not None:
            log_rows(client, self._tracked.run_id, [{"step": self._rows.last_step, **self._cost.metrics()}])
        self._deliver_evaluations(client)
        self._checkpoints.deliver(client)
        return sent

    def _deliver_evaluations(self, client: Any) -> None:
        if self._evaluated is None:
            history = client.get_metric_history(self._tracked.run_id, EVALUATED)
            self._evaluated = {metric.step: metric.timestamp for metric in history}
        folder = f"{self._run.folder}/evaluations"
        for step in [int(name[5:-5]) for name in self._store.names(folder) if name.endswith(".json")]:
            path = evaluation_path(self._run, step)
            with suppress(FileNotFoundError):  # a rollback has removed it
                if self._store.local_path(path).stat().st_mtime * 1000 > self._evaluated.get(step, 0):
                    record = EvaluationRecord.load(self._store, path)
                    tokens, now = trained_tokens(self._store, self._run, step), int(time.time() * 1000)
                    deliver_evaluation(self._store, self._run, record, tokens, self._tracked)
                    self._evaluated[step] = now

    def finish(self) -> None:
        """Send what is new, and the file of all steps."""
        self.deliver()
        path = self._store.local_path(f"{self._run.folder}/metrics.jsonl")
        if path.exists():
            log_file(self._tracked, path)


def deliver_rest(store: Store, run: RunRecord, tracked: TrackedRun) -> None:
    """Send what the processes of a run could not, as when the server was away; a warning if it still is."""
    with delivering_alone(store, run), Tolerant("the rest of the run"):
        delivery = Delivery(store, run, tracked)
        if delivery.deliver():
            delivery.finish()


@contextmanager
def delivering_alone(store: Store, run: RunRecord) -> Iterator[None]:
    """Wait, for a minute at most, until no other process delivers the run: one of a killed launch may still do so."""
    with ExitStack() as held:
        with suppress(RunFailed):  # a row that is told twice is better than one that is not
            held.enter_context(only_one(store, f"{run.folder}/tracking.lock", "delivering the run", _LOCK_SECONDS))
        yield


class CostMeter:
    """Counts what the processors of a launch cost, from its start, beside what earlier launches did."""

    def __init__(
        self, store: Store, run: RunRecord, launch: LaunchRecord, *, started: float, gpus: int, cores: int
    ) -> None:
        """`started` is in seconds since 1970; GPUs and cores are those of all processes together."""
        self._store, self._path, self._prices = store, f"{run.folder}/cost.json", launch.prices
        self._earlier = read_cost(store, run)
        self._started, self._gpus, self._cores = started, gpus, cores
        self._saved = 0.0

    @property
    def cost(self) -> Cost:
        """So far."""
        hours = max(time.time() - self._started, 0.0) / 3600
        return self._earlier + Cost(gpu_hours=hours * self._gpus, core_hours=hours * self._cores)

    def metrics(self) -> dict[str, float]:
        """What MLflow draws; money only where there are prices."""
        cost = self.cost
        money = cost.money(self._prices)
        found = {"cost/gpu_hours": cost.gpu_hours, "cost/core_hours": cost.core_hours}
        return found if money is None else {**found, f"cost/{self._prices.currency}": money}

    def save(self, *, now: bool = False) -> None:
        """Write cost.json, unless that was done a moment ago."""
        if now or time.monotonic() > self._saved + _COST_SECONDS:
            self._saved = time.monotonic()
            self._store.write_bytes(self._path, self.cost.model_dump_json(indent=1).encode())


def read_cost(store: Store, run: RunRecord) -> Cost:
    """What the launches of a run have cost so far."""
    path = f"{run.folder}/cost.json"
    return Cost.model_validate_json(store.read_bytes(path)) if store.exists(path) else Cost()


def deliver_samples(system: SystemMetrics, tracked: TrackedRun) -> None:
    """Send the load of this machine; the step of a sample is seconds since the run began."""
    samples = system.waiting()
    if not samples:
        return
    client = client_of(tracked)
    began = client.get_run(tracked.run_id).info.start_time
    for start in range(0, len(samples), _SAMPLES):
        part = samples[start : start + _SAMPLES]
        rows = [{"step": max(when - began, 0) // 1000, "time": when, **metrics} for when, metrics in part]
        log_rows(client, tracked.run_id, rows)
        system.delivered(len(part))
