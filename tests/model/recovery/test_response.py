"""Faults in the data and in weights, and what each policy makes of them, in real training on one rank."""

import math
import random
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from megatron.core import parallel_state

from infra.errors import RunFailed
from infra.store import Store
from model.architectures.build import build_model
from model.data.sources import open_order
from model.loop import train
from model.parallel import parallel
from model.rank import STOPPED
from model.recovery.checkpoint import Checkpoints
from model.recovery.events import Event, read_events
from model.run import RunRecord, finished_training, prepare_run, read_metrics
from model.updates.distribution import distribute
from model.updates.optimizer import build_optimizer
from tests.model.digests import digest_of
from tests.model.small_runs import launch, layout, real_documents, small_training, write_dataset

pytestmark = pytest.mark.usefixtures("alone")

STEPS = 84
WATCH = {"window": 16, "spike_after": 12, "spike_least": 0.7}


class Poisoned:
    """Runs on real text among which stands one document of random ideographs: bytes in no order."""

    def __init__(self, store: Store) -> None:
        chance = random.Random(1)
        noise = "".join(chr(chance.randrange(0x4E00, 0x9FFF)) for _ in range(40))
        documents = sorted(real_documents(), key=len)[:110]
        documents.insert(51, noise)
        trained_on = [text for index, text in enumerate(documents) if index % 10]
        self.document = f"tokens/train-0.arrow-{trained_on.index(noise)}"
        self.store, self.dataset = store, write_dataset(store, documents)
        self.seed = next(seed for seed in range(1, 1000) if self._comes_once(seed))
        self.place = self._places(self.seed)[0] // 2 * 2
        """Of the first sample in the batch that holds the document."""
        self.batch = (self.place, self.place + 2)
        self.step = self.place // 2 + 1

    def _comes_once(self, seed: int) -> bool:
        places = self._places(seed)
        return len(places) == 1 and 2 * 66 <= places[0] < 2 * 70

    def _places(self, seed: int) -> list[int]:
        """Samples of the run with the document, or with no more than a third of it where there are others."""
        settings = small_training()
        order = open_order(self.store, [self.dataset], settings.data, settings.model.sequence_length, seed)
        names = order.sources[0].documents
        found: dict[int, int] = {}
        for place in range(2 * STEPS + 8):
            for document, count in zip(*[order.sample(place).pieces[index] for index in (0, 2)], strict=True):
                if names.name(int(document)) == self.document:
                    found[place] = int(count)
        return list(found) if all(count > 50 for count in found.values()) else []

    def prepare(self, name: str, *, tied: bool = True, **health) -> RunRecord:
        model = small_training().model.model_copy(update={"tied_embeddings": tied})
        settings = small_training(
            STEPS,
            model=model,
            seed=self.seed,
            global_batch_size=2,
            health={**WATCH, **health},
            checkpoint={"every_steps": 12, "keep": None},
            log_every=1,
        )
        return prepare_run(self.store, self.dataset, name, settings)

    def prepare_at(self, step: int, name: str, source: RunRecord, **health) -> RunRecord:
        """Another run, that is where the source was at a step."""
        run = self.prepare(name, **health)
        assert run.fingerprint == source.fingerprint
        for each in (step - 12, step):
            shutil.copytree(self.checkpoint(source, each), self.checkpoint(run, each))
        rows = (self.folder(source) / "metrics.jsonl").read_text().splitlines(keepends=True)
        (self.folder(run) / "metrics.jsonl").write_text("".join(rows[:step]))
        return run

    def as_after_a_kill(self, run: RunRecord, step: int) -> None:
        """Take away what was done after a checkpoint, but for the events."""
        (self.folder(run) / "training.json").unlink()
        for path in (self.folder(run) / "checkpoints").iterdir():
            if path.name > f"step-{step:08d}":
                shutil.rmtree(path)

    def train(self, run: RunRecord) -> int:
        return train(self.store, run, self.dataset)

    def fail(self, run: RunRecord, match: str) -> str:
        """Train a run that stops with an error, which leaves its process group to the end of the process."""
        with pytest.raises(RunFailed, match=match) as failure:
            self.train(run)
        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()
        return str(failure.value)

    def folder(self, run: RunRecord) -> Path:
        return self.store.local_path(run.folder)

    def checkpoint(self, run: RunRecord, step: int) -> Path:
        return self.folder(run) / "checkpoints" / f"step-{step:08d}"

    def result(self, run: RunRecord) -> tuple[str, list[float]]:
        """Digest of the last weights, and the loss of each step."""
        rows = read_metrics(self.folder(run))
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        return digest_of(self.checkpoint(run, STEPS)), [row["loss"] for row in rows]

    def events(self, run: RunRecord) -> list[Event]:
        return read_events(self.folder(run))


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory) -> Poisoned:
    return Poisoned(Store(str(tmp_path_factory.mktemp("poisoned"))))


@pytest.fixture
def reported(poisoned, alone) -> RunRecord:
    """The run in which nothing is done about the spike; trained once."""
    run = poisoned.prepare("reported", spike="report")
    if finished_training(poisoned.store, run) is None:
        assert poisoned.train(run) == 0
    return run


def test_a_poisoned_document_is_found_and_named(poisoned, reported) -> None:
    (event,) = poisoned.events(reported)
    assert (event.kind, event.step, event.action, event.places) == (
        "loss spike",
        poisoned.step,
        "report",
        poisoned.batch,
    )
    assert poisoned.document in event.documents
    assert event.limit is not None
    assert event.limit < read_metrics(poisoned.folder(reported))[poisoned.step - 1]["loss"] == event.value


