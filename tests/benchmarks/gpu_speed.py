"""Training speed on the GPUs of this machine: `python -m tests.benchmarks.gpu_speed [NAME ...] [--text RUN_DIR]`.

Every row of ROWS that this machine has GPUs for is measured in ranks of its own, through the code that training runs:
forward and backward passes, clipping, optimizer. Tokens are random and lie on the device; with `--text` the loader of a
run's folder delivers real ones afterwards, and a second row tells what it costs. A step's time is the median after
warm-up, on the slowest rank. FLOP are those of model.estimates.flops; MFU is against the device's dense bf16 peak.
"""

import argparse
import logging
import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from infra.launching.launch import JobSpec, LocalLauncher
from model.config import Duration, TrainingSettings
from model.estimates.devices import peak_flops
from model.estimates.flops import flops_per_token
from model.gpu import speed_up
from model.megatron import on_cpu

HEADER = "| job | layout | micro-batches | tokens/s/GPU | TFLOP/s/GPU | MFU | GiB | step, s | loss |"


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    size: str
    vocabulary: int
    micro: int
    accumulate: int
    """Micro-batches in a step, for each replica."""
    layout: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)


_TP = {"processes": 2, "tensor": 2, "sequence_parallel": True, "tensor_overlap": True}
ROWS: dict[str, Row] = {
    "60m": Row("60m", 32_768, 32, 4),
    "150m": Row("150m", 32_768, 32, 4),
    "350m": Row("350m", 32_768, 16, 8),
    "1b": Row("1b", 32_768, 8, 32),
    "1b-qk-norm": Row("1b", 32_768, 8, 16, model={"qk_norm": True}),
    "8b-tp2": Row("8b", 128_256, 4, 16, _TP),
    "8b-tp2-plain": Row("8b", 128_256, 2, 16, {**_TP, "tensor_overlap": False}),
    "8b-pp2": Row("8b", 128_256, 1, 32, {"processes": 2, "pipeline": 2, "last_stage_layers": 15}),
    "3.6b-dp2": Row("3.6b", 128_256, 4, 8, {"processes": 2, "overlap": True}),
    "8b-tp2-pp2": Row("8b", 128_256, 4, 32, {**_TP, "processes": 4, "pipeline": 2, "last_stage_layers": 15}),
    "8b-cp2-dp2": Row("8b", 128_256, 2, 16, {"processes": 4, "context": 2, "overlap": True}),
}


def main() -> None:
    """Start ranks for each row, or be one."""
    arguments = _arguments()
    if "RANK" in os.environ:
        _measure_as_rank(arguments)
        return
    import torch

    logging.basicConfig(format="%(message)s", level=logging.INFO)
    devices = max(torch.cuda.device_count(), 1)
    print(HEADER, "|---|---|---|" + "---:|" * 6, sep="\n", flush=True)
    for name in arguments.names or ROWS:
        processes = ROWS[name].layout.get("processes", 1)
        if processes <= devices or arguments.tiny:
            own = [argument for argument in sys.argv[1:] if argument not in ROWS]
            spec = JobSpec(module="tests.benchmarks.gpu_speed", arguments=(name, *own), processes=processes)
            LocalLauncher().run(spec, on_line=_show)


def _show(line: str) -> None:
    if "| " in line:
        print(line[line.index("| ") :], flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *ROWS], metavar="NAME", help=", ".join(ROWS))
    parser.add_argument("--steps", type=int, default=4, help="steps, of which the later half counts")
    parser.add_argument("--text", type=Path, help="folder of a run whose data the loader is measured with")
    parser.add_argument("--profile", type=Path, help="folder for a table of the device's time in one step of each row")
    parser.add_argument("--no-compile", action="store_true", help="measure layers as they are")
    parser.add_argument("--tiny", action="store_true", help="a model so small that a CPU can try the benchmark itself")
    return parser.parse_args()


def _measure_as_rank(arguments: argparse.Namespace) -> None:
    on_cpu.install()
    speed_up.install()
    from model.parallel import parallel

    row = ROWS[arguments.names[0]]
    training = _settings(row, compiled=not arguments.no_compile, tiny=arguments.tiny)
    with parallel(training.parallel, training.seed) as place:
        _Measurement(arguments, row, training, place).run()


