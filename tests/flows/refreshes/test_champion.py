"""Champions that training could not go on from are refused before anything is built."""

from pathlib import Path
from typing import Any

import pytest

from flows.refreshes.champion import Champion, check_champion, open_champion
from flows.refreshes.settings import ContinuationSettings, RefreshSettings
from infra.environment import Environment
from infra.errors import BadInput
from infra.store import Store
from model.config import EvaluationSettings, ModelSettings
from tests.model.made_runs import made_dataset, made_evaluation, made_run
from tests.model.small_runs import layout, small_training


def check(root: Path, model: dict[str, Any] | None = None, dataset: str = "news", **changes: Any) -> None:
    """Check a champion that was trained on the dataset news."""
    store, training = Store(str(root)), small_training()
    own = made_dataset(store, "news", 5000, 100)
    made = ModelSettings.model_validate({**training.model.model_dump(), **(model or {})})
    run = made_run(store, own, "base", training.model_copy(update={"model": made, **changes}), (8,))
    made_evaluation(store, run, EvaluationSettings())
    refresh = RefreshSettings(dataset=dataset, continuation=ContinuationSettings())
    check_champion(store, Champion(run, own, 8), refresh, Environment(root=str(root)))


def test_a_champion_can_be_gone_on_from(tmp_path: Path):
    check(tmp_path)


def test_what_cannot_work_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match="normalization = LayerNorm"):
        check(tmp_path, {"normalization": "LayerNorm"})
    with pytest.raises(BadInput, match=r"is not that of dataset other.*one to be learned"):
        check(tmp_path, dataset="other")
    with pytest.raises(BadInput, match="parallel"):
        check(tmp_path, parallel=layout(tensor=8))
    with pytest.raises(BadInput, match="with root s3://"):
        open_champion(Store("s3://bucket/root"), "base", 8)


def test_a_champion_needs_its_checkpoint_and_its_evaluation(tmp_path: Path):
    store = Store(str(tmp_path))
    run = made_run(store, made_dataset(store, "news", 5000, 100), "base", small_training())
    champion = open_champion(store, "base", 8)
    refresh, environment = RefreshSettings(dataset="news", continuation=ContinuationSettings()), Environment()
    with pytest.raises(BadInput, match="no checkpoint of step 8 any more"):
        check_champion(store, champion, refresh, environment)
    store.write_bytes(f"{run.folder}/checkpoints/step-00000008/meta.json", b"{}")
    with pytest.raises(BadInput, match="has no evaluation of step 8"):
        check_champion(store, champion, refresh, environment)
