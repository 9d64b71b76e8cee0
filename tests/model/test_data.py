"""Token shards as samples: where tokens are read, the order, the rows, and the refusal of damaged files."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from infra.errors import BadInput, DamagedData
from infra.manifest import DatasetManifest
from infra.store import Store
from model.data.batches import empty_rows, fill_row, own_samples, to_batches
from model.data.documents import Documents
from model.data.order import SourceOrder, TrainingOrder
from model.data.packing import Pieces
from model.data.shards import verify_shards
from model.evaluation.heldout import choose, unigram_nats

END = 2


@pytest.fixture(scope="module")
def documents(store: Store, dataset: DatasetManifest) -> Documents:
    return Documents(store, dataset.split("train"))


def all_tokens(documents: Documents, order) -> np.ndarray:
    return np.concatenate([documents.read(int(n), 0, 1 << 30) for n in order])


def labels(documents: Documents, pieces: Pieces) -> list[int]:
    return [token for piece in zip(*pieces, strict=True) for token in documents.read(*map(int, piece)).tolist()]


def single(documents: Documents, seed: int = 3, packing: str = "cut") -> TrainingOrder:
    return TrainingOrder([SourceOrder(documents, 64, seed, packing)])


def test_documents_are_read_in_place(store, dataset, documents) -> None:
    shards = dataset.split("train")
    assert len(documents) == sum(shard.documents for shard in shards)
    assert documents.lengths.sum() == sum(shard.tokens for shard in shards)
    assert documents.text_bytes.sum() == sum(shard.text_bytes for shard in shards)
    table = store.read_table(shards[1].path)
    first_of_second = shards[0].documents
    assert documents.read(first_of_second, 0, 1 << 30).tolist() == table["tokens"][0].as_py()
    assert documents.read(first_of_second, 2, 3).tolist() == table["tokens"][0].as_py()[2:5]
    assert documents.name(first_of_second) == table["doc_id"][0].as_py()
    assert documents.shard(first_of_second) == shards[1]


def test_tokens_stay_in_the_mapped_file(store, dataset, documents) -> None:
    mapped = {shard.path: [] for shard in dataset.split("train")}
    for line in Path("/proc/self/maps").read_text().splitlines():
        for path, ranges in mapped.items():
            if line.endswith(str(store.local_path(path))):
                ranges.append(tuple(int(each, 16) for each in re.findall(r"\w+", line)[:2]))
    for document in range(len(documents)):
        address = documents.read(document, 1, 10).__array_interface__["data"][0]
        assert any(begin <= address < end for begin, end in mapped[documents.shard(document).path])


def test_frequencies_of_the_first_documents(documents) -> None:
    for count in (0, 1, documents.shards[0].documents + 3, None):
        chosen = range(len(documents))[:count]
        expected = np.bincount(np.concatenate([[0][:0], *(documents.read(n, 0, 1 << 30) for n in chosen)]).astype(int))
        assert documents.frequencies(400, count)[: len(expected)].tolist() == expected.tolist()
        assert documents.frequencies(400, count).sum() == documents.lengths[:count].sum()


def test_an_epoch_predicts_every_token_once(documents) -> None:
    source = single(documents).sources[0]
    epoch = [labels(documents, source.pieces(index)) for index in range(source.samples_per_epoch)]
    missing = documents.frequencies(400) - np.bincount(np.concatenate(epoch), minlength=400)
    assert missing.min() >= 0
    assert missing.sum() == documents.lengths.sum() - 64 * len(epoch) < 64
    second = [labels(documents, source.pieces(len(epoch) + index)) for index in range(len(epoch))]
    assert len(set(map(tuple, epoch)) & set(map(tuple, second))) < len(epoch) // 4


def test_order_depends_on_the_seed_alone(documents) -> None:
    one, same, other = (single(documents, seed) for seed in (3, 3, 4))
    jump = one.sources[0].samples_per_epoch + 5
    text = [labels(documents, order.sample(jump).pieces) for order in (same, one, other)]
    assert text[0] == text[1] != text[2]
    assert labels(documents, same.sample(2).pieces) == labels(documents, one.sample(2).pieces)


def test_copies_that_lie_next_to_each_other_are_spread(store, dataset) -> None:
    copies = Documents(store, dataset.split("train") * 2)  # document n and n + half are the same text
    source = SourceOrder(copies, 64, 3)
    half = len(copies) // 2
    turn = {}
    for index in range(source.samples_per_epoch):
        pieces = source.pieces(index)
        turn |= dict.fromkeys(pieces.documents[pieces.starts == 0].tolist(), index)
    apart = [abs(turn[n] - turn[n + half]) for n in range(half) if n in turn and n + half in turn]
    assert np.mean(apart) > source.samples_per_epoch / 5


@pytest.mark.parametrize(("micro", "ranks"), [(8, 1), (2, 2), (1, 8)])
def test_every_layout_takes_the_same_samples(micro, ranks) -> None:
    taken = [n for rank in range(ranks) for n in own_samples(40, 16, micro=micro, rank=rank, ranks=ranks)]
    assert sorted(taken) == list(range(40, 56))


@pytest.mark.parametrize("packing", ["cut", "best-fit"])
def test_rows_predict_each_token_from_the_one_before(documents, packing) -> None:
    source = single(documents, packing=packing).sources[0]
    numbers = list(range(12))
    rows = empty_rows(numbers, 64, documents=True)
    for number in numbers:
        fill_row(rows.values[:, number].numpy(), documents, source.pieces(number), END)
    batches = to_batches(rows, 3, torch.device("cpu"))
    assert [batch.samples.tolist() for batch in batches if batch.samples is not None] == [
        numbers[n : n + 3] for n in (0, 3, 6, 9)
    ]
    for number in numbers:
        batch, row = batches[number // 3], number % 3
        tokens, predicted, mask, ids = (
            getattr(batch, name)[row].tolist() for name in ("tokens", "labels", "mask", "documents")
        )
        place = 0
        for piece, (document, start, count) in enumerate(zip(*source.pieces(number), strict=True)):
            whole = documents.read(int(document), 0, 1 << 30).tolist()
            end = place + count
            assert predicted[place:end] == whole[start : start + count]
            assert tokens[place:end] == [END, *whole][start : start + count]
            assert ids[place:end] == [piece] * count
            place = end
        assert mask == [1] * place + [0] * (64 - place)
        assert ids[place:] == [-1] * (64 - place)
        assert predicted[place:] == [0] * (64 - place) == tokens[place:]
    assert batches[0].positions[1].tolist() == list(range(64))
    assert to_batches(empty_rows([0], 64, documents=False), 1, torch.device("cpu"))[0].documents is None


def test_too_little_text_is_refused(documents) -> None:
    with pytest.raises(BadInput, match=r"Lower model\.sequence_length"):
        SourceOrder(documents, int(documents.lengths.sum()) + 1, 1)


def test_damaged_shards_are_refused(store, dataset) -> None:
    shard = dataset.split("train")[0]
    path = store.local_path(shard.path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    damages = {
        "has SHA-256": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        f"has {len(whole) - 1} bytes instead of {len(whole)}": whole[:-1],
    }
    kept = path.with_name("kept")
    path.rename(kept)  # other tests have it mapped
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
        kept.rename(path)
    verify_shards(store, dataset, dataset.shards, content=True)
    other = dataset.model_copy(update={"tokenizer": dataset.tokenizer.model_copy(update={"sha256": "0" * 64})})
    with pytest.raises(DamagedData, match="was made by tokenizer"):
        verify_shards(store, other, [shard], content=True)


def test_held_out_windows_predict_every_token_once(store, dataset) -> None:
    documents = Documents(store, dataset.split("heldout"))
    limit = int(documents.lengths[:3].sum()) + 1
    held_out = choose(documents, limit, end_of_document=END)
    assert (held_out.count, held_out.tokens) == (3, limit - 1)
    assert held_out.text_bytes == documents.text_bytes[:3].sum()
    windows = held_out.windows(50)
    rows = empty_rows(range(windows.samples), 50, documents=False)
    for number in range(windows.samples):
        fill_row(rows.values[:, number].numpy(), documents, windows.pieces(number), END)
    (batch,) = to_batches(rows, windows.samples, torch.device("cpu"))
    assert batch.labels[batch.mask > 0].tolist() == all_tokens(documents, range(3)).tolist()
    assert batch.tokens[0, 0] == END
    assert batch.tokens[1:, 0].tolist() == batch.labels[:-1, -1].tolist()
    assert choose(documents, 1, 2).count == 1
    assert choose(documents, None, 2).tokens == dataset.tokens("heldout")


def test_unigram_likelihood_is_that_of_smoothed_frequencies(store, dataset) -> None:
    held_out = choose(Documents(store, dataset.split("heldout")), None, 2)
    flat = unigram_nats(np.zeros(400, np.int64), held_out)
    assert flat == pytest.approx(held_out.tokens * np.log(400))
    counts = Documents(store, dataset.split("train")).frequencies(400)
    assert counts.sum() == dataset.tokens("train")
    assert unigram_nats(counts, held_out) < 0.9 * flat
