"""What it costs training to be tracked: `python -m tests.benchmarks.tracking_cost [--steps N] [--step-ms MS]`.

A loop of steps of a stated length records them as training does, with 17 metrics each, into a real MLflow server on
SQLite. Told: the share of a step that the loop spends on it, by wall and by processor time; the longest; and the
processor time of the process beside it and of the server, for each step. `--database postgresql+psycopg2://...` takes
another database.
"""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean, median

import psutil

from infra.store import Store
from infra.tracking import open_client, open_run
from model.run import prepare_run
from tests.flows.conftest import free_port
from tests.infra.mlflow_server import mlflow_server
from tests.model.small_runs import real_documents, small_training, write_dataset
from tests.model.tracked_steps import make_steps, tracked


def processor_seconds(process: psutil.Process) -> float:
    """Of a process and its children."""
    return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--step-ms", type=float, default=50)
    parser.add_argument("--database", help="SQLAlchemy URL; default SQLite in a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        run = prepare_run(store, write_dataset(store, real_documents()), "tracked", small_training(options.steps))
        address = f"http://127.0.0.1:{free_port()}"
        database = options.database or f"sqlite:///{folder}/mlflow.db"
        with mlflow_server(address, database, Path(folder)) as server:
            to = open_run(store, address, "cost", "tracked")
            with tracked(store, run, to) as (journal, tracker):
                make_steps(journal, 1, 1, 20)  # the process beside it imports MLflow meanwhile
                assert tracker.process is not None
                beside, behind = psutil.Process(tracker.process.pid), psutil.Process(server.pid)
                before = processor_seconds(beside), processor_seconds(behind)
                took = make_steps(journal, 2, options.steps, options.step_ms / 1000)
                after = processor_seconds(beside), processor_seconds(behind)
                tracker.finished = True
            delivered = len(open_client(address).get_metric_history(to.run_id, "loss"))
    step, wall, processor = options.step_ms / 1000, [each[0] for each in took], [each[1] for each in took]
    figures = {
        "steps": options.steps,
        "delivered": delivered,
        "milliseconds a step": options.step_ms,
        "of a step, wall": f"{mean(wall) / step:.3%}",
        "of a step, wall, median": f"{median(wall) / step:.3%}",
        "of a step, processor": f"{mean(processor) / step:.3%}",
        "longest, milliseconds": round(1000 * max(wall), 2),
        "process beside it, processor milliseconds a step": round(1000 * (after[0] - before[0]) / len(took), 2),
        "server, processor milliseconds a step": round(1000 * (after[1] - before[1]) / len(took), 2),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
