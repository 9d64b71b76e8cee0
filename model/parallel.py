"""Process groups, devices and collectives: the only module that knows Megatron-Core's parallel state.

Every rank starts through `parallel(...)`, which hands out a `Place`: where this rank stands in the layout, and the few
collectives that the rest of the package needs. It is made of `joined` (the job) and `arranged` (one layout of it); a
job may arrange itself several times, one layout after the other.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel
from torch.nn.attention import SDPBackend, sdpa_kernel

from infra.errors import BadInput
from model.run import Layout
from model.settings.layout import ParallelSettings


@dataclass(frozen=True)
class Place:
    """A rank's position in the layout, its device, and collectives over the layout's groups."""

    device: torch.device
    rank: int
    processes: int
    layout: Layout
    tensor_rank: int
    pipeline_rank: int
    context_rank: int
    data_rank: int
    is_first_stage: bool
    """Whether one of this rank's chunks embeds tokens."""
    is_last_stage: bool
    """Whether one of this rank's chunks computes the loss."""

    @property
    def is_reporter(self) -> bool:
        """True on the one rank that writes metrics: among those that compute the loss, the first."""
        return self.holds_loss and self.context_rank == 0 and self.data_rank == 0

    @property
    def holds_loss(self) -> bool:
        """True on the ranks whose losses together are those of all predicted tokens, each counted once."""
        return self.is_last_stage and self.tensor_rank == 0

    @property
    def chunks(self) -> int:
        """Pieces of the model on each rank: one, but for interleaved pipelines."""
        return self.layout.virtual_pipeline or 1

    def virtual_stage(self, chunk: int) -> int | None:
        """What Megatron-Core calls this rank's chunk: its number, or None where there is one alone."""
        return None if self.layout.virtual_pipeline is None else chunk

    def embeds(self, chunk: int) -> bool:
        """Whether this rank's chunk is the model's first piece."""
        return self.is_first_stage and chunk == 0

    def computes_loss(self, chunk: int) -> bool:
        """Whether this rank's chunk is the model's last piece."""
        return self.is_last_stage and chunk == self.chunks - 1

    def data_group(self) -> Any:
        """The ranks that hold the same weights, experts apart."""
        return parallel_state.get_data_parallel_group(with_context_parallel=True)

    def sum_over_all(self, values: list[float]) -> list[float]:
        """Sum each value over all ranks, in float64; every rank gets the same result."""
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def add_over_all(self, total: torch.Tensor) -> None:
        """Sum a tensor on the device over all ranks, in place and without waiting for the device."""
        dist.all_reduce(total)

    def sum_counts(self, counts: torch.Tensor) -> torch.Tensor:
        """Sum a tensor of int64 counts over all ranks."""
        total = counts.to(self.device)
        dist.all_reduce(total)
        return total.cpu()

    def gather(self, value: Any) -> list[Any] | None:
        """Every rank's value, in order, on rank 0; None on the others."""
        values: list[Any] | None = [None] * self.processes if self.rank == 0 else None
        dist.gather_object(value, values)
        return values

    def scatter(self, values: list[Any] | None) -> Any:
        """The value that rank 0 has for this rank."""
        own: list[Any] = [None]
        dist.scatter_object_list(own, values)
        return own[0]

    def gather_everywhere(self, value: Any) -> list[Any]:
        """Every rank's value, in order, on every rank."""
        values: list[Any] = [None] * self.processes
        dist.all_gather_object(values, value)
        return values

    def share(self, value: Any) -> Any:
        """Rank 0's value."""
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def wait_for_all(self) -> None:
        """Return when every rank has come here."""
        dist.barrier(device_ids=[self.device.index] if self.device.type == "cuda" else None)


def tensor_group() -> Any:
    """The ranks that share each layer."""
    return parallel_state.get_tensor_model_parallel_group()


def context_group() -> Any:
    """The ranks that share the positions of each sequence."""
    return parallel_state.get_context_parallel_group()


