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
from pydantic import Field

from infra.launch import JobSpec, LocalLauncher
from infra.settings import Settings
from infra.store import Store
from model.architecture import ModelSettings
from model.config import Duration, OptimizerSettings, TrainingSettings
from model.layout import ParallelSettings
from model.objectives import Objective
from model.run import RunRecord

VOCABULARY = 256
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
"""Largest difference of a step's loss in nats. In bfloat16 a number has 8 bits, and layouts round sums elsewhere."""


class Case(Settings):
    """A layout to try, and what the model has that the layout needs."""

    name: str
    parallel: ParallelSettings
    training: dict[str, Any] = Field(default_factory=dict)
    """Settings that differ, as in a configuration file."""

    @property
    def model(self) -> str:
        """Cases of the same model have one reference."""
        return json.dumps({key: self.training[key] for key in ("model",) if key in self.training})


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
    last_case: str | None
    """Which that was."""


def case(name: str, tensor: int = 1, pipeline: int = 1, context: int = 1, data: int = 1, **more: Any) -> Case:
    processes = tensor * pipeline * context * data
    training = more.pop("training", {})
    layout = ParallelSettings(tensor=tensor, pipeline=pipeline, context=context, processes=processes, **more)
    return Case(name=name, parallel=layout, training=training)


MIXTURE: dict[str, Any] = {"model": {"mixture": {"experts": 4, "top_k": 2, "shared_ffn_hidden_size": 64}}}
PLAIN: dict[str, Any] = {
    "model": {
        "normalization": "LayerNorm",
        "activation": "gelu",
        "positions": "learned",
        "biases": True,
        "qk_norm": False,
        "tied_embeddings": False,
        "num_query_groups": 8,
        "sliding_window": 24,
        "full_attention_every": 2,
    }
}
BERT: dict[str, Any] = {"model": {"architecture": "bert", "num_query_groups": 8}}
T5: dict[str, Any] = {"model": {"architecture": "t5", "num_query_groups": 8}}
LSTM: dict[str, Any] = {"model": {"architecture": "lstm"}}

CASES = [
    case("one process"),
    case("data 2", data=2),
    case("data 2, overlap", data=2, overlap=True, bucket_size=20_000),
    case("tensor 2", tensor=2),
    case("tensor 2, sequence", tensor=2, sequence_parallel=True),
    case("pipeline 2", pipeline=2),
    case("pipeline 2 x 2 interleaved", pipeline=2, virtual_pipeline=2),
    case("context 2", context=2),
    case("mixture: expert 2", data=2, expert=2, training=MIXTURE),
    case("mixture: tensor 2, sequence", tensor=2, sequence_parallel=True, training=MIXTURE),
    case("mixture: context 2, expert 2", context=2, expert=2, training=MIXTURE),
    case("gpt-2: tensor 2, sequence", tensor=2, sequence_parallel=True, training=PLAIN),
    case("gpt-2: context 2", context=2, training=PLAIN),
    case("gpt-2: pipeline 2, full recomputation", pipeline=2, training={**PLAIN, "recompute": "full"}),
    case("bert: tensor 2, sequence", tensor=2, sequence_parallel=True, training=BERT),
    case("bert: pipeline 2", pipeline=2, training=BERT),
    case("bert: context 2", context=2, training=BERT),
    case("t5: tensor 2, sequence", tensor=2, sequence_parallel=True, training=T5),
    case("t5: data 2", data=2, training=T5),
    case("lstm: data 2", data=2, training=LSTM),
    case("data 4", data=4),
    case("tensor 2, data 2", tensor=2, data=2),
    case("tensor 2, sequence, data 2, overlap", tensor=2, data=2, sequence_parallel=True, overlap=True),
    case("tensor 4, sequence", tensor=4, sequence_parallel=True),
    case("pipeline 4", pipeline=4),
    case("pipeline 2, data 2", pipeline=2, data=2),
    case(
        "pipeline 2 x 2 interleaved, data 2, overlap",
        pipeline=2,
        data=2,
        virtual_pipeline=2,
        overlap=True,
        bucket_size=20_000,
    ),
    case("tensor 2, sequence, pipeline 2", tensor=2, pipeline=2, sequence_parallel=True),
    case(
        "tensor 2, sequence, pipeline 2 x 2 interleaved",
        tensor=2,
        pipeline=2,
        virtual_pipeline=2,
        sequence_parallel=True,
    ),
    case("mixture: expert 2, data 4", data=4, expert=2, training=MIXTURE),
    case("mixture: expert 4", data=4, expert=4, training=MIXTURE),
    case("mixture: tensor 2, sequence, expert 2", tensor=2, data=2, expert=2, sequence_parallel=True, training=MIXTURE),
    case(
        "mixture: pipeline 2 x 2 interleaved, expert 2",
        pipeline=2,
        virtual_pipeline=2,
        data=2,
        expert=2,
        training=MIXTURE,
    ),
    case("context 4", context=4),
    case("context 2, data 2", context=2, data=2),
    case("context 2, pipeline 2", context=2, pipeline=2),
    case("context 2, tensor 2, sequence", context=2, tensor=2, sequence_parallel=True),
    case(
        "tensor 2, sequence, pipeline 2 x 2 interleaved, data 2, overlap",
        tensor=2,
        pipeline=2,
        data=2,
        virtual_pipeline=2,
        sequence_parallel=True,
        overlap=True,
    ),
    case("tensor 2, sequence, pipeline 2, context 2", tensor=2, pipeline=2, context=2, sequence_parallel=True),
    case("tensor 2, context 2, data 2", tensor=2, context=2, data=2, sequence_parallel=True),
]


