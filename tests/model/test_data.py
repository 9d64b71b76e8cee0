"""Token shards as samples: the order, and the refusal of damaged files."""

from itertools import pairwise

import numpy as np
import pytest

from infra.errors import BadInput, DamagedData
from infra.manifest import DatasetManifest
from infra.store import Store
from model.data.batches import make_batch, micro_batches
from model.data.documents import Documents, Stream
from model.data.order import TrainingOrder
from model.data.shards import verify_shards
from model.heldout import choose, unigram_nats


@pytest.fixture(scope="module")
def documents(store: Store, dataset: DatasetManifest) -> Documents:
    return Documents(store, dataset.split("train"))


def all_tokens(documents: Documents, order) -> np.ndarray:
    return np.concatenate([documents.read(int(n), 0, 1 << 30) for n in order])


def test_documents_are_read_in_place(store, dataset, documents) -> None:
    shards = dataset.split("train")
    assert len(documents) == sum(shard.documents for shard in shards)
    assert documents.lengths.sum() == sum(shard.tokens for shard in shards)
    assert documents.text_bytes.sum() == sum(shard.text_bytes for shard in shards)
    table = store.read_table(shards[1].path)
    first_of_second = shards[0].documents
    assert documents.read(first_of_second, 0, 1 << 30).tolist() == table["tokens"][0].as_py()
    assert documents.read(first_of_second, 2, 3).tolist() == table["tokens"][0].as_py()[2:5]
    assert not documents.read(0, 0, 5).flags.owndata


def test_stream_reads_across_documents(documents) -> None:
    order = np.array([5, 0, 3])
    whole = all_tokens(documents, order)
    stream = Stream(documents, order)
    assert len(stream) == len(whole)
    for start in (0, int(documents.lengths[5]) - 1, len(whole) - 2):
        assert stream.read(start, 300).tolist() == whole[start : start + 300].tolist()


def test_an_epoch_shows_every_token_once(documents) -> None:
    order = TrainingOrder(documents, 64, seed=3)
    epoch = [order.sample(index) for index in range(order.samples_per_epoch)]
    inputs = np.bincount(np.concatenate([row[:-1] for row in epoch]), minlength=400)
    missing = documents.frequencies(400) - inputs
    assert missing.min() >= 0
    assert missing.sum() == documents.lengths.sum() - 64 * len(epoch) <= 64
    following = {(*row[:2], *row[-2:]) for row in epoch}
    second = {(*row[:2], *row[-2:]) for row in map(order.sample, range(len(epoch), 2 * len(epoch)))}
    assert len(following & second) < len(epoch) // 4


def test_order_depends_on_the_seed_alone(documents) -> None:
    one, same, other = (TrainingOrder(documents, 64, seed) for seed in (3, 3, 4))
    jump = one.samples_per_epoch + 5
    assert same.sample(jump).tolist() == one.sample(jump).tolist() != other.sample(jump).tolist()
    assert same.sample(2).tolist() == one.sample(2).tolist()


@pytest.mark.parametrize(("micro", "ranks"), [(8, 1), (2, 2), (1, 8)])
def test_every_layout_takes_the_same_samples(documents, micro, ranks) -> None:
    order = TrainingOrder(documents, 64, seed=3)
    taken = [
        tuple(row)
        for rank in range(ranks)
        for rows in micro_batches(order, 40, batch=16, micro=micro, rank=rank, ranks=ranks)
        for row in rows
    ]
    assert sorted(taken) == sorted(tuple(order.sample(index)) for index in range(40, 56))


def test_short_rows_are_masked() -> None:
    import torch

    batch = make_batch([np.arange(5), np.arange(3), np.arange(0)], 4, torch.device("cpu"))
    assert batch.tokens[0].tolist() == [0, 1, 2, 3]
    assert batch.labels[0].tolist() == [1, 2, 3, 4]
    assert batch.mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]


def test_too_little_text_is_refused(documents) -> None:
    with pytest.raises(BadInput, match=r"Lower model\.sequence_length"):
        TrainingOrder(documents, int(documents.lengths.sum()), 1)


def test_damaged_shards_are_refused(store, dataset) -> None:
    shard = dataset.split("train")[0]
    path = store.local_path(shard.path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    damages = {
        "has SHA-256": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        f"has {len(whole) - 1} bytes instead of {len(whole)}": whole[:-1],
    }
    try:
        for message, content in damages.items():
            path.write_bytes(content)
            with pytest.raises(DamagedData, match=message) as refusal:
                verify_shards(store, dataset, [shard], content=True)
            assert "build the dataset again" in refusal.value.remedy
        path.unlink()
        with pytest.raises(DamagedData, match="is missing"):
            verify_shards(store, dataset, [shard], content=False)
    finally:
        path.write_bytes(whole)
    verify_shards(store, dataset, dataset.shards, content=True)
    other = dataset.model_copy(update={"tokenizer": dataset.tokenizer.model_copy(update={"sha256": "0" * 64})})
    with pytest.raises(DamagedData, match="was made by tokenizer"):
        verify_shards(store, other, [shard], content=True)


def test_held_out_windows_predict_every_token_once(store, dataset) -> None:
    documents = Documents(store, dataset.split("heldout"))
    limit = int(documents.lengths[:3].sum()) + 1
    held_out = choose(documents, limit, end_of_document=2)
    assert (held_out.count, held_out.tokens) == (3, limit - 1)
    assert held_out.text_bytes == documents.text_bytes[:3].sum()
    windows = held_out.windows(50)
    assert windows[0][0] == 2
    assert np.concatenate([row[1:] for row in windows]).tolist() == all_tokens(documents, range(3)).tolist()
    assert all(after[0] == before[-1] for before, after in pairwise(windows))
    assert choose(documents, 1, 2).count == 1
    assert choose(documents, None, 2).tokens == dataset.tokens("heldout")


def test_unigram_likelihood_is_that_of_smoothed_frequencies(store, dataset) -> None:
    held_out = choose(Documents(store, dataset.split("heldout")), None, 2)
    flat = unigram_nats(np.zeros(400, np.int64), held_out)
    assert flat == pytest.approx(held_out.tokens * np.log(400))
    counts = Documents(store, dataset.split("train")).frequencies(400)
    assert counts.sum() == dataset.tokens("train")
    assert unigram_nats(counts, held_out) < 0.9 * flat