def test_stop_names_the_documents_and_another_policy_goes_on(poisoned, reported) -> None:
    run = poisoned.prepare_at(60, "stopped", reported, spike="stop")
    assert poisoned.document in poisoned.fail(
        run, rf"loss spike \(\d\.\d+\) at step {poisoned.step}, in a batch with the documents"
    )
    assert poisoned.train(poisoned.prepare("stopped", spike="skip")) == 0
    assert [event.action for event in poisoned.events(run)] == ["stop", "skip"]


def test_skipped_batches_stay_skipped(poisoned, reported, stop_at) -> None:
    run = poisoned.prepare_at(60, "skipped", reported, spike="skip")
    assert poisoned.train(run) == 0
    (event,) = poisoned.events(run)
    assert (event.step, event.action, event.skips) == (poisoned.step, "skip", (poisoned.batch,))
    whole, without = poisoned.result(run), poisoned.result(reported)
    before = poisoned.step - 1
    assert whole[1][:before] == without[1][:before]
    assert max(whole[1][before:]) < event.limit < without[1][before]

    poisoned.as_after_a_kill(run, 60)
    stop_at.step = 75
    assert poisoned.train(run) == STOPPED
    assert poisoned.checkpoint(run, 76).exists()
    stop_at.step = 0
    assert poisoned.train(run) == 0
    assert poisoned.events(run) == [event]
    assert poisoned.result(run) == whole


def test_rollback_goes_back_and_leaves_out_what_came_since(poisoned, reported) -> None:
    run = poisoned.prepare_at(60, "back", reported, spike="rollback", rollback_margin=1)
    assert poisoned.train(run) == 0
    (event,) = poisoned.events(run)
    assert (event.step, event.back_to, event.skips) == (poisoned.step, 60, ((120, poisoned.place + 4),))
    whole, without = poisoned.result(run), poisoned.result(reported)
    assert whole[1][:60] == without[1][:60]
    # The weights of step 60, and the batch that stands behind the one that is left out with the poisoned.
    assert whole[1][60] == pytest.approx(without[1][poisoned.step + 1], abs=0.1)
    assert whole[1][60] != without[1][60]

    poisoned.as_after_a_kill(run, 60)
    assert poisoned.train(run) == 0
    assert poisoned.events(run) == [event]
    assert poisoned.result(run) == whole


def test_ranks_decide_alike_while_weights_are_gathered_late(poisoned, reported) -> None:
    alone, shared = (poisoned.prepare_at(60, name, reported, spike="rollback") for name in ("alone", "shared"))
    assert poisoned.train(alone) == 0
    changes = {"parallel": layout(data=2, overlap=True, bucket_size=5000), "micro_batch_size": 1}
    run = prepare_run(poisoned.store, poisoned.dataset, "shared", shared.training.model_copy(update=changes))
    assert run.folder == shared.folder
    launch(poisoned.store, run)
    found = poisoned.events(run)[-1]
    assert (found.step, found.back_to, found.skips) == (poisoned.step, 60, ((120, poisoned.place + 2),))
    assert poisoned.result(run)[1] == pytest.approx(poisoned.result(alone)[1], abs=1e-4)


def spoil(poisoned: Poisoned, run: RunRecord, step: int, rows: slice) -> None:
    """Put numbers that are none into rows of the embedding in a checkpoint."""
    settings = run.training
    with parallel(settings.parallel, settings.seed) as place:
        chunks = distribute(build_model(settings, settings.parallel, place, run.vocabulary_size), settings.parallel)
        optimizer, checkpoints = build_optimizer(chunks, settings), Checkpoints(poisoned.store, run, place)
        record = checkpoints.latest(upto=step)
        assert record is not None
        checkpoints.load(record, [chunk.module for chunk in chunks], optimizer)
        with torch.no_grad():
            chunks[0].module.embedding.word_embeddings.weight[rows] = math.nan
        kept = {"consumed_samples": record.consumed_samples, "losses": record.losses, "events": record.events}
        checkpoints.save(chunks, optimizer, step=step, seconds=record.seconds, **kept)


def test_a_batch_without_a_number_for_a_loss_is_skipped(poisoned, reported) -> None:
    run = poisoned.prepare("nan-row", tied=False, spike="report", non_finite="skip")
    assert poisoned.train(run) == 0
    whole = poisoned.result(run)
    poisoned.as_after_a_kill(run, 60)
    spoil(poisoned, run, 60, slice(4 + 0xE4, 4 + 0xEA))  # first bytes of ideographs, which no other document has
    assert poisoned.train(run) == 0
    *_, event = poisoned.events(run)
    assert (event.kind, event.step, event.value, event.action) == ("loss not finite", poisoned.step, "nan", "skip")
    assert poisoned.document in event.documents
    before = poisoned.step - 1
    assert poisoned.result(run)[1][:before] == whole[1][:before]


def test_spoiled_weights_are_left_behind_by_going_back_further(poisoned, reported) -> None:
    run = poisoned.prepare_at(60, "nan-all", reported, non_finite="rollback")
    spoil(poisoned, run, 60, slice(None))
    assert poisoned.train(run) == 0
    assert [(event.step, event.back_to) for event in poisoned.events(run) if event.skips] == [(61, 60), (61, 48)]
    assert all(map(math.isfinite, poisoned.result(run)[1]))


def test_a_limit_ends_repeated_skips(poisoned, reported) -> None:
    run = poisoned.prepare_at(60, "limit", reported, non_finite="skip", limit=3)
    spoil(poisoned, run, 60, slice(None))
    poisoned.fail(run, "more than 3 skips and rollbacks in 1000 steps")
    assert [event.action for event in poisoned.events(run)] == ["skip", "skip", "skip", "stop"]
