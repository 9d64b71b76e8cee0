"""The mixture on which training goes on from a champion."""

import pytest

from flows.refreshes.continuation import mixture
from infra.manifest import DatasetManifest, TokenShard
from tests.model.findings.contenders import DATASET


def dataset(version: str, tokens: int, name: str = "news") -> DatasetManifest:
    shard = TokenShard(path="x", split="train", documents=1, tokens=tokens, text_bytes=1, bytes=1, sha256="0")
    return DATASET.model_copy(update={"name": name, "version": version, "shards": (shard,)})


OLD, MIDDLE, NEW = dataset("2026.9", 600), dataset("2026.10", 100), dataset("2026.14", 300)


def weights(*given: object) -> dict[str, float]:
    return {f"{each.dataset}/{each.version}": each.weight or 0 for each in mixture(*given)}  # type: ignore[arg-type]


def test_what_the_champion_has_not_seen_has_its_share_and_the_rest_goes_by_tokens():
    both = weights(NEW, [OLD, MIDDLE, NEW], [OLD, MIDDLE], 0.3)
    assert both == pytest.approx({"news/2026.14": 0.3, "news/2026.9": 0.6, "news/2026.10": 0.1})
    missed = weights(NEW, [OLD, MIDDLE, NEW], [OLD], 0.4)
    assert missed == pytest.approx({"news/2026.10": 0.1, "news/2026.14": 0.3, "news/2026.9": 0.6})


def test_a_version_that_was_filled_in_later_is_not_new():
    assert "news/2026.9" not in weights(NEW, [OLD, MIDDLE, NEW], [MIDDLE], 0.5)


def test_other_datasets_of_the_champion_stay_in_the_mixture():
    other = dataset("1", 50, "books")
    assert weights(NEW, [NEW], [other], 0.5) == {"news/2026.14": 0.5, "books/1": 0.5}


def test_one_dataset_alone_needs_no_mixture():
    assert mixture(NEW, [NEW], [NEW], 0.5) == ()
    assert mixture(NEW, [OLD, NEW], [OLD], 1.0) == ()
