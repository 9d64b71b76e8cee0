"""The loader: what it gives out, its thread, blends of datasets, and documents that do not see one another."""

import threading
from collections.abc import Callable

import pytest
import torch

from infra.errors import BadInput
from infra.manifest import DatasetManifest
from infra.store import Store
from model.architectures.build import build_model
from model.config import TrainingSettings
from model.data.batches import Batch, empty_rows, fill_row, to_batches
from model.data.loader import Loader
from model.data.order import TrainingOrder
from model.data.packing import Pieces
from model.data.settings import DataSettings, Source
from model.data.skips import skip
from model.data.sources import open_order
from model.run import open_run_folder, prepare_run, training_datasets
from tests.model.small_runs import small_training

CPU = torch.device("cpu")
END = 2


@pytest.fixture(scope="module")
def order(store: Store, dataset: DatasetManifest) -> TrainingOrder:
    return open_order(store, [dataset], DataSettings(), 64, seed=1)


@pytest.fixture(scope="module")
def other(store: Store, dataset: DatasetManifest) -> DatasetManifest:
    """A second dataset of the same tokenizer: the first shard alone."""
    values = {"name": "other", "fingerprint": "0123456789ab", "shards": dataset.shards[:1]}
    manifest = dataset.model_copy(update=values)
    manifest.save(store, f"{manifest.folder}/manifest.json")
    return manifest


def settings(**data) -> TrainingSettings:
    return small_training(data=DataSettings(**data), global_batch_size=16)


def same(one: list[Batch], other: list[Batch]) -> bool:
    return all(
        torch.equal(a.tokens, b.tokens) and torch.equal(a.labels, b.labels) for a, b in zip(one, other, strict=True)
    )


@pytest.fixture
def threads() -> Callable[[], list[threading.Thread]]:
    """Threads that read samples, without those that were there before the test."""
    before = set(threading.enumerate())
    return lambda: [each for each in threading.enumerate() if each.name == "samples" and each not in before]


def test_reading_ahead_gives_out_the_same(order, threads) -> None:
    direct = Loader(order, settings(prefetch=0), END, device=CPU)
    skips = skip((), 20, 40)
    with Loader(order, settings(prefetch=2), END, device=CPU) as ahead:
        for first, count, left_out in [(0, 16, ()), (16, 16, ()), (32, 8, ()), (5, 16, ()), (21, 16, skips)] * 2:
            assert same(ahead.take(first, count, left_out), direct.take(first, count, left_out))
        assert len(threads()) == 1
        assert ahead.waited > 0
    assert threads() == []
    before = direct.take(16, 16)
    after = direct.take(16, 16, skips)
    assert same(before[:2], after[:2])
    assert same(direct.take(40, 12), after[2:])


def test_replicas_share_the_samples_of_one_process(order) -> None:
    whole = Loader(order, settings(), END, device=CPU)
    parts = [Loader(order, settings(), END, rank=rank, ranks=4, device=CPU) for rank in range(4)]
    with whole, parts[0], parts[1], parts[2], parts[3]:
        for first in (0, 16):
            expected = [tuple(row.tolist()) for batch in whole.take(first, 16) for row in batch.labels]
            taken = [tuple(row.tolist()) for part in parts for batch in part.take(first, 16) for row in batch.labels]
            assert sorted(expected) == sorted(taken)


def test_an_error_of_the_thread_reaches_the_loop_each_time(order, threads) -> None:
    loader = Loader(order, settings(), 1 << 80, device=CPU)  # no integer of NumPy
    for _ in range(2):
        with pytest.raises(OverflowError):
            loader.take(0, 400)
        assert threads() == []


def test_a_blend_takes_its_datasets_by_weight(store, dataset, other) -> None:
    blend = (Source(dataset="small", weight=3), Source(dataset="other", weight=1))
    run = prepare_run(store, dataset, "blend", settings(blend=blend))
    assert [each.name for each in run.blend] == ["small", "other"]
    assert training_datasets(store, run) == (dataset, other)
    assert open_run_folder(store.local_path(run.folder))[1:] == (run, dataset)
    order = open_order(store, [dataset, other], run.training.data, 64, seed=1)
    taken = [order.sample(place) for place in range(400)]
    assert sum(sample.source for sample in taken) == 100
    alone = open_order(store, [other], DataSettings(), 64, seed=1)
    from_other = [sample.pieces for sample in taken if sample.source == 1]
    for index, pieces in enumerate(from_other):
        assert [each.tolist() for each in pieces] == [each.tolist() for each in alone.sample(index).pieces]


