"""Drawn histograms: bars and thresholds lie where their numbers are."""

import pytest

from infra.histograms import Bin, Histogram, Threshold, draw


def limit(value: float) -> Threshold:
    return Threshold(reason="r", signal="s", bound="min", value=value, setting="corpus.x", source="somebody")


def histogram(bins: list[Bin], *limits: float) -> Histogram:
    return Histogram(signal="s", bins=tuple(bins), thresholds=tuple(map(limit, limits)))


def ones(count: int) -> list[Bin]:
    return [Bin(lower=float(n), upper=float(n + 1), kept=1, dropped=0) for n in range(count)]


def test_bars_are_stacked_and_thresholds_lie_inside_their_bins():
    bins = [Bin(lower=float(n), upper=float(n + 1), kept=n, dropped=4 - n) for n in range(4)]
    drawn = draw(histogram(bins, 1.5))
    assert [mark.at for mark in drawn.marks] == [6 + 348 * 1.5 / 4]
    assert [bar.kept_height for bar in drawn.bars] == [0, 27.5, 55, 82.5]
    assert [bar.dropped_height for bar in drawn.bars] == [110, 82.5, 55, 27.5]
    assert {bar.dropped_y for bar in drawn.bars} == {20}
    assert (drawn.documents, drawn.dropped) == (16, 10)


def test_heights_are_square_roots_and_never_vanish():
    bins = [Bin(lower=0, upper=1, kept=1_000_000, dropped=0), Bin(lower=1, upper=2, kept=0, dropped=1)]
    bins.append(Bin(lower=2, upper=3, kept=250_000, dropped=0))
    heights = [bar.kept_height + bar.dropped_height for bar in draw(histogram(bins)).bars]
    assert heights == [110, 1.5, 55]


def test_empty_bins_have_no_bar():
    bins = [*ones(1), Bin(lower=1, upper=2, kept=0, dropped=0), Bin(lower=2, upper=3, kept=1, dropped=0)]
    assert [bar.x for bar in draw(histogram(bins)).bars] == [6, 238]


def test_labels_that_would_cover_each_other_are_left_out():
    drawn = draw(histogram(ones(40), 30, 10, 11))
    assert [mark.label for mark in drawn.marks] == ["10", "", "30"]


@pytest.mark.parametrize(("value", "place"), [(-5, 6), (0, 6), (2, 6 + 348), (99, 6 + 348)])
def test_thresholds_outside_stay_at_the_edge(value: float, place: float):
    assert draw(histogram(ones(2), value)).marks[0].at == place


def test_bins_may_be_open():
    bins = [Bin(lower=None, upper=0, kept=1, dropped=0), Bin(lower=0, upper=None, kept=1, dropped=2)]
    drawn = draw(histogram(bins, 7))
    assert [bar.title for bar in drawn.bars] == ["below to 0: 1 kept, 0 dropped", "0 to above: 1 kept, 2 dropped"]
    assert drawn.marks[0].at == 6 + 348 / 2


def test_nothing_to_draw_is_said():
    assert draw(histogram([])).summary == "s: no document"


@pytest.mark.parametrize(
    ("bound", "said"),
    [("min", "at least 5"), ("above", "more than 5"), ("max", "at most 5"), ("below", "less than 5")],
)
def test_bounds_are_said_as_what_passes(bound: str, said: str):
    assert Threshold.model_validate({**limit(5).model_dump(), "bound": bound}).text == said
