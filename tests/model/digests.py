"""Digests of checkpoints that do not depend on the layout which wrote them."""

import hashlib
from pathlib import Path

import torch
from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict


def tensors_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every whole tensor of a checkpoint by its name: weights, master weights and the optimizer's moments."""
    state: dict = {}
    _load_state_dict(
        state, storage_reader=FileSystemReader(checkpoint), planner=_EmptyStateDictLoadPlanner(), no_dist=True
    )
    return {key: value for key, value in sorted(state.items()) if torch.is_tensor(value)}


def digest_of(checkpoint: Path) -> str:
    """SHA-256 over all tensors of a checkpoint."""
    whole = hashlib.sha256()
    for key, tensor in tensors_of(checkpoint).items():
        whole.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else str(tensor).encode())
    return whole.hexdigest()
