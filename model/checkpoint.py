"""Checkpoints that are whole or absent, readable under any layout.

    checkpoints/step-00000100/
        *.distcp, .metadata, metadata.json, common.pt     as Megatron-Core and torch write them
        meta.json                                         written last: whose state this is, and every file's size

A checkpoint is written into a folder whose name ends in `.tmp`, synced and renamed. The weights in it are the float32
master weights and the model's own; optimizer states are stored so that they can be cut for any layout
(Megatron-Core's "fully_reshardable").
"""

import errno
import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies.torch import (
    MCoreSavePlanner,
    TorchDistSaveShardedStrategy,
    _replace_state_dict_keys_with_sharded_keys,
    mcore_to_pyt_state_dict,
)
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save as save_shards

from infra.errors import BadInput, DamagedData, DiskFull
from infra.manifest import Manifest
from infra.store import Store, sync_path
from model.parallel import Place
from model.run import Layout, RunRecord, differing_fields, step_name

logger = logging.getLogger(__name__)

TEMPORARY_SUFFIX = ".tmp"
_META = "meta.json"
_NEARLY_FULL = 16 << 20


class CheckpointRecord(Manifest):
    """Whose state a checkpoint is."""

    fingerprint: str
    """Of the run."""
    inputs: dict[str, Any]
    """The run's settings and dataset, by which a checkpoint of another run is told."""
    step: int
    consumed_samples: int
    """State of the data: the next sample's index."""
    seconds: float
    """Wall time of the training loop so far, summed over launches."""
    layout: Layout
    """Layout that wrote it; any can read it."""
    files: dict[str, int]
    """Size of each file in bytes."""


def run_inputs(run: RunRecord) -> dict[str, Any]:
    """What has to agree between a checkpoint and the run that loads it."""
    return {"training": run.training.identity(), "dataset_fingerprint": run.dataset_fingerprint}


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, store: Store, run: RunRecord, place: Place) -> None:
        self._store, self._run, self._place = store, run, place
        self._folder = f"{run.folder}/checkpoints"

    def clean(self) -> None:
        """Remove what a killed process left half-written."""
        if self._place.rank == 0:
            self._store.make_folder(self._folder)
            self._store.remove_temporary(self._folder)
        self._place.wait_for_all()

    def complete(self) -> list[CheckpointRecord]:
        """Records of the whole checkpoints, oldest first; the others are skipped with a warning."""
        found: list[CheckpointRecord] = []
        for name in self._store.names(self._folder):
            if name.endswith(TEMPORARY_SUFFIX):
                continue
            try:
                found.append(self._checked(name))
            except (DamagedData, FileNotFoundError) as error:
                logger.warning("checkpoint %s is passed over: %s", self._path(name), error)
        return sorted(found, key=lambda record: record.step)

    def latest(self) -> CheckpointRecord | None:
        """Record of the newest whole checkpoint."""
        complete = self.complete()
        return complete[-1] if complete else None

    def _checked(self, name: str) -> CheckpointRecord:
        record = CheckpointRecord.load(self._store, f"{self._folder}/{name}/{_META}")
        for file, size in record.files.items():
            path = self._path(name) / file
            found = path.stat().st_size
            if found != size:
                raise DamagedData(
                    f"{path} has {found} bytes instead of {size}",
                    "a checkpoint's files stay as they were written",
                    "Training goes on from an earlier checkpoint",
                )
        return record

    def _path(self, name: str) -> Path:
        return self._store.local_path(f"{self._folder}/{name}")

    def save(self, chunks: Sequence[Any], optimizer: Any, *, step: int, consumed_samples: int, seconds: float) -> None:
        """Write a checkpoint and remove those that are too many; every rank calls this. DiskFull for want of space."""
        name = step_name(step)
        temporary = self._path(name + TEMPORARY_SUFFIX)
        try:
            self._write(temporary, chunks, optimizer)
            if self._place.rank == 0:
                self._finish(temporary, name, step, consumed_samples, seconds)
        except (Exception, CheckpointException) as error:  # torch derives its own from BaseException
            full = _disk_full(error, temporary)
            shutil.rmtree(temporary, ignore_errors=True)
            if full:
                raise full from error
            raise
        self._place.wait_for_all()

    def _write(self, folder: Path, chunks: Sequence[Any], optimizer: Any) -> None:
        if self._place.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self._place.wait_for_all()
        for chunk in chunks:
            if chunk.ddp_config.overlap_param_gather:
                # The last update's weights are gathered during the next forward pass, which has not come yet.
                chunk.start_param_sync(force_sync=True)
        state = _state([chunk.module for chunk in chunks], optimizer, self._place, loading=False)
        dist_checkpointing.save(state, str(folder), sharded_strategy=_InProcessSave("torch_dist", 1))

    def _finish(self, temporary: Path, name: str, step: int, consumed_samples: int, seconds: float) -> None:
        record = CheckpointRecord(
            fingerprint=self._run.fingerprint,
            inputs=run_inputs(self._run),
            step=step,
            consumed_samples=consumed_samples,
            seconds=seconds,
            layout=self._place.layout,
            files={path.name: path.stat().st_size for path in sorted(temporary.iterdir())},
        )
        for path in temporary.iterdir():
            sync_path(path)
        record.save(self._store, f"{self._folder}/{temporary.name}/{_META}")
        self._store.remove(f"{self._folder}/{name}")  # a damaged one of the same step
        temporary.rename(self._path(name))
        sync_path(self._path(""))
        self._rotate()

    def _rotate(self) -> None:
        keep = self._run.training.checkpoint.keep
        for record in self.complete()[:-keep] if keep is not None else ():
            # Renamed first, so that a kill in the middle leaves nothing that looks like a checkpoint.
            doomed = self._path(step_name(record.step))
            shutil.rmtree(doomed.rename(doomed.with_name(doomed.name + TEMPORARY_SUFFIX)))

    def load(self, record: CheckpointRecord, chunks: Sequence[Any], optimizer: Any | None = None) -> None:
        """Read weights, and optimizer state where there is an optimizer, into chunks without the wrapper for gradients.

        Every rank calls this. BadInput names what differs if the checkpoint belongs to another run, DamagedData if its
        files cannot be read.
        """
        path = self._path(step_name(record.step))
        if record.fingerprint != self._run.fingerprint:
            raise BadInput(
                f"{path} belongs to run {record.fingerprint}, which differs in "
                f"{differing_fields(record.inputs, run_inputs(self._run)) or 'its version'}",
                f"a checkpoint continues only its own run, here {self._run.fingerprint}",
                "Move it out of this run's folder",
            )
        try:
            state: Any = dist_checkpointing.load(_state(chunks, optimizer, self._place, loading=True), str(path))
        except (Exception, CheckpointException) as error:
            raise DamagedData(
                f"{path} cannot be read ({_first_line(error)})",
                "a checkpoint's files stay as they were written",
                "Remove this checkpoint: training goes on from an earlier one",
            ) from error
        for index, chunk in enumerate(chunks):
            chunk.load_state_dict(state[f"model{index}"])
        if optimizer is not None:
            optimizer.load_state_dict(state["optimizer"])


