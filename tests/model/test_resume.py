"""A run that is interrupted, in whatever way, ends as the run that was not."""

import contextlib
import shutil
import signal
import threading
import time

import psutil
import pytest

from infra.errors import RunFailed
from infra.manifest import DatasetManifest
from infra.store import Store
from model.loop import train as train_here
from model.rank import STOPPED
from model.recovery.events import read_events
from model.run import EvaluationRecord, RunRecord, evaluation_path, finished_training, prepare_run, read_metrics
from tests.model.digests import digest_of
from tests.model.small_runs import launch, layout, small_training

# Several buckets, some of them padded: what Megatron-Core's optimizer checkpoints need model.megatron.fixes for.
OVERLAPPED = layout(data=2, overlap=True, bucket_size=5000)
CHECKPOINTS = {"every_steps": 4, "keep": 3, "asynchronous": True}


@pytest.fixture(scope="module")
def uninterrupted(store: Store, dataset: DatasetManifest) -> RunRecord:
    run = prepare_run(store, dataset, "whole", small_training(parallel=OVERLAPPED, checkpoint=CHECKPOINTS))
    launch(store, run)
    return run


def rows_of(store: Store, run: RunRecord) -> list[dict[str, float]]:
    return read_metrics(store.local_path(run.folder))


def continue_from_step_4(store, dataset, name, whole, parallel, **changes) -> list[dict[str, float]]:
    run = prepare_run(store, dataset, name, small_training(parallel=parallel, checkpoint=CHECKPOINTS, **changes))
    assert run.fingerprint == whole.fingerprint
    source, target = store.local_path(whole.folder), store.local_path(run.folder)
    shutil.copytree(source / "checkpoints/step-00000004", target / "checkpoints/step-00000004")
    # As after a kill between step 6 and the checkpoint of step 8: rows 5 and 6 are made again.
    lines = (source / "metrics.jsonl").read_text().splitlines(keepends=True)
    (target / "metrics.jsonl").write_text("".join(lines[:6]) + lines[6][:20])
    launch(store, run)
    return rows_of(store, run)


def test_resume_is_bitwise_on_the_same_layout_even_if_evaluated_on_the_way(store, dataset, uninterrupted) -> None:
    whole = rows_of(store, uninterrupted)
    evaluated = {"every_steps": 2, "of": {"prompts": ["def "], "temperature": 0}}
    rows = continue_from_step_4(store, dataset, "same-layout", uninterrupted, OVERLAPPED, evaluation=evaluated)
    assert [row["step"] for row in rows] == list(range(1, 9))
    for key in ("loss", "gradient_norm", "learning_rate", "tokens"):
        assert [row[key] for row in rows] == [row[key] for row in whole]
    folder = store.local_path("runs/same-layout") / uninterrupted.folder.rpartition("/")[2] / "evaluations"
    assert sorted(each.name for each in folder.glob("*.json")) == [f"step-0000000{step}.json" for step in (4, 6, 8)]


def test_finished_run_returns_at_once(store, uninterrupted) -> None:
    summary = finished_training(store, uninterrupted)
    assert summary is not None
    assert (summary.steps, summary.tokens, summary.parameters) == (8, 8 * 8 * 64, 35_008)
    assert summary.loss.last == rows_of(store, uninterrupted)[-1]["loss"]
    lines: list[str] = []
    launch(store, uninterrupted, on_line=lines.append)
    assert all("is finished after 8 steps" in line for line in lines)
    assert finished_training(store, uninterrupted) == summary


def training_ranks() -> list[psutil.Process]:
    below = psutil.Process().children(recursive=True)
    return [each for each in below if "model.train" in each.cmdline() and "infra.child" not in each.cmdline()]


def test_killed_rank_is_reported_and_the_rerun_ends_alike(store, dataset) -> None:
    settings = small_training(
        40, parallel=layout(data=2), checkpoint={"every_steps": 10, "keep": 2, "asynchronous": True}
    )
    run = prepare_run(store, dataset, "killed", settings)

    def kill_one(line: str) -> None:
        if "step 12/40" in line:
            training_ranks()[-1].send_signal(signal.SIGKILL)

    with pytest.raises(RunFailed, match=r"rank \d was killed by SIGKILL") as failure:
        launch(store, run, on_line=kill_one)
    assert "Run the same command again" in str(failure.value)
    assert training_ranks() == []
    launch(store, run)
    whole = prepare_run(store, dataset, "not-killed", settings)
    launch(store, whole)
    assert [row["loss"] for row in rows_of(store, run)] == [row["loss"] for row in rows_of(store, whole)]
    last = [store.local_path(f"{each.folder}/checkpoints/step-00000040") for each in (run, whole)]
    assert digest_of(last[0]) == digest_of(last[1])
    kept = store.names(f"{run.folder}/checkpoints")
    assert kept == ["step-00000030", "step-00000040"]


