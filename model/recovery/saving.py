"""A checkpoint's shards on their way to disk, in Megatron-Core's sharded format (torch's distributed checkpoints).

Megatron-Core's own strategy writes from forked children that report through a server process; a child that dies leaves
its parent waiting for ever, and forking a process that uses CUDA is not safe. Here all ranks agree on who writes what
(a collective), each copies its shards to host memory if training is to go on meanwhile, and a thread of the rank writes
them: file writes, syncing and hashing release Python's lock.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies.torch import (
    MCoreSavePlanner,
    TorchDistSaveShardedStrategy,
    _replace_state_dict_keys_with_sharded_keys,
    mcore_to_pyt_state_dict,
)
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from infra.settings import Settings
from infra.store import sync_path
from model.parallel import Place


class FileDigest(Settings):
    """What a file has to be."""

    bytes: int
    sha256: str


@dataclass
class Written:
    """What a rank has written."""

    results: Any
    """Where each tensor lies, for the index file."""
    files: dict[str, FileDigest]


class HostBuffers:
    """Host memory for one copy of the state, kept from save to save because pinning it takes long."""

    def __init__(self) -> None:
        self._buffers: dict[Any, torch.Tensor] = {}

    def copy(self, key: Any, tensor: torch.Tensor) -> torch.Tensor:
        """A copy that is complete after the device has been waited for."""
        buffer = self._buffers.get(key)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._buffers[key] = buffer
        buffer.copy_(tensor, non_blocking=True)
        return buffer


class ShardSave:
    """One save on one rank: planned together, copied, then written by a thread."""

    def __init__(self, folder: Path, state: Any, place: Place, buffers: HostBuffers | None) -> None:
        """Plan, and copy into the buffers if there are any; without them the state may not change until it is written.

        Every rank calls this; rank 0 has made the folder.
        """
        self._folder, self._place, self._buffers = folder, place, buffers
        self._writing: Future[Written] | None = None
        dist_checkpointing.save(state, str(folder), sharded_strategy=_Planned(self))

    def plan(self, tensors: dict[str, Any]) -> None:
        """Agree with the other ranks on who writes what; called by Megatron-Core between its other files."""
        coordinates = self._place.rank == 0
        self._planner = _HostPlanner(dedup_replicated_tensors=False, flatten_state_dict=False)
        self._writer = FileSystemWriter(self._folder, sync_files=True, per_thread_copy_ahead=0)
        self._planner.set_up_planner(tensors, self._writer.storage_meta(), coordinates)
        self._writer.set_up_storage_writer(coordinates, rank=self._place.rank, use_collectives=True)
        plans = self._place.gather(self._writer.prepare_local_plan(self._planner.create_local_plan()))
        if plans is not None:
            plans, self._metadata = self._planner.create_global_plan(plans)
            plans = self._writer.prepare_global_plan(plans)
        self._plan = self._planner.finish_plan(self._place.scatter(plans))
        self._planner.stage(self._plan, self._buffers, self._place.device)
        if self._place.device.type == "cuda" and self._buffers:
            torch.cuda.current_stream().synchronize()

    def start(self, threads: ThreadPoolExecutor) -> None:
        """Begin to write."""
        self._writing = threads.submit(self.write)

    @property
    def is_written(self) -> bool:
        """Whether this rank's thread has ended, well or not."""
        return self._writing is None or self._writing.done()

    def written(self) -> Written:
        """Wait for the thread; raises what it raised."""
        return self._writing.result() if self._writing else self.write()

    def write(self) -> Written:
        """Write this rank's shards and hash them."""
        results = self._writer.write_data(self._plan, self._planner).value()
        names = sorted({result.storage_data.relative_path for result in results})
        self._planner.release()
        return Written(results, {name: digest(self._folder / name) for name in names})

    def write_index(self, results: list[Any]) -> None:
        """Write the index over all ranks' shards; rank 0 calls this."""
        self._writer.finish(self._metadata, results)


class _Planned(TorchDistSaveShardedStrategy):
    """Hands Megatron-Core's sharded tensors, as torch's, to a ShardSave."""

    def __init__(self, save: ShardSave) -> None:
        super().__init__("torch_dist", 1)
        self._save = save

    def save(self, sharded_state_dict: Any, checkpoint_dir: Any) -> None:
        """Plan the save; the files are written later."""
        renamed, _, _ = _replace_state_dict_keys_with_sharded_keys(sharded_state_dict, self.keep_only_main_replica)
        self._save.plan(mcore_to_pyt_state_dict(renamed, False))


class _HostPlanner(MCoreSavePlanner):
    """Finds the data of a plan's items while the state is as it shall be saved."""

    def stage(self, plan: Any, buffers: HostBuffers | None, device: torch.device) -> None:
        found = {item.index: super(_HostPlanner, self).resolve_data(item) for item in plan.items}
        if buffers is not None:
            for index, value in found.items():
                # What is in host memory beside a GPU was copied there for this save: gathered optimizer states.
                if torch.is_tensor(value) and value.device.type == device.type:
                    found[index] = buffers.copy(index, value.detach())
        self._found = found

    def release(self) -> None:
        """Let go of the state."""
        self._found = {}
        self.state_dict = {}

    def resolve_data(self, write_item: Any) -> Any:
        """The staged tensor or bytes of an item."""
        return self._found[write_item.index]


def digest(path: Path) -> FileDigest:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return FileDigest(bytes=file.tell(), sha256=sha256)


def digest_others(folder: Path, known: Sequence[str]) -> dict[str, FileDigest]:
    """Sync and describe the files of a folder that no rank's thread has written."""
    others = sorted(path for path in folder.iterdir() if path.name not in known)
    for path in others:
        sync_path(path)
    return {path.name: digest(path) for path in others}