class _InProcessSave(TorchDistSaveShardedStrategy):
    """Megatron-Core's format, written by the rank itself.

    The released strategy writes from forked children that report through a server process; a child that dies leaves its
    parent waiting for ever, and forking a process that uses CUDA is not safe.
    """

    def save(self, sharded_state_dict: Any, checkpoint_dir: Any) -> None:
        """Write this rank's shards; an error on one rank is raised on all."""
        renamed, _, _ = _replace_state_dict_keys_with_sharded_keys(sharded_state_dict, self.keep_only_main_replica)
        save_shards(
            mcore_to_pyt_state_dict(renamed, False),
            storage_writer=FileSystemWriter(checkpoint_dir, sync_files=True),
            planner=MCoreSavePlanner(dedup_replicated_tensors=False, flatten_state_dict=False),
        )


def _state(chunks: Sequence[Any], optimizer: Any | None, place: Place, *, loading: bool) -> dict[str, Any]:
    metadata = {
        "dp_cp_group": place.data_group(),
        "distrib_optim_sharding_type": "fully_reshardable",
        "chained_optim_avoid_prefix": True,
    }
    state: dict[str, Any] = {
        f"model{index}": chunk.sharded_state_dict(metadata=metadata) for index, chunk in enumerate(chunks)
    }
    if optimizer is not None:
        state["optimizer"] = optimizer.sharded_state_dict(state, is_loading=loading, metadata=metadata)
    return state


def _disk_full(error: BaseException, folder: Path) -> DiskFull | None:
    """DiskFull if that is what went wrong, however torch has wrapped it."""
    free = shutil.disk_usage(folder.parent).free
    no_space = any(getattr(each, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for each in _causes(error))
    # Errors of other ranks arrive without their causes: all that is left of "no space" is torch's own complaint.
    unfinished = any("inline_container" in str(each) for each in _causes(error))
    if not no_space and not (unfinished and free < _NEARLY_FULL):
        return None
    return DiskFull(
        f"{folder} could not be written ({free:,} bytes free)",
        "a checkpoint is written whole or not at all",
        "Free space and run the same command again: training goes on from the latest checkpoint",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and the errors of other ranks that torch collects in one."""
    yield error
    for rank_error in getattr(error, "failures", {}).values():
        yield from _causes(rank_error[0])
    following = error.__cause__ or error.__context__
    if following is not None:
        yield from _causes(following)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
