"""Training speed on GPUs: `torchrun --nproc-per-node N -m tests.benchmarks.gpu_speed JOB [--micro M] ...`.

Random tokens, real code from the batch to the optimizer step; the median of some steps after warm-up, on the slowest
rank. FLOP for each token: 6 (weights without the input embedding) + 6 layers x sequence x attention width (causal
attention: half of the full square); MFU against the device's dense bf16 peak. Prints one row of a Markdown table.
"""

import argparse
import os
import statistics
import time
from typing import Any

import numpy as np

from model import megatron_cpu, megatron_gpu
from model.architecture import ModelSettings
from model.config import Duration, TrainingSettings
from model.layout import ParallelSettings

PEAK = 989e12

JOBS: dict[str, tuple[dict[str, Any], int]] = {
    "150m": (
        dict(num_layers=12, hidden_size=768, num_attention_heads=12, num_query_groups=4, ffn_hidden_size=2048),
        32768,
    ),
    "1b": (
        dict(num_layers=16, hidden_size=2048, num_attention_heads=32, num_query_groups=8, ffn_hidden_size=8192),
        32768,
    ),
    "3.6b": (
        dict(num_layers=28, hidden_size=3072, num_attention_heads=24, num_query_groups=8, ffn_hidden_size=8192),
        32768,
    ),
    "8b": (
        dict(num_layers=32, hidden_size=4096, num_attention_heads=32, num_query_groups=8, ffn_hidden_size=14336),
        128256,
    ),
}


def main() -> None:
    arguments = _arguments()
    megatron_cpu.install()
    megatron_gpu.install()
    import torch

    from model.parallel import parallel

    training, vocabulary = settings(arguments)
    with parallel(training.parallel, 1) as place:
        seconds, loss = run(arguments, training, vocabulary, place)
        tokens = training.tokens_per_step / training.parallel.processes / seconds
        flops = tokens * flops_per_token(training.model, vocabulary)
        peak = torch.cuda.max_memory_allocated() / 2**30 if place.device.type == "cuda" else 0
        largest = place.sum_over_all([peak if rank == place.rank else 0.0 for rank in range(place.processes)])
        if place.is_reporter:
            layout = f"TP {arguments.tensor} PP {arguments.pipeline} DP {training.parallel.data}"
            print(
                f"| {arguments.job} | {layout} | {arguments.micro} of {training.global_batch_size} | {arguments.label} "
                f"| {tokens:,.0f} | {flops / 1e12:.0f} | {flops / PEAK:.1%} | {max(largest):.0f} | {loss:.4f} |",
                flush=True,
            )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--label", default="")
    parser.add_argument("--micro", type=int, default=1)
    parser.add_argument("--accumulate", type=int, default=4)
    parser.add_argument("--tensor", type=int, default=1)
    parser.add_argument("--pipeline", type=int, default=1)
    parser.add_argument("--sequence", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--last-layers", type=int)
    parser.add_argument("--tensor-overlap", action="store_true")
    parser.add_argument("--qk-norm", action="store_true")
    parser.add_argument("--profile", default="")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--dtype", default="bfloat16")
    return parser.parse_args()


def settings(arguments: argparse.Namespace) -> tuple[TrainingSettings, int]:
    shape, vocabulary = JOBS[arguments.job]
    if arguments.layers:
        shape = {**shape, "num_layers": arguments.layers}
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    layout = ParallelSettings(
        processes=processes,
        tensor=arguments.tensor,
        pipeline=arguments.pipeline,
        tensor_overlap=arguments.tensor_overlap,
        last_stage_layers=arguments.last_layers,
        sequence_parallel=arguments.tensor > 1,
        overlap=processes > arguments.tensor * arguments.pipeline,
    )
    training = TrainingSettings(
        model=ModelSettings(
            sequence_length=arguments.sequence, tied_embeddings=False, qk_norm=arguments.qk_norm, **shape
        ),
        parallel=layout,
        micro_batch_size=arguments.micro,
        global_batch_size=arguments.micro * arguments.accumulate * layout.data,
        duration=Duration(steps=1000),
        compiled=not arguments.no_compile,
        dtype=arguments.dtype,
    )
    return training, vocabulary


def flops_per_token(model: ModelSettings, vocabulary: int) -> float:
    width = model.hidden_size // model.num_attention_heads
    attention = model.hidden_size * width * (2 * model.num_attention_heads + 2 * model.num_query_groups)
    layer = attention + 3 * model.hidden_size * model.ffn_hidden_size
    weights = model.num_layers * layer + vocabulary * model.hidden_size
    return 6 * weights + 6 * model.num_layers * model.sequence_length * model.hidden_size


def run(arguments: argparse.Namespace, training: TrainingSettings, vocabulary: int, place: Any) -> tuple[float, float]:
    """Seconds for a step on the slowest rank, and the last step's loss."""
    import torch

    from model.build import build_model
    from model.data.batches import Rows, to_batches
    from model.distribution import distribute
    from model.forward import run_micro_batches
    from model.optimizer import build_optimizer

    chunks = distribute(build_model(training, training.parallel, place, vocabulary, draw=False), training.parallel)
    if not os.environ.get("PLAIN_LOSS"):
        from model.config import LossSettings
        from model.loss import use_loss

        for chunk in chunks:
            inner = chunk
            while hasattr(inner, "module"):
                inner = inner.module
            use_loss(inner, LossSettings())
    optimizer = build_optimizer(chunks, training)
    random = np.random.RandomState(place.data_rank)
    length = training.model.sequence_length
    count = arguments.micro * arguments.accumulate
    text = torch.from_numpy(random.randint(0, vocabulary, (count, length + 1), np.int32))
    rows = Rows(torch.stack([text[:, :-1], text[:, 1:]]), range(count))
    batches = to_batches(rows, arguments.micro, place.device)

    def step() -> float:
        for chunk in chunks:
            chunk.zero_grad_buffer()
        optimizer.zero_grad()
        loss, tokens = run_micro_batches(chunks, batches, place, backward=True)
        optimizer.step()
        return loss / max(tokens, 1)

    times = []
    loss = 0.0
    for index in range(arguments.steps):
        place.wait_for_all()
        if arguments.profile and index == arguments.steps - 1:
            break
        started = time.monotonic()
        loss = step()
        _finish(place)
        times.append(time.monotonic() - started)
    if arguments.profile:
        _profile(arguments.profile, place, step)
    if os.environ.get("SHOW_TIMES"):
        print(place.rank, [round(each, 3) for each in times], flush=True)
    own = statistics.median(times[len(times) // 2 :])
    return max(place.sum_over_all([own if rank == place.rank else 0.0 for rank in range(place.processes)])), loss


def _finish(place: Any) -> None:
    import torch

    if place.device.type == "cuda":
        torch.cuda.synchronize()


def _profile(path: str, place: Any, step: Any) -> None:
    """Print where the device's time goes in one step."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        step()
        _finish(place)
    if place.is_reporter:
        table = profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=45, max_name_column_width=110)
        with open(path, "w") as file:
            file.write(table)


if __name__ == "__main__":
    main()