def _settings(row: Row, *, compiled: bool, tiny: bool) -> TrainingSettings:
    shape: dict[str, Any] = {"size": row.size, "sequence_length": 4096, **row.model}
    if tiny:
        shape |= {"num_layers": 4, "hidden_size": 64, "ffn_hidden_size": 128, "sequence_length": 32}
    layout = dict(row.layout)
    if tiny and "last_stage_layers" in layout:
        layout["last_stage_layers"] = 1
    replicas = layout.get("processes", 1) // (
        layout.get("tensor", 1) * layout.get("pipeline", 1) * layout.get("context", 1)
    )
    return TrainingSettings.model_validate(
        {
            "model": shape,
            "parallel": layout,
            "micro_batch_size": row.micro,
            "global_batch_size": row.micro * row.accumulate * replicas,
            "duration": Duration(steps=1000),
            "compiled": compiled,
        }
    )


class _Measurement:
    """One rank's part in measuring a row."""

    def __init__(self, arguments: argparse.Namespace, row: Row, training: TrainingSettings, place: Any) -> None:
        from model.architectures.build import build_model
        from model.timing import Clock
        from model.updates.distribution import distribute
        from model.updates.optimizer import build_optimizer

        self._arguments, self._row, self._training, self._place = arguments, row, training, place
        vocabulary = 512 if arguments.tiny else row.vocabulary
        self._vocabulary = vocabulary
        self._chunks = distribute(
            build_model(training, training.parallel, place, vocabulary, draw=False), training.parallel
        )
        self._optimizer = build_optimizer(self._chunks, training)
        self._clock = Clock(place.device)

    def run(self) -> None:
        from torch.profiler import ProfilerActivity, profile

        batches = self._random_batches()
        self._report("", *self._times(lambda step: batches))
        if self._arguments.profile:
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
                self._step(batches)
            if self._place.is_reporter:
                table = profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=60)
                (self._arguments.profile / f"{self._arguments.names[0]}.txt").write_text(table)
        if self._arguments.text:
            self._with_text()

    def _random_batches(self) -> list[Any]:
        import torch

        from model.data.batches import Rows, to_batches

        count, length = self._row.micro * self._row.accumulate, self._training.model.sequence_length
        random = np.random.RandomState(self._place.data_rank)
        text = torch.from_numpy(random.randint(0, self._vocabulary, (count, length + 1), np.int32))
        rows = Rows(torch.stack([text[:, :-1], text[:, 1:]]), range(count))
        return to_batches(rows, self._row.micro, self._place.device)

    def _with_text(self) -> None:
        from model.data.loader import training_loader
        from model.data.sources import open_order
        from model.run import open_run_folder, training_datasets

        store, run, dataset = open_run_folder(self._arguments.text)
        length, size = self._training.model.sequence_length, self._training.global_batch_size
        order = open_order(store, training_datasets(store, run), self._training.data, length, seed=1)
        with training_loader(order, self._training, self._place, dataset.tokenizer) as loader:
            self._report(", text", *self._times(lambda step: loader.take(step * size, size)))

    def _times(self, batches: Any) -> tuple[float, float]:
        """Seconds of a step on the slowest rank, and the last step's loss."""
        times, loss = [], 0.0
        for step in range(self._arguments.steps):
            self._place.wait_for_all()
            started = time.monotonic()
            loss = self._step(batches(step))
            times.append(time.monotonic() - started)
        own = statistics.median(times[len(times) // 2 :])
        return max(self._place.gather_everywhere(own)), loss

    def _step(self, batches: Any) -> float:
        import torch

        from model.updates.gradients import compute_gradients
        from model.updates.optimizer import clip_gradients

        found = compute_gradients(self._chunks, self._optimizer, batches, self._place, self._clock)
        clip_gradients(self._optimizer, found.norm)
        self._optimizer.step_with_ready_grads()
        if self._place.device.type == "cuda":
            torch.cuda.synchronize()
        return found.loss

    def _report(self, what: str, seconds: float, loss: float) -> None:
        from model.timing import device_name, used_memory

        training, place = self._training, self._place
        memory = max(place.gather_everywhere(used_memory(place.device)))
        if not place.is_reporter:
            return
        tokens = training.tokens_per_step / place.processes / seconds
        flops = tokens * flops_per_token(training.model, self._vocabulary)
        peak = peak_flops(device_name(place.device), training.dtype, training.peak_tflops)
        mfu = "" if peak is None else f"{flops / peak:.1%}"
        layout = " ".join(f"{name} {size}" for name, size in place.layout.model_dump().items() if (size or 1) > 1)
        print(
            f"| {self._arguments.names[0]}{what} | {layout} | {self._row.accumulate} of {self._row.micro} "
            f"| {tokens:,.0f} | {flops / 1e12:.0f} | {mfu} | {memory:.0f} | {seconds:.3f} | {loss:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
