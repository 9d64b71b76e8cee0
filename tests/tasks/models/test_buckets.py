"""Buckets: ranges of a score, by bounds and by percentiles of each language."""

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.models.buckets import CCNET_BUCKETS, Bucket, BucketSettings, bucket_of, percentile_bounds

BY_BOUND = BucketSettings(
    buckets=(Bucket(name="high", bound=0.8), Bucket(name="middle", bound=0.3), Bucket(name="low"))
)


def test_a_bound_belongs_to_its_bucket() -> None:
    scores = [0.9, 0.8, 0.79, 0.3, 0.1, None, float("nan")]
    expected = ["high", "high", "middle", "middle", "low", None, None]
    assert bucket_of(scores, ["en"] * 7, BY_BOUND) == expected


def test_lower_may_be_better() -> None:
    given = BucketSettings(better="lower", buckets=(Bucket(name="head", bound=100), Bucket(name="middle", bound=200)))
    assert bucket_of([100, 150, 201], ["en"] * 3, given) == ["head", "middle", None]


def test_a_language_may_have_buckets_of_its_own() -> None:
    given = BY_BOUND.model_copy(update={"languages": {"de": (Bucket(name="high", bound=0.1),)}})
    assert bucket_of([0.2, 0.2, 0.2], ["en", "de", None], given) == ["low", "high", "low"]


def test_without_buckets_no_document_has_one() -> None:
    assert bucket_of([0.5, None], ["en", "de"], BucketSettings()) == [None, None]
    assert bucket_of([], [], BY_BOUND) == []


@pytest.mark.parametrize(
    "buckets",
    [
        (Bucket(name="a", bound=0.1), Bucket(name="b", bound=0.2)),
        (Bucket(name="a"), Bucket(name="b", bound=0.2)),
        (Bucket(name="a", bound=0.2), Bucket(name="a", bound=0.1)),
        (Bucket(name="a", percentile=60), Bucket(name="b", percentile=30)),
    ],
)
def test_buckets_in_another_order_are_refused(buckets: tuple[Bucket, ...]) -> None:
    with pytest.raises(ValidationError):
        BucketSettings(buckets=buckets)


def test_percentiles_cut_each_language() -> None:
    english, german = np.arange(1000.0), np.arange(1000.0) * 10
    scores = np.concatenate([english, german])
    languages = ["en"] * 1000 + ["de"] * 1000
    bounds = percentile_bounds(scores, languages, CCNET_BUCKETS)
    assert not bounds.by_percentile
    assert [each.bound for each in bounds.languages["en"]] == [299, 599, None]
    assert [each.bound for each in bounds.languages["de"]] == [2990, 5990, None]
    named = bucket_of(scores, languages, bounds)
    assert [named.count(name) for name in ("head", "middle", "tail")] == [600, 600, 800]


def test_bounds_do_not_depend_on_the_order_of_documents() -> None:
    random = np.random.default_rng(0)
    scores, languages = random.random(500), random.choice(["en", "de", "fr"], 500).tolist()
    order = random.permutation(500)
    shuffled = percentile_bounds(scores[order], [languages[row] for row in order], CCNET_BUCKETS)
    assert shuffled == percentile_bounds(scores, languages, CCNET_BUCKETS)


def test_rare_languages_take_the_bounds_of_all() -> None:
    scores = [*range(1000), *range(10)]
    languages = ["en"] * 1000 + ["is"] * 10
    bounds = percentile_bounds(scores, languages, CCNET_BUCKETS)
    assert set(bounds.languages) == {"en"}
    assert bucket_of([0.0], ["is"], bounds) == ["head"]


def test_scores_that_are_missing_do_not_count() -> None:
    bounds = percentile_bounds([None, 1.0, None, 2.0], ["en"] * 4, CCNET_BUCKETS)
    assert [each.bound for each in bounds.buckets] == [1, 2, None]
    assert not percentile_bounds([None], ["en"], CCNET_BUCKETS).by_percentile


def test_percentiles_must_be_bounds_before_documents_are_divided() -> None:
    with pytest.raises(ValueError, match="percentile_bounds"):
        bucket_of([1.0], ["en"], CCNET_BUCKETS)
