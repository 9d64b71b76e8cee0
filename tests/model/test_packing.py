"""Packing, blending and skipping: arithmetic on lengths and numbers alone."""

import numpy as np
import pytest

from model.data import blend
from model.data.blend import Blend
from model.data.packing import BestFit, BestFitEpoch, CutEpoch
from model.data.skips import place_of, skip


def random_lengths(count: int, median: float = 30) -> np.ndarray:
    return np.random.RandomState(count).lognormal(np.log(median), 1.2, count).astype(np.int64)


def times_covered(lengths: np.ndarray, epoch, length: int) -> np.ndarray:
    """How often each token of the documents is in a sample."""
    times, first = np.zeros(lengths.sum(), int), np.cumsum(lengths) - lengths
    for sample in range(epoch.samples):
        pieces = epoch.pieces(sample)
        assert 0 < pieces.counts.sum() <= length
        assert pieces.counts.min() > 0
        for document, start, count in zip(*pieces, strict=True):
            assert start + count <= lengths[document]
            times[first[document] + start : first[document] + start + count] += 1
    return times


@pytest.mark.parametrize("count", [1, 2, 40, 700])
@pytest.mark.parametrize("length", [8, 64, 500])
def test_best_fit_has_every_token_once_and_cuts_long_documents_only(count, length) -> None:
    lengths = random_lengths(count)
    plan = BestFit(lengths, length)
    for seed in (1, 2):
        order = np.random.RandomState(seed).permutation(count)
        epoch = BestFitEpoch(plan, lengths, order)
        assert (times_covered(lengths, epoch, length) == 1).all()
        for sample in range(epoch.samples):
            pieces = epoch.pieces(sample)
            whole = (pieces.starts == 0) & (pieces.counts == lengths[pieces.documents])
            assert (whole | (lengths[pieces.documents] > length)).all()
    assert plan.padding_share == 1 - lengths.sum() / (plan.samples * length)
    if count == 700:
        assert plan.padding_share < 0.05


def reference_best_fit(sizes: list[int], length: int) -> int:
    """Bins by the textbook's algorithm, one piece at a time."""
    rooms: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [room for room in rooms if room >= size]
        if fitting:
            rooms.remove(min(fitting))
            rooms.append(min(fitting) - size)
        else:
            rooms.append(length - size)
    return len(rooms)


@pytest.mark.parametrize("seed", range(5))
def test_best_fit_needs_as_many_samples_as_the_textbook(seed) -> None:
    sizes = np.random.RandomState(seed).randint(1, 64, 300)
    assert BestFit(sizes, 64).samples == reference_best_fit(sizes.tolist(), 64)


def test_which_documents_share_a_sample_changes_with_the_order() -> None:
    lengths = np.full(200, 10)
    plan = BestFit(lengths, 40)
    one, other = (BestFitEpoch(plan, lengths, np.random.RandomState(seed).permutation(200)) for seed in (1, 2))
    assert plan.padding_share == 0
    sets = [{frozenset(each.pieces(n).documents.tolist()) for n in range(50)} for each in (one, other)]
    assert len(sets[0] & sets[1]) < 5


def test_cut_loses_nothing_but_the_rest() -> None:
    lengths = random_lengths(100)
    lengths[[3, 50, 51]] = 0
    order = np.random.RandomState(1).permutation(100)
    times = times_covered(lengths, CutEpoch(lengths, order, 64), 64)
    assert (times <= 1).all()
    assert (times == 0).sum() == lengths.sum() % 64
    assert (times_covered(lengths, CutEpoch(lengths, order, 64, keep_rest=True), 64) == 1).all()


@pytest.mark.parametrize("weights", [(0.7, 0.3), (5, 1, 1, 0.01), (1, 1, 1), (2,)])
def test_every_beginning_of_a_blend_keeps_the_weights(weights) -> None:
    merged = Blend(weights)
    taken = np.zeros(len(weights), int)
    for place in range(40_000):
        source, element = merged.at(place)
        assert element == taken[source], "each dataset's samples come in their own order"
        taken[source] += 1
        assert abs(taken - (place + 1) * np.array(merged.shares)).max() < 1 + len(weights) / 2
    assert sum(merged.shares) == pytest.approx(1)


def test_a_blend_is_the_same_wherever_it_is_entered(monkeypatch) -> None:
    whole = [Blend((0.6, 0.3, 0.1)).at(place) for place in range(3000)]
    monkeypatch.setattr(blend, "_BLOCK", 37)
    small = Blend((0.6, 0.3, 0.1))
    assert [small.at(place) for place in reversed(range(3000))] == whole[::-1]
    assert Blend((3, 1)).at(4 * 10**11)[1] in (10**11, 3 * 10**11)


def test_skipped_places_are_taken_by_nobody() -> None:
    skips = skip((), 10, 20)
    assert skips == ((10, 20),)
    assert [place_of(sample, skips) for sample in (0, 9, 10, 11)] == [0, 9, 20, 21]
    further = skip(skips, 10, 14)  # what came instead is left out as well
    assert further == ((10, 24),)
    apart = skip(further, 30, 35)
    assert apart == ((10, 24), (44, 49))
    taken = [place_of(sample, apart) for sample in range(60)]
    assert taken == [place for place in range(79) if not (10 <= place < 24 or 44 <= place < 49)]
    around = skip(apart, 8, 30)
    assert around == ((8, 49),)
    assert skip(apart, 5, 5) == apart
