"""Checkpoints that are whole or absent, readable under any layout.

    checkpoints/step-00000100/
        *.distcp, .metadata, metadata.json, common.pt     as Megatron-Core and torch write them
        meta.json                                         written last: whose state this is, and every file's SHA-256

A checkpoint is written into a folder whose name ends in `.tmp`, synced and renamed. The weights in it are the float32
master weights and the model's own; optimizer states are stored so that they can be cut for any layout
(Megatron-Core's "fully_reshardable"). The learning rate, random numbers of dropout and the order of the data are
functions of the step and need no state beside it.

With `checkpoint.asynchronous` a save returns when the state is copied; `poll` at every later step completes it as soon
as all ranks have written their part.
"""

import errno
import logging
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from megatron.core import dist_checkpointing
from pydantic import Field
from torch.distributed.checkpoint.api import CheckpointException

from infra.errors import BadInput, DamagedData, DiskFull, GristmillError, RunFailed
from infra.manifest import Manifest
from infra.store import Store, sync_path
from model.parallel import Place
from model.recovery.events import Event
from model.recovery.saving import FileDigest, HostBuffers, ShardSave, Written, digest, digest_others
from model.run import Layout, RunRecord, differing_fields, step_name

logger = logging.getLogger(__name__)

TEMPORARY_SUFFIX = ".tmp"
_META = "meta.json"
_SMALL_FILE = 16 << 20
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


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
    losses: tuple[float, ...] = ()
    """Losses of the last steps, with which those to come are compared (see model.recovery.health)."""
    events: tuple[Event, ...] = ()
    """What was unhealthy so far."""
    files: dict[str, FileDigest] = Field(default_factory=dict)
    """What each file has to be."""


def run_inputs(run: RunRecord) -> dict[str, Any]:
    """What has to agree between a checkpoint and the run that loads it."""
    blend = [each.model_dump(mode="json") for each in run.blend]
    return {"training": run.training.identity(), "dataset_fingerprint": run.dataset_fingerprint, "blend": blend}


