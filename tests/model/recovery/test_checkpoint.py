"""Checkpoints on disk: whose they are, and what becomes of damaged ones and of full disks."""

import logging
import math
import resource
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from infra.errors import BadInput, DamagedData, DiskFull
from infra.manifest import DatasetManifest
from infra.store import Store
from model.architectures.build import build_model
from model.parallel import Place
from model.recovery.checkpoint import Checkpoints
from model.run import RunRecord, prepare_run
from model.updates.distribution import distribute
from model.updates.optimizer import build_optimizer
from tests.model.small_runs import small_training


class Trained:
    """A model with its optimizer and checkpoints, after no step."""

    def __init__(self, store: Store, dataset: DatasetManifest, name: str, place: Place, **changes) -> None:
        settings = small_training(**changes)
        self.run: RunRecord = prepare_run(store, dataset, name, settings)
        self.chunks = distribute(build_model(settings, settings.parallel, place, 400), settings.parallel)
        self.optimizer = build_optimizer(self.chunks, settings)
        self.checkpoints = Checkpoints(store, self.run, place)
        self.folder = store.local_path(f"{self.run.folder}/checkpoints")

    def save(self, step: int) -> None:
        self.checkpoints.save(self.chunks, self.optimizer, step=step, consumed_samples=8 * step, seconds=1.0)


def test_loads_what_was_saved(store, dataset, place) -> None:
    trained = Trained(store, dataset, "saved", place)
    trained.save(1)
    before = [weight.detach().clone() for weight in trained.chunks[0].parameters()]
    for weight in trained.chunks[0].parameters():
        weight.data.fill_(math.pi)
    record = trained.checkpoints.latest()
    assert record is not None
    assert (record.step, record.consumed_samples) == (1, 8)
    trained.checkpoints.load(record, [chunk.module for chunk in trained.chunks], trained.optimizer)
    assert all(torch.equal(*pair) for pair in zip(trained.chunks[0].parameters(), before, strict=True))


def test_rotation_keeps_the_newest(store, dataset, place) -> None:
    trained = Trained(store, dataset, "rotated", place, checkpoint={"keep": 2})
    for step in (1, 2, 3):
        trained.save(step)
    assert [path.name for path in sorted(trained.folder.iterdir())] == ["step-00000002", "step-00000003"]


def test_passes_over_damaged_and_half_written_ones(store, dataset, place, caplog) -> None:
    trained = Trained(store, dataset, "damaged", place, checkpoint={"keep": None})
    for step in (1, 2, 3):
        trained.save(step)
    shutil.copytree(trained.folder / "step-00000003", trained.folder / "step-00000004.tmp")
    (trained.folder / "step-00000003" / "meta.json").unlink()
    weights = next((trained.folder / "step-00000002").glob("*.distcp"))
    weights.write_bytes(weights.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        record = trained.checkpoints.latest()
    assert record is not None
    assert record.step == 1
    assert f"{weights} has" in caplog.text
    assert "step-00000003 is passed over" in caplog.text
    trained.checkpoints.clean()
    assert not (trained.folder / "step-00000004.tmp").exists()


def test_refuses_another_runs_checkpoint(store, dataset, place) -> None:
    trained = Trained(store, dataset, "first", place)
    trained.save(1)
    wider = trained.run.training.model.model_copy(update={"ffn_hidden_size": 128})
    other = Trained(store, dataset, "second", place, model=wider, seed=7)
    shutil.copytree(trained.folder / "step-00000001", other.folder / "step-00000001")
    record = other.checkpoints.latest()
    assert record is not None
    with pytest.raises(BadInput) as refusal:
        other.checkpoints.load(record, [chunk.module for chunk in other.chunks], other.optimizer)
    assert "training.model.ffn_hidden_size (64 instead of 128)" in str(refusal.value)
    assert "training.seed (1234 instead of 7)" in str(refusal.value)


def test_says_which_checkpoint_cannot_be_read(store, dataset, place) -> None:
    trained = Trained(store, dataset, "garbled", place)
    trained.save(1)
    record = trained.checkpoints.latest()
    assert record is not None
    (trained.folder / "step-00000001" / ".metadata").write_bytes(b"not a pickle")
    with pytest.raises(DamagedData, match="step-00000001 cannot be read"):
        trained.checkpoints.load(record, [chunk.module for chunk in trained.chunks], trained.optimizer)


def test_files_changed_in_place_are_found_by_their_sha256(store, dataset, place, caplog) -> None:
    trained = Trained(store, dataset, "flipped", place)
    trained.save(1)
    trained.save(2)
    weights = next((trained.folder / "step-00000002").glob("*.distcp"))
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        record = trained.checkpoints.latest()
    assert record is not None
    assert record.step == 1
    assert f"{weights.name} differ from their SHA-256" in caplog.text


def test_rotation_spares_every_nth(store, dataset, place) -> None:
    trained = Trained(store, dataset, "spared", place, checkpoint={"keep": 1, "keep_every": 2})
    for step in (1, 2, 3, 4, 5):
        trained.save(step)
    assert [path.name[-1] for path in sorted(trained.folder.iterdir())] == ["2", "4", "5"]


def test_asynchronous_save_keeps_the_state_of_its_step(store, dataset, place) -> None:
    trained = Trained(store, dataset, "asynchronous", place, checkpoint={"asynchronous": True})
    before = [weight.detach().clone() for weight in trained.chunks[0].parameters()]
    release = threading.Event()
    trained.checkpoints._threads.submit(release.wait)  # the one thread that writes is busy
    trained.save(1)
    for weight in trained.chunks[0].parameters():
        weight.data.fill_(math.pi)
    assert trained.checkpoints.poll() is None
    assert store.names(f"{trained.run.folder}/checkpoints") == ["step-00000001.tmp"]
    release.set()
    assert trained.checkpoints.finish() == 1
    record = trained.checkpoints.latest()
    assert record is not None
    trained.checkpoints.load(record, [chunk.module for chunk in trained.chunks], trained.optimizer)
    assert all(torch.equal(*pair) for pair in zip(trained.chunks[0].parameters(), before, strict=True))


def test_asynchronous_saves_follow_one_another(store, dataset, place) -> None:
    trained = Trained(store, dataset, "one-by-one", place, checkpoint={"asynchronous": True})
    for step in (1, 2, 3):
        trained.save(step)
    assert trained.checkpoints.finish() == 3
    assert [record.step for record in trained.checkpoints.complete()] == [2, 3]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing beyond so many bytes of a file fails, as on a full disk, but with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def save_and_wait(trained: Trained, step: int) -> None:
    trained.save(step)
    trained.checkpoints.finish()


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("size", [1_000, 100_000], ids=["no-index", "no-weights"])
def test_full_disk_leaves_the_earlier_checkpoint_and_nothing_half_written(
    store, dataset, place, asynchronous, size
) -> None:
    name = f"full-{asynchronous}-{size}"
    trained = Trained(store, dataset, name, place, checkpoint={"asynchronous": asynchronous})
    save_and_wait(trained, 1)
    with largest_file(size), pytest.raises(DiskFull, match="step-00000002") as refusal:
        save_and_wait(trained, 2)
    assert "training goes on from the latest checkpoint" in str(refusal.value)
    assert store.names(f"{trained.run.folder}/checkpoints") == ["step-00000001"]
    record = trained.checkpoints.latest()
    assert record is not None
    assert record.step == 1
    save_and_wait(trained, 2)
    assert [each.step for each in trained.checkpoints.complete()] == [1, 2]
