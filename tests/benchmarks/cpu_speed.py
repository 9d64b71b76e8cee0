"""Tokens per second of the demo's training beside an equal model in plain PyTorch, on the same cores.

    python -m tests.benchmarks.cpu_speed [--rounds 3] [--steps 24]

Both train the demo preset's model in float32 on random tokens: embedding, grouped-query attention by
`scaled_dot_product_attention` with normalised queries and keys and rotary positions, RMSNorm, SwiGLU, tied output
layer, cross entropy, clipping by the whole gradient's norm, AdamW. Plain PyTorch is one process with all cores or
DistributedDataParallel with a core for each; ours is each layout of as many processes as there are cores. A variant's
time is that of its fastest step of all rounds, in which variants take turns, because other work on the machine only
ever adds to it; CPU time is of all processes together, in which waiting for one another does not show.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.presets import preset
from infra.launching.launch import JobSpec, LocalLauncher
from model.config import TrainingSettings
from model.settings.layout import ParallelSettings

CORES = len(os.sched_getaffinity(0))
VOCABULARY = 2048
Step = Callable[[], None]


def main() -> None:
    """Measure every variant and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24)
    options = parser.parse_args()
    best: dict[str, tuple[float, float]] = {}
    for _ in range(options.rounds):
        for name, arguments, processes in variants():
            wall, cpu = measured(arguments, processes, options.steps)
            before = best.get(name, (wall, cpu))
            best[name] = min(before[0], wall), min(before[1], cpu)
    training = demo()
    tokens = training.tokens_per_step
    plain_wall = min(wall for name, (wall, _) in best.items() if name.startswith("plain"))
    plain_cpu = min(cpu for name, (_, cpu) in best.items() if name.startswith("plain"))
    print(f"{CORES} cores, {training.global_batch_size} x {training.model.sequence_length} tokens a step")
    print("| variant | tokens/s | of the best plain | tokens/CPU s | of the best plain |")
    print("|---|---|---|---|---|")
    for name, (wall, cpu) in best.items():
        row = f"{tokens / wall:,.0f} | {plain_wall / wall:.2f} | {tokens / cpu:,.0f} | {plain_cpu / cpu:.2f}"
        print(f"| {name} | {row} |")


def demo() -> TrainingSettings:
    """The demo preset's training."""
    return preset("demo").training


def variants() -> list[tuple[str, tuple[str, ...], int]]:
    """(name, arguments of the worker, processes)."""
    share = demo().global_batch_size // CORES
    return [
        ("plain, 1 process", ("plain", str(share * CORES)), 1),
        (f"plain, DDP {CORES}", ("plain", str(share)), CORES),
        (f"ours, data {CORES}", ("ours", str(share), "1"), CORES),
        (f"ours, data {CORES}, overlap", ("ours", str(share), "1", "overlap"), CORES),
        *(
            (f"ours, pipeline {CORES}, micro-batch {micro}", ("ours", str(micro), str(CORES)), CORES)
            for micro in (2, 4)
        ),
    ]


def measured(arguments: tuple[str, ...], processes: int, steps: int) -> tuple[float, float]:
    """Seconds of the fastest step, wall and CPU of all processes."""
    with tempfile.TemporaryDirectory() as folder:
        spec = JobSpec(
            module="tests.benchmarks.cpu_speed",
            arguments=(folder, str(steps), *arguments),
            processes=processes,
        )
        LocalLauncher().run(spec, lambda line: None)
        times = [json.loads(path.read_text()) for path in Path(folder).iterdir()]
    wall = min(max(each) for each in zip(*(rank["wall"] for rank in times), strict=True))
    cpu = min(sum(each) for each in zip(*(rank["cpu"] for rank in times), strict=True))
    return wall, cpu


