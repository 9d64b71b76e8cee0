"""Every layout against one process: `python -m tests.benchmarks.layouts [--processes 1 2 4] [--dtype bfloat16]`.

Each layout trains the same small model from the same initial weights on the same real text, then reads text that it was
not trained on. Printed, as a Markdown table, are the largest difference of the loss of a step (nats for each token) and
the largest relative difference of the gradient's norm, both against one process in the same type. "Resumed" is the same
for the second half of the steps after loading the checkpoint that the layout in the row above wrote after the first
half: every layout hands its run over to another. Ranks are started once for each number of processes.
"""

import argparse
import json
import os
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from infra.launching.launch import JobSpec, LocalLauncher
from infra.settings import Settings
from infra.store import Store
from model.config import Duration, OptimizerSettings, TrainingSettings
from model.data.objectives import Objective
from model.run import RunRecord
from model.settings.architecture import ModelSettings
from model.settings.layout import ParallelSettings
from tests.benchmarks.layout_cases import CASES, Case

VOCABULARY = 256
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}
"""Largest difference of a step's loss in nats. In bfloat16 a number has 8 bits, and layouts round sums elsewhere; in a
mixture, a token whose experts are nearly alike to it is then sent to another one, which a small model shows: 1e-1."""


class Order(Settings):
    """What the ranks of one job do."""

    cases: tuple[Case, ...]
    steps: int
    dtype: str = "float32"
    size: int = 64
    """Width of the model."""
    compiled: bool = False
    """Whether layers are compiled, on GPUs."""
    references: "tuple[Outcome, ...]" = ()
    """What one process made of each model, to compare with as soon as a case is done."""


class Outcome(Settings):
    """What a layout did."""

    name: str
    processes: int
    seconds: float
    losses: list[float]
    """Of each step, and of the text that was not trained on."""
    norms: list[float]
    resumed: list[float] | None
    """Losses from the middle on, after loading the checkpoint of the case before."""


def training_settings(case: Case, order: Order) -> TrainingSettings:
    """A model of four layers with heads of size / 8, and its run."""
    size = order.size
    model: dict[str, Any] = {
        "num_layers": 4,
        "hidden_size": size,
        "num_attention_heads": 8,
        "num_query_groups": 4,
        "ffn_hidden_size": 3 * size,
        "sequence_length": 64,
    }
    values: dict[str, Any] = {
        "optimizer": OptimizerSettings(learning_rate=1e-3, warmup_steps=4).model_dump(exclude_unset=True),
        "duration": Duration(steps=max(order.steps, 10)).model_dump(exclude_unset=True),
        "global_batch_size": 8,
        "micro_batch_size": 2,
        "dtype": order.dtype,
        "compiled": order.compiled,
        **case.training,
        "model": {**model, **case.training.get("model", {})},
        "parallel": case.parallel.model_dump(),
    }
    return TrainingSettings.model_validate(values)


def text() -> np.ndarray[Any, Any]:
    """Bytes of the standard library: real text that every Python has."""
    library = Path(sysconfig.get_path("stdlib"))
    return np.frombuffer(b"".join((library / f"{name}.py").read_bytes() for name in ("argparse", "tarfile")), np.uint8)


