"""Kill -9 a training at random moments, run it again, compare: `python -m tests.benchmarks.training_kills`.

A small model is trained on two processes without interruption; another run of the same settings is killed twenty times,
in turn one process of it or all at once, at moments drawn at random from the training, the start and the writing of
checkpoints included, and run again each time. The last checkpoints of both (weights, master weights, moments) must have
the same digest, and every step the same loss.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from infra.manifest import DatasetManifest
from infra.store import Store
from model.run import RunRecord, finished_training, prepare_run, read_metrics, step_name
from tests.model.digests import digest_of
from tests.model.small_runs import layout, real_documents, small_training, write_dataset


def prepare(store: Store, dataset: DatasetManifest, name: str, options: argparse.Namespace) -> RunRecord:
    """One of the two runs, which differ in nothing but their names."""
    checkpoint = {"every_steps": options.every, "keep": 2, "asynchronous": not options.synchronous}
    parallel = layout(tensor=options.tensor, data=2 // options.tensor, overlap=options.tensor == 1)
    settings = small_training(options.steps, parallel=parallel, checkpoint=checkpoint, log_every=10)
    return prepare_run(store, dataset, name, settings)


def start(store: Store, run: RunRecord) -> subprocess.Popen[bytes]:
    agent = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=0"]
    return subprocess.Popen(
        [sys.executable, *agent, "-m", "model.train", str(store.local_path(run.folder))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "20"},
    )


def run_until_killed(store: Store, run: RunRecord, chance: random.Random, *, everything: bool) -> bool:
    """Start, kill at a random moment of the start or of the training; False if it came to its end before."""
    metrics = store.local_path(run.folder) / "metrics.jsonl"
    began = time.time()
    with start(store, run) as agent:
        early = chance.random() < 0.15
        while not early and agent.poll() is None and not (metrics.exists() and metrics.stat().st_mtime > began + 1):
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 8 if early else 4))
        if agent.poll() is not None:
            return False
        kill(agent, chance, everything=everything)
        agent.wait(60)
    return finished_training(store, run) is None


def kill(agent: subprocess.Popen[bytes], chance: random.Random, *, everything: bool) -> None:
    """SIGKILL to the agent, whose ranks die with it, or to one rank."""
    below = [each for each in psutil.Process(agent.pid).children(recursive=True) if "model.train" in each.cmdline()]
    if everything or not below:
        os.killpg(agent.pid, signal.SIGKILL)
    else:
        chance.choice(below).kill()


def steps_made(store: Store, run: RunRecord) -> int:
    rows = read_metrics(store.local_path(run.folder))
    return int(rows[-1]["step"]) if rows else 0


def finish(store: Store, run: RunRecord) -> None:
    with start(store, run) as agent:
        if agent.wait() != 0:
            raise SystemExit(f"{run.folder} failed with exit code {agent.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("gristmill-data/training-kills"))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--every", type=int, default=25, help="steps between checkpoints")
    parser.add_argument("--tensor", type=int, choices=(1, 2), default=1, help="2 shares layers, 1 shares the batch")
    parser.add_argument("--synchronous", action="store_true", help="training waits for its checkpoints")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    store, chance = Store(str(options.work)), random.Random(options.seed)
    dataset = write_dataset(store, real_documents())
    whole, killed = (prepare(store, dataset, name, options) for name in ("whole", "killed"))
    finish(store, whole)
    kills = 0
    while kills < options.kills and run_until_killed(store, killed, chance, everything=kills % 2 == 0):
        kills += 1
        whom = "all processes" if kills % 2 else "one process"
        names = " ".join(store.names(f"{killed.folder}/checkpoints"))
        print(f"kill {kills} of {whom} at step {steps_made(store, killed)}; there are {names}", flush=True)
    finish(store, killed)
    raise SystemExit(not compare(store, whole, killed, kills))


def compare(store: Store, whole: RunRecord, killed: RunRecord, kills: int) -> bool:
    """Print both results; whether they are the same."""
    digests = [
        digest_of(store.local_path(f"{run.folder}/checkpoints/{step_name(run.steps)}")) for run in (whole, killed)
    ]
    rows = [[row["loss"] for row in read_metrics(store.local_path(run.folder))] for run in (whole, killed)]
    print(f"undisturbed        {digests[0]}  {len(rows[0])} steps, last loss {rows[0][-1]:.6f}")
    print(f"killed {kills:2d} times    {digests[1]}  {len(rows[1])} steps, last loss {rows[1][-1]:.6f}")
    same = digests[0] == digests[1] and rows[0] == rows[1]
    print("equal" if same else "DIFFERENT")
    return same


if __name__ == "__main__":
    main()
