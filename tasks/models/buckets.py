"""Buckets: names for ranges of a score, such as high, middle and low, by which documents are weighed in a mixture.

Bounds are numbers, or percentiles that are turned into numbers for each language once the scores are known
(`percentile_bounds`), as CCNet (Wenzek et al. 2020) cuts perplexity into head, middle and tail.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from infra.settings import Settings


class Bucket(Settings):
    """A range of the score that ends where the bucket before it begins."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name that documents carry and weights refer to."""
    bound: float | None = Field(default=None, allow_inf_nan=False)
    """Worst score that still belongs here; unset, with percentile unset too, takes all that is left."""
    percentile: float | None = Field(default=None, gt=0, le=100)
    """Instead of a bound: percent of a language's documents that are here or in better buckets."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Bucket":
        if self.bound is not None and self.percentile is not None:
            raise ValueError(f"bucket {self.name!r} has a bound and a percentile: leave one of them out")
        return self


class BucketSettings(Settings):
    """How documents are divided by a score."""

    score: str = "quality"
    """Signal that decides."""
    better: Literal["higher", "lower"] = "higher"
    """Which end of the score is good: higher for classifiers, lower for perplexity."""
    buckets: tuple[Bucket, ...] = ()
    """Buckets, best first; none leaves documents without one."""
    languages: dict[str, tuple[Bucket, ...]] = Field(default={})
    """Buckets of single languages, in place of the above."""
    min_documents: int = Field(default=100, ge=1)
    """Languages with fewer scored documents take the percentiles of all documents together."""

    @model_validator(mode="after")
    def _best_first(self) -> "BucketSettings":
        for buckets in (self.buckets, *self.languages.values()):
            for kind in ("bound", "percentile"):
                limits = [limit for each in buckets if (limit := getattr(each, kind)) is not None]
                falling = kind == "bound" and self.better == "higher"
                if limits != sorted(limits, reverse=falling):
                    raise ValueError(f"buckets go from best to worst: their {kind}s {limits} do not")
            if len({each.name for each in buckets}) < len(buckets):
                raise ValueError("two buckets have the same name")
            if any(each.bound is None and each.percentile is None for each in buckets[:-1]):
                raise ValueError("only the last bucket can do without a bound: it takes all that is left")
        return self

    @property
    def by_percentile(self) -> bool:
        """Whether percentiles have to be turned into bounds first."""
        return any(each.percentile is not None for group in (self.buckets, *self.languages.values()) for each in group)


CCNET_BUCKETS = BucketSettings(
    score="perplexity",
    better="lower",
    buckets=(Bucket(name="head", percentile=30), Bucket(name="middle", percentile=60), Bucket(name="tail")),
)
"""CCNet's division by perplexity."""


def bucket_of(
    scores: Sequence[float | None] | np.ndarray, languages: Sequence[str | None], settings: BucketSettings
) -> list[str | None]:
    """The bucket of each document; None where it has no score or is worse than every bound. Bounds belong inside."""
    values = _numbers(scores)
    named = np.full(len(values), None, object)
    groups = np.array([each if each in settings.languages else "" for each in languages], object)
    for group in sorted(set(groups)):
        rows = np.flatnonzero((groups == group) & ~np.isnan(values))
        for bucket in reversed(settings.languages.get(group, settings.buckets)):
            named[rows[_within(values[rows], bucket, settings)]] = bucket.name
    return named.tolist()


def percentile_bounds(
    scores: Sequence[float | None] | np.ndarray, languages: Sequence[str | None], settings: BucketSettings
) -> BucketSettings:
    """The settings with percentiles as bounds, for each language of min_documents and for all documents together.

    Nearest ranks, so a bound is a score that occurs; the order of documents does not matter.
    """
    values = _numbers(scores)
    codes = np.array([each or "" for each in languages], object)[~np.isnan(values)]
    values = values[~np.isnan(values)]
    found: dict[str, tuple[Bucket, ...]] = {}
    for code in sorted(set(codes) | set(settings.languages)):
        own = values[codes == code]
        buckets = settings.languages.get(code, settings.buckets)
        if code and (len(own) >= settings.min_documents or code in settings.languages):
            found[code] = _bounded(own if len(own) >= settings.min_documents else values, buckets, settings)
    common = _bounded(values, settings.buckets, settings)
    return settings.model_copy(update={"buckets": common, "languages": found})


def _numbers(scores: Sequence[float | None] | np.ndarray) -> np.ndarray:
    return np.array(scores, dtype=np.float64)  # None becomes NaN


def _within(values: np.ndarray, bucket: Bucket, settings: BucketSettings) -> np.ndarray:
    if bucket.percentile is not None:
        raise ValueError(f"bucket {bucket.name!r} has a percentile: percentile_bounds comes first")
    if bucket.bound is None:
        return np.ones(len(values), bool)
    return values >= bucket.bound if settings.better == "higher" else values <= bucket.bound


def _bounded(values: np.ndarray, buckets: tuple[Bucket, ...], settings: BucketSettings) -> tuple[Bucket, ...]:
    ranked = np.sort(values)[:: -1 if settings.better == "higher" else 1]
    bounded = []
    for bucket in buckets:
        if bucket.percentile is not None and len(ranked):
            rank = math.ceil(bucket.percentile / 100 * len(ranked))
            bucket = Bucket(name=bucket.name, bound=float(ranked[max(rank, 1) - 1]))
        elif bucket.percentile is not None:  # nothing is scored, so nothing will be compared
            bucket = Bucket(name=bucket.name, bound=0.0)
        bounded.append(bucket)
    return tuple(bounded)
