"""Training under every layout is the same training."""

import pytest

from infra.manifest import DatasetManifest
from infra.store import Store
from tests.model.small_runs import largest_difference, layout, small_training, train


@pytest.fixture(scope="module")
def one_process(store: Store, dataset: DatasetManifest) -> list[dict[str, float]]:
    return train(store, dataset, "one", small_training())


@pytest.mark.parametrize(
    "parallel",
    [layout(tensor=2, sequence_parallel=True), layout(pipeline=2), layout(data=2), layout(tensor=2, pipeline=2)],
    ids=["tensor-sequence", "pipeline", "data", "tensor-pipeline"],
)
def test_layouts_train_alike(parallel, one_process, store, dataset, request) -> None:
    rows = train(store, dataset, request.node.callspec.id, small_training(parallel=parallel))
    assert largest_difference(rows, one_process) < 1e-5
    assert largest_difference(rows, one_process, "gradient_norm") < 1e-4
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.2
