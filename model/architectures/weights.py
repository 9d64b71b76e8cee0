"""Initial weights that every layout shares, and their number."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from megatron.core.dist_checkpointing.mapping import ShardedTensor, is_main_replica

from model.parallel import Place
from model.settings.architecture import ModelSettings


def initialise(model: Any, place: Place, settings: ModelSettings, seed: int) -> None:
    """Draw every matrix from a generator seeded by its name in a checkpoint, and keep this rank's part of it.

    Names and global shapes in a checkpoint are the same in all layouts, so the weights are too. Norms stay at one and
    biases at zero, as their modules make them.
    """
    for part in sharded_tensors(model.sharded_state_dict(metadata={"dp_cp_group": place.data_group()})):
        stacked = part.prepend_axis_num  # leading axes of the global shape that count layers
        if part.data is None or part.data.ndim < 2:
            continue
        name = f"{seed}/{part.key}/{tuple(part.global_offset[:stacked])}"
        drawing = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
        whole = torch.randn(part.global_shape[stacked:], generator=torch.Generator().manual_seed(drawing))
        whole *= _standard_deviation(part.key, settings)
        starts = part.global_offset[stacked:]
        own = tuple(slice(start, start + size) for start, size in zip(starts, part.data.shape, strict=True))
        with torch.no_grad():
            part.data.copy_(whole[own])


def _standard_deviation(key: str, settings: ModelSettings) -> float:
    if key.endswith(("linear_proj.weight", "linear_fc2.weight")):
        return settings.init_std / (2 * settings.num_layers) ** 0.5  # as in GPT-2
    if key.startswith("recurrent."):
        return (3 * settings.hidden_size) ** -0.5  # that of torch's uniform weights
    return settings.init_std


def sharded_tensors(state: Any) -> Iterator[Any]:
    """Every sharded tensor in a checkpoint's state, those of factories (gate and up weights in one) included."""
    if isinstance(state, dict):
        state = list(state.values())
    if isinstance(state, list):
        for each in state:
            yield from sharded_tensors(each)
    elif hasattr(state, "build"):
        yield from sharded_tensors(state.build())
    elif isinstance(state, ShardedTensor) and torch.is_tensor(state.data):
        yield state


def count_parameters(chunks: Sequence[Any], place: Place) -> int:
    """Weights of the whole model, each counted once: on the rank that would write it into a checkpoint."""
    metadata = {"dp_cp_group": place.data_group()}
    own = sum(
        part.data.numel()
        for chunk in chunks
        for part in sharded_tensors(chunk.sharded_state_dict(metadata=metadata))
        if part.data is not None and is_main_replica(part.replica_id)
    )
    return int(place.sum_over_all([own])[0])