def worker(folder: str, steps: str, kind: str, micro: str, pipeline: str = "1", overlap: str = "") -> None:
    """A rank: make steps and write their times."""
    import torch
    import torch.distributed as dist

    processes, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    torch.set_num_threads(max(1, CORES // processes))
    torch.manual_seed(1)
    wall, cpu = [], []

    def measure(step: Step) -> None:
        for number in range(int(steps)):
            if processes > 1:
                dist.barrier()
            started = time.perf_counter(), time.process_time()
            step()
            if number >= 4:
                wall.append(time.perf_counter() - started[0])
                cpu.append(time.process_time() - started[1])

    if kind == "plain":
        _plain(demo(), int(micro), processes, measure)
    else:
        _ours(demo(), int(micro), int(pipeline), bool(overlap), processes, measure)
    (Path(folder) / f"{rank}.json").write_text(json.dumps({"wall": wall, "cpu": cpu}))


def _ours(
    training: TrainingSettings,
    micro: int,
    pipeline: int,
    overlap: bool,
    processes: int,
    measure: Callable[[Step], None],
) -> None:
    import torch

    from model.architectures.build import build_model
    from model.data.batches import Batch
    from model.parallel import parallel
    from model.timing import Clock
    from model.updates.distribution import distribute
    from model.updates.gradients import compute_gradients
    from model.updates.optimizer import build_optimizer, build_schedule, clip_gradients

    layout = ParallelSettings(processes=processes, pipeline=pipeline, overlap=overlap)
    training = training.model_copy(update={"parallel": layout, "micro_batch_size": micro})
    length, count = training.model.sequence_length, training.global_batch_size // layout.data // micro
    with parallel(layout, 1) as place:
        torch.set_num_threads(max(1, CORES // processes))
        chunks = distribute(build_model(training, layout, place, VOCABULARY), layout)
        optimizer = build_optimizer(chunks, training)
        schedule = build_schedule(optimizer, training.optimizer, 1000, 0)
        clock = Clock(place.device)
        clock.attach(chunks, optimizer)
        text = torch.randint(0, VOCABULARY, (micro, length + 1))
        positions, mask = torch.arange(length).expand(micro, -1), torch.ones(micro, length)
        batch = Batch(text[:, :-1].contiguous(), text[:, 1:].contiguous(), positions, mask)

        def step() -> None:
            found = compute_gradients(chunks, optimizer, [batch] * count, place, clock)
            schedule.step(1)
            clip_gradients(optimizer, found.norm)
            optimizer.step_with_ready_grads()

        measure(step)


def _plain(training: TrainingSettings, micro: int, processes: int, measure: Callable[[Step], None]) -> None:
    import torch
    import torch.distributed as dist
    from torch.nn.functional import cross_entropy
    from torch.nn.parallel import DistributedDataParallel

    model: Any = plain_model(training)
    module = model
    if processes > 1:
        dist.init_process_group("gloo")
        model = DistributedDataParallel(model)
    matrices = [weight for weight in module.parameters() if weight.ndim > 1]
    vectors = [weight for weight in module.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95))
    length, count = training.model.sequence_length, training.global_batch_size // processes // micro
    text = torch.randint(0, VOCABULARY, (micro, length + 1))

    def step() -> None:
        optimizer.zero_grad()
        for number in range(count):
            if processes > 1:
                model.require_backward_grad_sync = number == count - 1
            loss = cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
            (loss / count).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()

    measure(step)
    if processes > 1:
        dist.destroy_process_group()


def plain_model(training: TrainingSettings) -> Any:
    """The demo's model in plain PyTorch."""
    import torch
    from torch import nn
    from torch.nn.functional import scaled_dot_product_attention, silu

    shape = training.model
    heads, groups, width = shape.num_attention_heads, shape.num_query_groups, shape.kv_channels

    def turned(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, -1)
        return x * cosine + torch.cat((-right, left), -1) * sine

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.RMSNorm(shape.hidden_size, eps=1e-5), nn.RMSNorm(shape.hidden_size, eps=1e-5)
            self.query_norm, self.key_norm = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
            self.made = nn.Linear(shape.hidden_size, (heads + 2 * groups) * width, bias=False)
            self.back = nn.Linear(heads * width, shape.hidden_size, bias=False)
            self.up = nn.Linear(shape.hidden_size, 2 * shape.ffn_hidden_size, bias=False)
            self.down = nn.Linear(shape.ffn_hidden_size, shape.hidden_size, bias=False)

        def forward(self, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
            batch, length, _ = x.shape
            made = self.made(self.norm1(x)).view(batch, length, -1, width).transpose(1, 2)
            query, key, value = made.split((heads, groups, groups), 1)
            query = turned(self.query_norm(query), cosine, sine)
            key = turned(self.key_norm(key), cosine, sine)
            attended = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            x = x + self.back(attended.transpose(1, 2).reshape(batch, length, -1))
            gate, up = self.up(self.norm2(x)).chunk(2, -1)
            return x + self.down(silu(gate) * up)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(VOCABULARY, shape.hidden_size)
            nn.init.normal_(self.embedding.weight, std=shape.init_std)
            self.layers = nn.ModuleList(Layer() for _ in range(shape.num_layers))
            self.norm = nn.RMSNorm(shape.hidden_size, eps=1e-5)
            periods = shape.rope_base ** (torch.arange(0, width, 2) / width)
            angles = (torch.arange(shape.sequence_length)[:, None] / periods).repeat(1, 2)
            self.register_buffer("cosine", angles.cos())
            self.register_buffer("sine", angles.sin())

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.embedding(tokens)
            for layer in self.layers:
                x = layer(x, self.cosine, self.sine)
            return self.norm(x) @ self.embedding.weight.T

    return Model()


if __name__ == "__main__":
    import sys

    if "RANK" in os.environ:
        from model.rank import rank_process

        with rank_process():
            worker(*sys.argv[1:])
    else:
        main()