def training_settings(case: Case, steps: int, dtype: str, size: int) -> TrainingSettings:
    """A decoder `size` wide of four layers, heads of size / 8, and its run."""
    model: dict[str, Any] = {
        "num_layers": 4,
        "hidden_size": size,
        "num_attention_heads": 8,
        "num_query_groups": 4,
        "ffn_hidden_size": 3 * size,
        "sequence_length": 64,
    }
    values: dict[str, Any] = {
        "optimizer": OptimizerSettings(learning_rate=3e-3, warmup_steps=4).model_dump(exclude_unset=True),
        "duration": Duration(steps=max(steps, 10)).model_dump(exclude_unset=True),
        "global_batch_size": 8,
        "micro_batch_size": 2,
        "dtype": dtype,
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
    parser.add_argument("--only", default="", help="cases whose names contain this")
    options = parser.parse_args()
    cases = [each for each in CASES if options.only in each.name]
    outcomes = measure(cases, options.processes, options.steps, options.dtype, options.size, print)
    print(table(cases, outcomes, options.dtype))


def measure(
    cases: Sequence[Case],
    processes: Sequence[int],
    steps: int,
    dtype: str,
    size: int,
    on_line: Callable[[str], None] = lambda line: None,
) -> list[Outcome]:
    """Run the cases of each number of processes in one job, the references among them."""
    references = [
        Case(name=f"reference {model}", parallel=ParallelSettings(), training=next(same).training)
        for model, same in groupby(sorted(cases, key=lambda each: each.model), key=lambda each: each.model)
    ]
    outcomes: list[Outcome] = []
    for count in dict.fromkeys([1, *processes]):
        due = [each for each in cases if each.parallel.processes == count and count in processes]
        due = [*references, *due] if count == 1 else due
        if due:
            outcomes += _job(due, count, steps, dtype, size, on_line)
    return outcomes


def _job(cases: Sequence[Case], processes: int, steps: int, dtype: str, size: int, on_line: Any) -> list[Outcome]:
    with tempfile.TemporaryDirectory(prefix="gristmill-layouts-") as folder:
        order = {"cases": [each.model_dump() for each in cases], "steps": steps, "dtype": dtype, "size": size}
        (Path(folder) / "order.json").write_text(json.dumps(order))
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
    order = json.loads((folder / "order.json").read_text())
    with rank_process():
        from model.parallel import arranged, joined

        outcomes: list[Outcome] = []
        with joined() as device:
            for each in (Case(**values) for values in order["cases"]):
                settings = training_settings(each, order["steps"], order["dtype"], order["size"])
                began = time.monotonic()
                with arranged(settings.parallel, settings.seed, device) as place:
                    earlier = next((one for one in reversed(outcomes) if _model_of(one, order) == each.model), None)
                    result = _run_case(each, settings, order["steps"], place, folder, earlier)
                seconds, processes = time.monotonic() - began, settings.parallel.processes
                outcomes.append(Outcome(name=each.name, processes=processes, seconds=seconds, **result))
                if os.environ["RANK"] == "0":
                    print(f"{each.name}: {seconds:.1f} s", flush=True)
            if os.environ["RANK"] == "0":
                (folder / "outcomes.json").write_text(json.dumps([one.model_dump() for one in outcomes]))


def _model_of(outcome: Outcome, order: dict[str, Any]) -> str:
    return next(Case(**each).model for each in order["cases"] if each["name"] == outcome.name)


def _run_case(
    case: Case, settings: TrainingSettings, steps: int, place: Any, folder: Path, earlier: Outcome | None
) -> dict[str, Any]:
    middle = steps // 2
    run = RunRecord(
        name=case.name,
        dataset="text",
        dataset_version="1",
        dataset_fingerprint="text",
        dataset_manifest="",
        vocabulary_size=VOCABULARY,
        train_tokens=0,
        training=settings,
        fingerprint=case.model,
    )
    run = run.model_copy(update={"name": _file_name(case.name), "fingerprint": "same"})
    losses, norms, middle_saved = [], [], False
    for step, loss, norm in _train(run, settings, 0, steps, place, _saving(run, folder, place, middle)):
        losses.append(loss)
        norms.append(norm)
        middle_saved = middle_saved or step == middle
    resumed = None
    if earlier is not None:
        before = run.model_copy(update={"name": _file_name(earlier.name)})
        resumed = [
            loss for _, loss, _ in _train(before, settings, middle, steps, place, _loading(before, folder, place))
        ]
    return {
        "losses": losses,
        "norms": norms[:-1],
        "resumed": resumed,
        "last_case": None if earlier is None else earlier.name,
    }


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _saving(run: RunRecord, folder: Path, place: Any, middle: int) -> Callable[[int, Any, Any], None]:
    from model.checkpoint import Checkpoints

    checkpoints = Checkpoints(Store(str(folder)), run, place)

    def save(step: int, chunks: Any, optimizer: Any) -> None:
        if step == 0:
            checkpoints.clean()
        if step == middle:
            checkpoints.save(chunks, optimizer, step=step, consumed_samples=0, seconds=0)

    return save


def _loading(run: RunRecord, folder: Path, place: Any) -> Callable[[int, Any, Any], None]:
    from model.checkpoint import Checkpoints

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

    from model.build import build_model
    from model.distribution import distribute
    from model.forward import run_micro_batches
    from model.optimizer import build_optimizer, build_schedule

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
        loss, counted = run_micro_batches(chunks, batches, place, backward=True)
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
        loss, counted = run_micro_batches(chunks, batches, place, backward=False)
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


def table(cases: Sequence[Case], outcomes: Sequence[Outcome], dtype: str) -> str:
    lines = [
        f"| processes | layout | loss ({dtype}, at most {TOLERANCE[dtype]:.0e}) | gradient norm | resumed |",
        "|---|---|---|---|---|",
    ]
    for outcome, loss, norm, resumed in differences(cases, outcomes):
        lines.append(f"| {outcome.processes} | {outcome.name} | {loss:.1e} | {norm:.1e} | {resumed:.1e} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