@pytest.mark.parametrize("packing", ["cut", "best-fit"])
def test_dropout_is_resumed_bit_for_bit(store, dataset, alone, packing) -> None:
    model = small_training().model.model_copy(update={"hidden_dropout": 0.2, "attention_dropout": 0.2})
    settings = small_training(model=model, checkpoint={"every_steps": 4, "keep": 3}, data={"packing": packing})
    run = prepare_run(store, dataset, f"dropout-{packing}", settings)
    assert train_here(store, run, dataset) == 0
    losses = [row["loss"] for row in rows_of(store, run)]
    last = store.local_path(f"{run.folder}/checkpoints/step-00000008")
    digest = digest_of(last)
    shutil.rmtree(last)
    store.remove(f"{run.folder}/training.json")
    assert train_here(store, run, dataset) == 0
    assert [row["loss"] for row in rows_of(store, run)] == losses
    assert digest_of(last) == digest


def hold_back(process: psutil.Process, until: threading.Event) -> None:
    """Let a process run for a fiftieth of the time."""
    with contextlib.suppress(psutil.NoSuchProcess):
        while not until.wait(0.001):
            process.suspend()
            time.sleep(0.05)
            process.resume()


@pytest.mark.e2e
def test_a_slow_process_is_named_and_stops_the_run(store, dataset) -> None:
    health = {"straggler": "stop", "straggler_every": 4, "straggler_factor": 4.0}
    run = prepare_run(store, dataset, "slow", small_training(60, parallel=layout(data=2), health=health))
    over = threading.Event()
    threads: list[threading.Thread] = []

    def slow_one_down(line: str) -> None:
        if not threads and "step 4/" in line:
            second = max(training_ranks(), key=lambda rank: int(rank.environ()["RANK"]))
            threads.append(threading.Thread(target=hold_back, args=(second, over)))
            threads[0].start()

    try:
        with pytest.raises(RunFailed, match=r"rank 1 on \S+ took [\d.]+ ms for work that the others do"):
            launch(store, run, on_line=slow_one_down)
    finally:
        over.set()
        threads[0].join()
    *_, event = read_events(store.local_path(run.folder))
    assert (event.kind, event.action) == ("straggler", "stop")
    assert store.names(f"{run.folder}/checkpoints") == [f"step-{event.step:08d}"]


def test_cancelled_run_writes_a_checkpoint(store, dataset) -> None:
    settings = small_training(100_000, parallel=layout(data=2), checkpoint={"every_steps": None})
    run = prepare_run(store, dataset, "cancelled", settings)

    class Cancelled(BaseException):
        pass

    def cancel(line: str) -> None:
        if "step 8/" in line:
            raise Cancelled

    with pytest.raises(Cancelled):
        launch(store, run, on_line=cancel)
    assert training_ranks() == []
    (name,) = store.names(f"{run.folder}/checkpoints")
    assert int(name.removeprefix("step-")) == rows_of(store, run)[-1]["step"] >= 8
    assert finished_training(store, run) is None


def test_a_stop_while_evaluating_leaves_the_evaluation_for_later(store, dataset, alone, stop_at) -> None:
    of = {"prompts": ["def "] * 8, "sample_tokens": 32, "temperature": 0}
    settings = small_training(4, checkpoint={"every_steps": None}, evaluation={"every_steps": 4, "of": of})
    run = prepare_run(store, dataset, "left", settings)
    stop_at.step = 4
    assert train_here(store, run, dataset) == STOPPED
    assert store.names(f"{run.folder}/checkpoints") == ["step-00000004"]
    assert not store.exists(evaluation_path(run, 4))
    assert finished_training(store, run) is None
    stop_at.step = 0
    assert train_here(store, run, dataset) == 0
    assert len(EvaluationRecord.load(store, evaluation_path(run, 4)).samples) == 8