def sample(tokens: np.ndarray[Any, Any], index: int, length: int) -> np.ndarray[Any, Any]:
    """One of many overlapping pieces; every fifth is short, so that it is padded and masked."""
    start = index * 7919 % (len(tokens) - length - 1)
    return tokens[start : start + (length + 1 if index % 5 else length // 2)].astype(np.int64)


def _batch(tokens: np.ndarray[Any, Any], indices: Sequence[int], model: ModelSettings, place: Any) -> Any:
    """A micro-batch in which documents end at line ends of odd lines and do not see one another."""
    import torch

    from model.data.batches import Rows, ask, to_batches

    length = model.sequence_length
    text = torch.full((len(indices), length + 1), -1, dtype=torch.int32)
    for row, index in zip(text, indices, strict=True):
        piece = torch.from_numpy(sample(tokens, index, length))
        row[: len(piece)] = piece
    rows = Rows(torch.stack([text[:, :-1].clamp(min=0), text[:, 1:]]), indices)
    if not model.predicts_next_token:
        rows = ask(Objective(model, VOCABULARY, ord("\n"), seed=1), rows)
        return to_batches(rows, len(indices), place.device)[0]
    (batch,) = to_batches(rows, len(indices), place.device)
    return replace(batch, documents=torch.cumsum(batch.tokens == ord("\n"), 1, dtype=torch.int32) // 2)


def main() -> None:
    if "RANK" in os.environ:
        run_rank()
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--dtype", choices=list(TOLERANCE), default="float32")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=64, help="width of the model; 512 on GPUs")
    parser.add_argument("--compiled", action="store_true", help="compile layers, on GPUs")
    parser.add_argument("--only", default="", help="cases whose names contain this")
    options = parser.parse_args()
    cases = [each for each in CASES if options.only in each.name]
    order = Order(
        cases=tuple(cases), steps=options.steps, dtype=options.dtype, size=options.size, compiled=options.compiled
    )
    print(f"| processes | layout | loss ({options.dtype}, at most {TOLERANCE[options.dtype]:.0e}) |", end="")
    print(" gradient norm | resumed | seconds |\n|---|---|---|---|---|---|", flush=True)
    measure(order, options.processes, _show)


def _show(line: str) -> None:
    if "| " in line:
        print(line[line.index("| ") :], flush=True)


def measure(
    order: Order, processes: Sequence[int], on_line: Callable[[str], None] = lambda line: None
) -> list[Outcome]:
    """Run the cases of each number of processes in one job, the references among them."""
    cases = sorted(order.cases, key=lambda each: each.model)
    references = [
        Case(name=f"reference {model}", parallel=ParallelSettings(), training=next(same).training)
        for model, same in groupby(cases, key=lambda each: each.model)
    ]
    outcomes: list[Outcome] = []
    for count in dict.fromkeys([1, *processes]):
        due = [each for each in order.cases if each.parallel.processes == count and count in processes]
        due = [*references, *due] if count == 1 else due
        if due:
            known = tuple(each for each in outcomes if each.name.startswith("reference"))
            job = order.model_copy(update={"cases": tuple(due), "references": known})
            outcomes += _job(job, count, on_line)
    return outcomes


def _job(order: Order, processes: int, on_line: Callable[[str], None]) -> list[Outcome]:
    with tempfile.TemporaryDirectory(prefix="gristmill-layouts-") as folder:
        (Path(folder) / "order.json").write_text(order.model_dump_json())
        job = JobSpec(
            module="tests.benchmarks.layouts",
            processes=processes,
            environment={"GRISTMILL_LAYOUTS": folder, "CUDA_DEVICE_MAX_CONNECTIONS": "1"},
        )
        LocalLauncher().run(job, on_line)
        return [Outcome(**each) for each in json.loads((Path(folder) / "outcomes.json").read_text())]


def run_rank() -> None:
    """A rank: every case in turn, with model parallelism set up anew for each."""
    from model.rank import rank_process

    folder = Path(os.environ["GRISTMILL_LAYOUTS"])
    order = Order.model_validate_json((folder / "order.json").read_text())
    with rank_process():
        from model.parallel import arranged, joined

        outcomes: list[Outcome] = []
        last: dict[str, str] = {}
        with joined() as device:
            for each in order.cases:
                settings, began = training_settings(each, order), time.monotonic()
                with arranged(settings.parallel, settings.seed, device) as place:
                    losses, norms = _from_start(each, settings, order.steps, place, folder)
                    resumed = (
                        _from_middle(last[each.model], settings, order.steps, place, folder)
                        if each.model in last
                        else None
                    )
                last[each.model] = each.name
                seconds = time.monotonic() - began
                outcomes.append(
                    Outcome(
                        name=each.name,
                        processes=settings.parallel.processes,
                        seconds=seconds,
                        losses=losses,
                        norms=norms,
                        resumed=resumed,
                    )
                )
                if os.environ["RANK"] == "0":
                    known = [*order.references, *outcomes]
                    for line in rows([each], known):
                        print(line, flush=True)
            if os.environ["RANK"] == "0":
                (folder / "outcomes.json").write_text(json.dumps([one.model_dump() for one in outcomes]))


def _run(name: str, settings: TrainingSettings) -> RunRecord:
    """The run of a case; all have one fingerprint, so that each may read the others' checkpoints."""
    return RunRecord(
        name=_file_name(name),
        dataset="text",
        dataset_version="1",
        dataset_fingerprint="text",
        dataset_manifest="",
        vocabulary_size=VOCABULARY,
        train_tokens=0,
        training=settings,
        fingerprint="same",
    )


def _from_start(
    case: Case, settings: TrainingSettings, steps: int, place: Any, folder: Path
) -> tuple[list[float], list[float]]:
    """Losses and norms of all steps; a checkpoint is written after the first half."""
    run = _run(case.name, settings)
    rows = list(_train(run, settings, 0, steps, place, _saving(run, folder, place, steps // 2)))
    return [loss for _, loss, _ in rows], [norm for _, _, norm in rows[:-1]]


def _from_middle(earlier: str, settings: TrainingSettings, steps: int, place: Any, folder: Path) -> list[float]:
    """Losses of the second half, from another case's checkpoint."""
    run = _run(earlier, settings)
    rows = _train(run, settings, steps // 2, steps, place, _loading(run, folder, place))
    return [loss for _, loss, _ in rows]


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _saving(run: RunRecord, folder: Path, place: Any, middle: int) -> Callable[[int, Any, Any], None]:
    from model.recovery.checkpoint import Checkpoints

    checkpoints = Checkpoints(Store(str(folder)), run, place)

    def save(step: int, chunks: Any, optimizer: Any) -> None:
        if step == 0:
            checkpoints.clean()
        if step == middle:
            checkpoints.save(chunks, optimizer, step=step, consumed_samples=0, seconds=0)

    return save


def _loading(run: RunRecord, folder: Path, place: Any) -> Callable[[int, Any, Any], None]:
    from model.recovery.checkpoint import Checkpoints

    checkpoints = Checkpoints(Store(str(folder)), run, place)
    loaded: list[int] = []

    def load(step: int, chunks: Any, optimizer: Any) -> None:
        if not loaded:
            record = checkpoints.latest()
            assert record is not None
            assert record.step == step
            checkpoints.load(record, [chunk.module for chunk in chunks], optimizer)
            loaded.append(step)

    return load


def _train(
    run: RunRecord,
    settings: TrainingSettings,
    first: int,
    steps: int,
    place: Any,
    before_step: Callable[[int, Any, Any], None],
) -> Iterator[tuple[int, float, float]]:
    """Yields each step's number, loss and gradient norm, and at last the loss of text that was not trained on."""
    import torch

    from model.architectures.build import build_model
    from model.updates.distribution import distribute
    from model.updates.forward import sum_micro_batches
    from model.updates.optimizer import build_optimizer, build_schedule

    chunks = distribute(build_model(settings, settings.parallel, place, run.vocabulary_size), settings.parallel)
    optimizer = build_optimizer(chunks, settings)
    schedule = build_schedule(optimizer, settings.optimizer, settings.duration.steps or 1, first)
    tokens, model = text(), settings.model
    batch, micro, data = settings.global_batch_size, settings.micro_batch_size, place.layout.data
    for step in range(first, steps):
        before_step(step, chunks, optimizer)
        for chunk in chunks:
            chunk.zero_grad_buffer()
        optimizer.zero_grad()
        starts = range(step * batch + place.data_rank * micro, (step + 1) * batch, micro * data)
        batches = [_batch(tokens, range(start, start + micro), model, place) for start in starts]
        loss, _, _, counted = sum_micro_batches(chunks, batches, place, backward=True).tolist()
        total, count = place.sum_over_all([loss, counted])
        schedule.step(1)
        _, norm, _ = optimizer.step()
        yield step, total / count, float(norm)
    for chunk in chunks:
        chunk.eval()
    if settings.parallel.overlap:
        for chunk in chunks:
            chunk.start_param_sync(force_sync=True)
    share = range(10**6 + place.data_rank * 24 // data, 10**6 + (place.data_rank + 1) * 24 // data)
    batches = [_batch(tokens, [each], model, place) for each in share]
    with torch.no_grad():
        loss, _, _, counted = sum_micro_batches(chunks, batches, place, backward=False).tolist()
    total, count = place.sum_over_all([loss, counted])
    yield steps, total / count, 0.0


def differences(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> Iterator[tuple[Outcome, float, float, float]]:
    """Each case's outcome, its differences of loss and of norm (relative), and of the loss when resumed."""
    references = {each.name.removeprefix("reference "): each for each in outcomes if each.name.startswith("reference")}
    models = {each.name: each.model for each in cases}
    for outcome in outcomes:
        if outcome.name in models:
            one = references[models[outcome.name]]
            loss = _largest(outcome.losses, one.losses)
            norm = max(abs(a / b - 1) for a, b in zip(outcome.norms, one.norms, strict=True))
            resumed = outcome.resumed
            again = float("nan") if resumed is None else _largest(resumed, one.losses[-len(resumed) :])
            yield outcome, loss, norm, again


def _largest(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def rows(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Lines of a Markdown table."""
    for outcome, loss, norm, resumed in differences(cases, outcomes):
        figures = f"{loss:.1e} | {norm:.1e} | {resumed:.1e} | {outcome.seconds:.0f}"
        yield f"| {outcome.processes} | {outcome.name} | {figures} |"


if __name__ == "__main__":
    main()
