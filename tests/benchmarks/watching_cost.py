"""What it costs to show a stage in Prefect's pages: processor time with and without, on many tiny shards.

    python -m tests.benchmarks.watching_cost --shards 1000 --repeats 3

A real Prefect server runs beside it; its processor time is counted too. Runs alternate, so that a busy machine slows
both kinds alike.
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psutil

from flows.servers.server import ensure_prefect_server
from infra.cluster import Cluster, open_cluster
from infra.environment import Environment
from infra.settings import Settings
from infra.store import Store
from tasks.observer import StageObserver
from tasks.stage import StageRunner
from tests.tasks.shard_functions import COUNTING, CountSettings, count

logger = logging.getLogger(__name__)


class Cost(Settings):
    """Of one run, in seconds."""

    wall: float
    driver: float
    """Processor time of the process that the flow runs in."""
    server: float
    """Processor time of Prefect's server."""
    workers: float
    """Processor time of Dask's workers."""


def measured(root: Path, cluster: Cluster, observer: StageObserver, sources: list[str]) -> Cost:
    """Run the counting stage in a new folder."""
    families = {False: [psutil.Process()], True: []}
    for child in psutil.Process().children(recursive=True):
        families[_is_server(child)].append(child)
    workers = [each for each in families[False] if each.pid != os.getpid()]
    clocks: list[Callable[[], float]] = [
        time.monotonic, time.process_time, lambda: _seconds(families[True]), lambda: _seconds(workers)
    ]  # fmt: skip
    before = [clock() for clock in clocks]
    StageRunner(Store(str(root)), cluster, observer).run(COUNTING, count, sources, CountSettings(), {})
    wall, driver, server, busy = (clock() - began for clock, began in zip(clocks, before, strict=True))
    return Cost(wall=wall, driver=driver, server=server, workers=busy)


def _is_server(process: psutil.Process) -> bool:
    return any("uvicorn" in part for part in process.cmdline())


def _seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(each.cpu_times()[:2]) for each in processes if each.is_running())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    sources = [f"shard {number}" for number in range(options.shards)]
    with tempfile.TemporaryDirectory() as folder:
        ensure_prefect_server(Path(folder) / "prefect")
        from prefect import flow

        from flows.live.panels import Panels
        from flows.live.watching import StageWatch

        @flow(persist_result=False)
        def compare() -> dict[str, list[Cost]]:
            costs: dict[str, list[Cost]] = {"silent": [], "watched": []}
            with open_cluster(Environment(workers=2)) as cluster, Panels() as panels:
                measured(Path(folder) / "warm", cluster, StageObserver(), sources[:100])
                for number in range(options.repeats):
                    for kind, observer in (("silent", StageObserver()), ("watched", StageWatch(panels))):
                        costs[kind].append(measured(Path(folder) / f"{kind}{number}", cluster, observer, sources))
            return costs

        costs = compare()
    for kind, found in costs.items():
        parts = {name: median(getattr(each, name) for each in found) for name in Cost.model_fields}
        print(f"{kind}: " + ", ".join(f"{name} {value:.2f} s" for name, value in parts.items()))
    whole = {kind: median(each.driver + each.server + each.workers for each in found) for kind, found in costs.items()}
    print(f"processor time of all: {whole['watched'] / whole['silent'] - 1:+.1%}")


if __name__ == "__main__":
    main()
