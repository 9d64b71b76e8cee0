"""On what training goes on from a champion, and when."""

from pathlib import Path

import pytest

from flows.refreshes.champion import Champion
from flows.refreshes.continuation import (
    ContinuationRecord,
    continue_from_champion,
    finish_continuation,
    mixture,
    unseen,
)
from flows.refreshes.history import RefreshRecord, record_path
from flows.refreshes.settings import ContinuationSettings, RefreshSettings
from infra.environment import Environment
from infra.errors import BadInput
from infra.manifest import DatasetManifest, TokenShard
from infra.store import Store
from tests.model.findings.contenders import DATASET
from tests.model.made_runs import made_run
from tests.model.small_runs import small_training


def dataset(version: str, tokens: int, name: str = "news") -> DatasetManifest:
    shard = TokenShard(path="x", split="train", documents=1, tokens=tokens, text_bytes=1, bytes=1, sha256="0")
    return DATASET.model_copy(update={"name": name, "version": version, "shards": (shard,)})


OLD, MIDDLE, NEW = dataset("2026.9", 600), dataset("2026.10", 100), dataset("2026.14", 300)


def weights(versions: list[DatasetManifest], seen: list[DatasetManifest], new_share: float) -> dict[str, float]:
    found = mixture(unseen(versions, seen), seen, new_share)
    return {f"{each.dataset}/{each.version}": each.weight or 0 for each in found}


def test_what_the_champion_has_not_seen_has_its_share_and_the_rest_goes_by_tokens():
    both = weights([OLD, MIDDLE, NEW], [OLD, MIDDLE], 0.3)
    assert both == pytest.approx({"news/2026.14": 0.3, "news/2026.9": 0.6, "news/2026.10": 0.1})
    missed = weights([OLD, MIDDLE, NEW], [OLD], 0.4)
    assert missed == pytest.approx({"news/2026.10": 0.1, "news/2026.14": 0.3, "news/2026.9": 0.6})


def test_a_version_that_was_filled_in_later_is_not_new():
    assert "news/2026.9" not in weights([OLD, MIDDLE, NEW], [MIDDLE], 0.5)


def test_other_datasets_of_the_champion_stay_in_the_mixture():
    other = dataset("1", 50, "books")
    assert weights([NEW], [other], 0.5) == {"news/2026.14": 0.5, "books/1": 0.5}


def test_one_dataset_alone_needs_no_mixture():
    assert mixture([NEW], [OLD], 1.0) == ()


REFRESH = RefreshSettings(dataset="news", continuation=ContinuationSettings())


def champion(store: Store) -> Champion:
    for each in (OLD, NEW):
        each.save(store, f"{each.folder}/manifest.json")
        RefreshRecord(crawl="C", first_shard=0, shards=1, end=1).save(store, record_path(each.name, each.version))
    return Champion(made_run(store, NEW, "base", small_training()), NEW, 8)


def test_nothing_is_trained_on_what_the_champion_has_seen(tmp_path: Path):
    store, environment = Store(str(tmp_path)), Environment(root=str(tmp_path))
    assert continue_from_champion(store, REFRESH, champion(store), environment) is None
    assert not store.exists(f"{NEW.folder}/continuation.json"), "a champion that has not seen it may come"


def test_what_a_stopped_refresh_began_is_finished_first(tmp_path: Path):
    store, environment = Store(str(tmp_path)), Environment(root=str(tmp_path))
    assert finish_continuation(store, REFRESH, environment) is None
    begun = ContinuationRecord(champion="runs/gone/1-a", step=8)
    champion(store)
    begun.save(store, f"{OLD.folder}/continuation.json")
    with pytest.raises(BadInput, match="run runs/gone/1-a"):  # what would be trained on from
        finish_continuation(store, REFRESH, environment)
    begun.model_copy(update={"promoted": False}).save(store, f"{NEW.folder}/continuation.json")
    assert finish_continuation(store, REFRESH, environment) is None, "the last one counts"