def tensor_rank_dropout(dropout: float, config: Any) -> Any:
    """Around a dropout over heads, of which each tensor-parallel rank has others: random numbers of the rank's own."""
    if dropout == 0 or config.sequence_parallel:
        return nullcontext()
    tracker: Any = tensor_parallel.get_cuda_rng_tracker()
    return tracker.fork()


@contextmanager
def parallel(settings: ParallelSettings, seed: int) -> Iterator[Place]:
    """Join the other ranks (as torchrun describes them), and leave them in order at the end.

    Raises BadInput if the job has another number of processes than the layout.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes != settings.processes:
        raise BadInput(
            f"{processes} processes started for parallel.processes = {settings.processes}",
            "a job has as many processes as its layout",
            f"Start it with --nproc-per-node {settings.processes}",
        )
    with fastest_attention(), joined() as device, arranged(settings, seed, device) as place:
        yield place


def fastest_attention() -> Any:
    """Prefer cuDNN's attention: on Hopper it is about a fifth faster than the FlashAttention that PyTorch brings."""
    kernels = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return sdpa_kernel(kernels, set_priority=True)


def attention_of_any_shape() -> Any:
    """Prefer FlashAttention, which needs no plan for each shape; cuDNN takes a third of a second to make one."""
    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH]
    return sdpa_kernel(kernels, set_priority=True)


@contextmanager
def joined() -> Iterator[torch.device]:
    """Join the other ranks, over NCCL on GPUs and over gloo elsewhere; gives this rank's device."""
    device = _device()
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(minutes=30))
    yield device
    # Only after success: where a rank failed, tearing groups down can wait forever for the others.
    dist.destroy_process_group()


@contextmanager
def arranged(settings: ParallelSettings, seed: int, device: torch.device) -> Iterator[Place]:
    """Form the groups of a layout among the ranks that have joined, and seed the generators of random numbers."""
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=settings.tensor,
        pipeline_model_parallel_size=settings.pipeline,
        virtual_pipeline_model_parallel_size=settings.virtual_pipeline,
        context_parallel_size=settings.context,
        expert_model_parallel_size=settings.expert,
        expert_tensor_parallel_size=settings.expert_tensor,
    )
    place = _place(device, settings)
    seed_dropout(place, seed, step=0)
    yield place
    parallel_state.destroy_model_parallel()


def _device() -> torch.device:
    if not torch.cuda.is_available():
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def seed_dropout(place: Place, seed: int, step: int) -> None:
    """Seed what dropout draws from in one step, so that no generator has a state that a checkpoint would have to keep.

    Ranks that share a layer draw alike where they hold the same numbers (Megatron-Core's tracker tells them apart where
    they do not); those that hold other layers, positions or sequences draw differently.
    """
    apart = (place.data_rank * place.layout.context + place.context_rank) * place.layout.pipeline + place.pipeline_rank
    own = int(np.random.SeedSequence([seed, step, apart]).generate_state(1, np.uint64)[0] >> np.uint64(2))
    random.seed(own)
    np.random.seed(own % 2**32)
    torch.manual_seed(own)
    tensor_parallel.model_parallel_cuda_manual_seed(own)


def _place(device: torch.device, settings: ParallelSettings) -> Place:
    return Place(
        device=device,
        rank=dist.get_rank(),
        processes=dist.get_world_size(),
        layout=Layout(
            tensor=settings.tensor,
            pipeline=settings.pipeline,
            virtual_pipeline=settings.virtual_pipeline,
            context=settings.context,
            expert=settings.expert,
            data=settings.data,
        ),
        tensor_rank=parallel_state.get_tensor_model_parallel_rank(),
        pipeline_rank=parallel_state.get_pipeline_model_parallel_rank(),
        context_rank=parallel_state.get_context_parallel_rank(),
        data_rank=parallel_state.get_data_parallel_rank(),
        is_first_stage=parallel_state.is_pipeline_first_stage(),
        is_last_stage=parallel_state.is_pipeline_last_stage(),
    )