def test_a_blend_by_epochs_ends_all_together(store, dataset, other) -> None:
    blend = (Source(dataset="other", epochs=2), Source(dataset="small", epochs=0.5))
    run = prepare_run(store, dataset, "epochs", settings(blend=blend))
    assert run.train_tokens == 2 * other.tokens("train") + round(dataset.tokens("train") / 2)
    order = open_order(store, training_datasets(store, run), run.training.data, 64, seed=1)
    samples = sum(times * each.samples_per_epoch for times, each in zip((2, 0.5), order.sources, strict=True))
    assert order.epochs(round(samples)) == pytest.approx([2, 0.5], rel=1e-3)
    share = order.shares[0]
    expected = f"other {share:.1%} (2.0 epochs), small {1 - share:.1%} (0.5 epochs)"
    assert order.describe(round(samples), ["other", "small"]) == expected


def test_a_blend_takes_several_versions_of_a_dataset(store, dataset, other) -> None:
    older = other.model_copy(update={"name": dataset.name, "version": "2026.1.1", "fingerprint": "older"})
    older.save(store, f"{older.folder}/manifest.json")
    sources = (Source(dataset="small", version="2026.1.1", weight=3), Source(dataset="small", weight=1))
    run = prepare_run(store, dataset, "own-past", settings(blend=sources))
    assert training_datasets(store, run) == (older, dataset)
    assert open_run_folder(store.local_path(run.folder))[1:] == (run, dataset)
    twice = (*sources, Source(dataset="small", version=dataset.version, weight=1))
    with pytest.raises(BadInput, match="which a blend has once"):
        prepare_run(store, dataset, "refused", settings(blend=twice))


def test_another_version_of_a_blended_dataset_is_another_run(store, dataset, other) -> None:
    blend = (Source(dataset="small", weight=1), Source(dataset="changing", weight=1))
    manifest = other.model_copy(update={"name": "changing"})
    runs = []
    for version in ("2026.1.1", "2026.1.2"):
        newer = manifest.model_copy(update={"version": version, "fingerprint": version})
        newer.save(store, f"{newer.folder}/manifest.json")
        runs.append(prepare_run(store, dataset, "versions", settings(blend=blend)))
    assert runs[0].folder != runs[1].folder
    assert [each.version for each in training_datasets(store, runs[0])] == ["2026.11.22", "2026.1.1"]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ((("other", None),), "Add small to the blend"),
        ((("small", "2020.1.1"), ("other", None)), "the run is on version 2026.11.22, which a blend has once"),
        ((("small", None), ("absent", None)), "a dataset must exist"),
        ((("small", None), ("foreign", None)), "share one tokenizer"),
    ],
)
def test_blends_that_cannot_be_are_refused(store, dataset, other, sources, message) -> None:
    foreign = other.model_copy(
        update={"name": "foreign", "tokenizer": other.tokenizer.model_copy(update={"sha256": "0" * 64})}
    )
    foreign.save(store, f"{foreign.folder}/manifest.json")
    blend = tuple(Source(dataset=name, version=version, weight=1) for name, version in sources)
    with pytest.raises(BadInput, match=message):
        prepare_run(store, dataset, "refused", settings(blend=blend))


@pytest.mark.parametrize(
    "blend",
    [
        ({"dataset": "small", "weight": 1}, {"dataset": "other", "epochs": 1}),
        ({"dataset": "small", "weight": 1}, {"dataset": "small", "weight": 2}),
        ({"dataset": "small"},),
    ],
)
def test_settings_of_a_blend_are_checked(blend) -> None:
    with pytest.raises(
        ValueError,
        match=r"give exactly one|either by weight or by epochs|names each dataset, or each version of it, once",
    ):
        DataSettings.model_validate({"blend": blend})


def test_documents_apart_are_predicted_as_if_each_were_alone(store, dataset, place) -> None:
    training = settings(packing="best-fit", attend_across_documents=False)
    order = open_order(store, [dataset], training.data, 64, seed=1)
    documents = order.sources[0].documents
    samples = [order.sample(index).pieces for index in range(order.sources[0].samples_per_epoch)]
    pieces = next(each for each in samples if len(each.counts) >= 2)
    together = _rows(documents, [pieces], separate=True)
    single = [Pieces(*(each[n : n + 1] for each in pieces)) for n in range(len(pieces.counts))]
    alone = _rows(documents, single, separate=False)
    (model,) = build_model(training, training.parallel, place, 400)
    with torch.no_grad():
        packed = model(together.tokens, together.positions, together.documents, labels=together.labels)
        apart = model(alone.tokens, alone.positions, None, labels=alone.labels)
    expected = torch.cat([losses[:count] for losses, count in zip(apart, pieces.counts.tolist(), strict=True)])
    assert torch.allclose(packed[0, : len(expected)], expected, atol=1e-5)
    mixed = model(together.tokens, together.positions, None, labels=together.labels)
    assert not torch.allclose(mixed[0, : len(expected)], expected, atol=1e-5)


def _rows(documents, samples: list[Pieces], *, separate: bool) -> Batch:
    rows = empty_rows(range(len(samples)), 64, documents=separate)
    for number, pieces in enumerate(samples):
        fill_row(rows.values[:, number].numpy(), documents, pieces, END)
    return to_batches(rows, len(samples), CPU)[0]
