"""Process groups, devices and collectives: the only module that knows Megatron-Core's parallel state.

Every rank starts through `parallel(...)`, which hands out a `Place`: where this rank stands in the layout, and the few
collectives that the rest of the package needs.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel

from infra.errors import BadInput
from model.layout import ParallelSettings
from model.run import Layout


@dataclass(frozen=True)
class Place:
    """A rank's position in the layout, its device, and collectives over the layout's groups."""

    device: torch.device
    rank: int
    processes: int
    layout: Layout
    tensor_rank: int
    data_rank: int
    is_first_stage: bool
    """Whether this rank embeds tokens."""
    is_last_stage: bool
    """Whether this rank computes the loss."""

    @property
    def is_reporter(self) -> bool:
        """True on the one rank that writes metrics: among those that compute the loss, the first."""
        return self.is_last_stage and self.tensor_rank == 0 and self.data_rank == 0

    @property
    def holds_loss(self) -> bool:
        """True on one rank of each data-parallel replica."""
        return self.is_last_stage and self.tensor_rank == 0

    def data_group(self) -> Any:
        """The ranks that hold the same weights."""
        return parallel_state.get_data_parallel_group(with_context_parallel=True)

    def sum_over_all(self, values: list[float]) -> list[float]:
        """Sum each value over all ranks, in float64; every rank gets the same result."""
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def sum_counts(self, counts: torch.Tensor) -> torch.Tensor:
        """Sum a tensor of int64 counts over all ranks."""
        total = counts.to(self.device)
        dist.all_reduce(total)
        return total.cpu()

    def wait_for_all(self) -> None:
        """Return when every rank has come here."""
        dist.barrier(device_ids=[self.device.index] if self.device.type == "cuda" else None)


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
    device = _device()
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(minutes=30))
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=settings.tensor, pipeline_model_parallel_size=settings.pipeline
    )
    _seed(seed)
    yield _place(device, settings)
    # Only after success: where a rank failed, tearing groups down can wait forever for the others.
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()


def _device() -> torch.device:
    if not torch.cuda.is_available():
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    tensor_parallel.model_parallel_cuda_manual_seed(seed)


def _place(device: torch.device, settings: ParallelSettings) -> Place:
    return Place(
        device=device,
        rank=dist.get_rank(),
        processes=dist.get_world_size(),
        layout=Layout(tensor=settings.tensor, pipeline=settings.pipeline, data=settings.data),
        tensor_rank=parallel_state.get_tensor_model_parallel_rank(),
        data_rank=parallel_state.get_data_parallel_rank(),
        is_first_stage=parallel_state.is_pipeline_first_stage(),
        is_last_stage=parallel_state.is_pipeline_last_stage(),
    )