class Checkpoints:
    """The checkpoints of one run; methods that write, `latest` and `load` are called by every rank at once."""

    def __init__(self, store: Store, run: RunRecord, place: Place) -> None:
        self._store, self._run, self._place = store, run, place
        self._folder = f"{run.folder}/checkpoints"
        self._settings = run.training.checkpoint
        self._buffers = HostBuffers() if self._settings.asynchronous else None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: tuple[ShardSave, CheckpointRecord] | None = None

    def clean(self, events: Sequence[Event] = ()) -> None:
        """Remove what a killed process left half-written, and what a rollback took back but did not come to remove."""
        if self._place.rank == 0:
            self._store.make_folder(self._folder)
            self._store.remove_temporary(self._folder)
            for record in self.complete():
                if any(
                    each.back_to is not None and each.back_to < record.step for each in events[len(record.events) :]
                ):
                    self._remove(record.step)
        self._place.wait_for_all()

    def complete(self) -> list[CheckpointRecord]:
        """Records of the checkpoints whose files are there in full size, oldest first; a warning for each other."""
        found: list[CheckpointRecord] = []
        for name in self._store.names(self._folder):
            if name.endswith(TEMPORARY_SUFFIX):
                continue
            try:
                found.append(self._checked(name))
            except (DamagedData, FileNotFoundError) as error:
                logger.warning("checkpoint %s is passed over: %s", self._path(name), error)
        return sorted(found, key=lambda record: record.step)

    def latest(self, upto: int | None = None) -> CheckpointRecord | None:
        """The newest checkpoint (of no step above `upto`) whose files have their SHA-256; each rank reads a part."""
        found = self._place.share(self.complete() if self._place.rank == 0 else None)
        for record in reversed(found):
            if (upto is None or record.step <= upto) and self._has_its_digests(record):
                return record
        return None

    def _has_its_digests(self, record: CheckpointRecord) -> bool:
        names = sorted(record.files)[self._place.rank :: self._place.processes]
        damaged = [name for name in names if not self._is_as_written(record, name)]
        damaged = [name for part in self._place.gather_everywhere(damaged) for name in part]
        if damaged and self._place.rank == 0:
            path = self._path(step_name(record.step))
            logger.warning("checkpoint %s is passed over: %s differ from their SHA-256", path, ", ".join(damaged))
        return not damaged

    def _is_as_written(self, record: CheckpointRecord, name: str) -> bool:
        try:
            return digest(self._path(step_name(record.step)) / name) == record.files[name]
        except OSError:
            return False

    def _checked(self, name: str) -> CheckpointRecord:
        record = CheckpointRecord.load(self._store, f"{self._folder}/{name}/{_META}")
        for file, written in record.files.items():
            path = self._path(name) / file
            found = path.stat().st_size
            if found != written.bytes:
                raise DamagedData(
                    f"{path} has {found} bytes instead of {written.bytes}",
                    "a checkpoint's files stay as they were written",
                    "Training goes on from an earlier checkpoint",
                )
        return record

    def _path(self, name: str) -> Path:
        return self._store.local_path(f"{self._folder}/{name}")

    def save(
        self,
        chunks: Sequence[Any],
        optimizer: Any,
        *,
        step: int,
        consumed_samples: int,
        seconds: float,
        losses: Sequence[float] = (),
        events: Sequence[Event] = (),
    ) -> None:
        """Write a checkpoint, or begin to, and remove those that are too many. DiskFull for want of space."""
        self.finish()
        record = CheckpointRecord(
            fingerprint=self._run.fingerprint,
            inputs=run_inputs(self._run),
            step=step,
            consumed_samples=consumed_samples,
            seconds=seconds,
            layout=self._place.layout,
            losses=tuple(losses),
            events=tuple(events),
        )
        temporary = self._path(step_name(step) + TEMPORARY_SUFFIX)
        try:
            self._make_folder(temporary)
            shards = ShardSave(temporary, self._state_to_save(chunks, optimizer), self._place, self._buffers)
        except (Exception, CheckpointException) as error:  # torch derives its own from BaseException
            raise self._failure(error, temporary) from error
        self._pending = shards, record
        if self._settings.asynchronous:
            shards.start(self._threads)
        else:
            self.finish()

    def _make_folder(self, folder: Path) -> None:
        if self._place.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self._place.wait_for_all()

    def _state_to_save(self, chunks: Sequence[Any], optimizer: Any) -> dict[str, Any]:
        for chunk in chunks:
            if chunk.ddp_config.overlap_param_gather:
                # The last update's weights are gathered during the next forward pass, which has not come yet.
                chunk.start_param_sync(force_sync=True)
        return _state([chunk.module for chunk in chunks], optimizer, self._place, loading=False)

    def poll(self) -> int | None:
        """Complete the save that is under way if all ranks have written; returns its step when it is complete."""
        if self._pending is None:
            return None
        (written,) = self._place.sum_over_all([self._pending[0].is_written])
        return self.finish() if written == self._place.processes else None

    def finish(self) -> int | None:
        """Wait for the save that is under way and complete it; returns its step, or None where there is none."""
        if self._pending is None:
            return None
        (shards, record), self._pending = self._pending, None
        temporary = self._path(step_name(record.step) + TEMPORARY_SUFFIX)
        try:
            outcome: Written | GristmillError = shards.written()
        except (Exception, CheckpointException) as error:  # noqa: BLE001 - it is raised on every rank below
            outcome = self._failure(error, temporary)
        outcomes = self._place.gather_everywhere(outcome)
        if failures := [each for each in outcomes if isinstance(each, GristmillError)]:
            shutil.rmtree(temporary, ignore_errors=True)
            raise failures[0]
        if self._place.rank == 0:
            try:
                self._complete(temporary, shards, record, outcomes)
            except Exception as error:
                raise self._failure(error, temporary) from error
        self._place.wait_for_all()
        if self._place.is_reporter:
            logger.info("checkpoint at step %d", record.step)
        return record.step

    def _complete(self, temporary: Path, shards: ShardSave, record: CheckpointRecord, all_written: list[Any]) -> None:
        shards.write_index([written.results for written in all_written])
        files = {name: digest for written in all_written for name, digest in written.files.items()}
        files |= digest_others(temporary, list(files))
        record = record.model_copy(update={"files": files})
        record.save(self._store, f"{self._folder}/{temporary.name}/{_META}")
        name = step_name(record.step)
        self._store.remove(f"{self._folder}/{name}")  # a damaged one of the same step
        temporary.rename(self._path(name))
        sync_path(self._path(""))
        self._rotate()

    def _rotate(self) -> None:
        keep, every = self._settings.keep, self._settings.keep_every
        for record in self.complete()[:-keep] if keep is not None else ():
            if every is None or record.step % every:
                self._remove(record.step)

    def remove_after(self, step: int) -> None:
        """Remove the checkpoints of later steps, which a rollback takes back."""
        if self._place.rank == 0:
            for record in self.complete():
                if record.step > step:
                    self._remove(record.step)
        self._place.wait_for_all()

    def _remove(self, step: int) -> None:
        # Renamed first, so that a kill in the middle leaves nothing that looks like a checkpoint.
        doomed = self._path(step_name(step))
        shutil.rmtree(doomed.rename(doomed.with_name(doomed.name + TEMPORARY_SUFFIX)))

    def _failure(self, error: BaseException, temporary: Path) -> GristmillError:
        """What a save that failed is reported as; nothing half-written remains."""
        full = _disk_full(error, temporary)
        shutil.rmtree(temporary, ignore_errors=True)
        return full or RunFailed(
            f"{temporary} could not be written ({_first_line(error)})",
            "a checkpoint is written whole or not at all",
            "Run the same command again: training goes on from the latest checkpoint",
        )

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
    known = any(getattr(each, "errno", None) in _NO_SPACE for each in _causes(error))
    # torch's writers in C++ lose the error's number, but say that they could not write.
    unknown = any(mark in str(each) for each in _causes(error) for mark in ("iostream", "PytorchStreamWriter"))
    if not known and not (unknown and _cannot_write(folder)):
        return None
    free = shutil.disk_usage(folder.parent).free
    return DiskFull(
        f"{folder} could not be written ({free:,} bytes free)",
        "a checkpoint is written whole or not at all",
        "Free space and run the same command again: training goes on from the latest checkpoint",
    )


def _cannot_write(folder: Path) -> bool:
    """Whether there is no room for another small file."""
    try:
        (folder / "probe").write_bytes(bytes(_SMALL_FILE))
    except OSError as error:
        return error.errno in _NO_SPACE
    return False


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
