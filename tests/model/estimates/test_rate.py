"""The speed of earlier runs: of those alike, and of those that can be read."""

import logging
from typing import Any

import pytest

from infra.store import Store
from model.estimates.rate import Rate, earlier_rate
from model.run import TrainingSummary
from tests.model.made_runs import made_dataset, made_run
from tests.model.small_runs import small_training


def found(store: Store, **changes: Any) -> Rate | None:
    return earlier_rate(store, small_training(**changes), 400, None)


def test_runs_that_multiply_in_another_type_are_not_alike(tmp_path) -> None:
    store = Store(str(tmp_path))
    made_run(store, made_dataset(store, "small", 10_000, 100), "fast", small_training(fp8="hybrid"), (8,))
    assert found(store) is None
    assert found(store, transformer_engine="never", fp8="hybrid") is None
    rate = found(store, fp8="hybrid", seed=7)
    assert rate is not None
    assert rate.tokens_per_second_per_device == 1000


def test_evaluations_on_the_way_are_no_part_of_a_rate(tmp_path) -> None:
    store = Store(str(tmp_path))
    run = made_run(store, made_dataset(store, "small", 10_000, 100), "measured", small_training(), (8,))
    summary = TrainingSummary.load(store, f"{run.folder}/training.json")
    seconds = {"compute": 5.0, "checkpoint": 1.0, "evaluation": 6.0}
    speed = summary.speed.model_copy(update={"seconds": seconds})
    summary.model_copy(update={"speed": speed}).save(store, f"{run.folder}/training.json")
    rate = found(store)
    assert rate is not None
    assert rate.tokens_per_second_per_device == 2000


def test_a_run_that_cannot_be_read_is_passed_over(tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(str(tmp_path))
    dataset = made_dataset(store, "small", 10_000, 100)
    whole, *others = (made_run(store, dataset, name, small_training(), (8,)) for name in ("a", "b", "c", "d"))
    store.write_bytes(f"{others[0].folder}/training.json", b'{"steps": 8}')
    store.write_bytes(f"{others[1].folder}/run.json", b"{")
    store.remove(f"{others[2].folder}/run.json")
    with caplog.at_level(logging.WARNING):
        rate = found(store)
    assert rate is not None
    assert whole.folder in rate.source
    assert [each.folder in caplog.text for each in others] == [True] * 3
