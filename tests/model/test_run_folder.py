"""Run folders: made once, refused when changed by hand."""

import json

import pytest

from infra.errors import BadInput, DamagedData
from infra.store import Store
from model.run import (
    RunRecord,
    named_run,
    open_run_folder,
    prepare_run,
    read_metrics,
    run_fingerprint,
    truncate_metrics,
)
from tests.model.small_runs import layout, small_training


def test_preparing_again_keeps_the_run_and_takes_the_new_layout(store, dataset) -> None:
    first = prepare_run(store, dataset, "twice", small_training())
    second = prepare_run(store, dataset, "twice", small_training(parallel=layout(tensor=2)))
    assert (
        second.folder == first.folder == f"runs/twice/2026.11.22-{run_fingerprint(first.training, dataset.fingerprint)}"
    )
    assert open_run_folder(store.local_path(first.folder))[1:] == (second, dataset)
    assert RunRecord.load(store, f"{first.folder}/run.json").training.parallel.tensor == 2


def test_other_settings_are_another_run(store, dataset) -> None:
    one, other = (prepare_run(store, dataset, "seeds", small_training(seed=seed)) for seed in (1, 2))
    assert one.folder != other.folder


def test_a_changed_run_json_is_refused_naming_the_field(store, dataset) -> None:
    run = prepare_run(store, dataset, "changed", small_training())
    path = store.local_path(f"{run.folder}/run.json")
    value = json.loads(path.read_text())
    value["training"]["optimizer"]["learning_rate"] = 1.0
    path.write_text(json.dumps(value))
    with pytest.raises(DamagedData, match=r"training\.optimizer\.learning_rate \(1\.0 instead of 0\.003\)"):
        prepare_run(store, dataset, "changed", small_training())
    with pytest.raises(DamagedData, match="its settings and dataset make fingerprint"):
        open_run_folder(path.parent)
    path.write_text("{")
    with pytest.raises(DamagedData, match="is not a RunRecord"):
        prepare_run(store, dataset, "changed", small_training())


def test_refuses_names_and_roots_that_cannot_be(store, dataset) -> None:
    with pytest.raises(BadInput, match="a run's name is a folder's name"):
        prepare_run(store, dataset, "../up", small_training())
    with pytest.raises(BadInput, match="Give a local --root"):
        prepare_run(Store("memory://root"), dataset, "remote", small_training())
    with pytest.raises(BadInput, match=r"holds no run\.json"):
        open_run_folder(store.local_path("runs/nothing/here"))


def test_ranks_elsewhere_say_themselves_what_they_have(store, dataset) -> None:
    training = small_training(fp8="hybrid", dtype="bfloat16")
    with pytest.raises(BadInput, match="without Transformer Engine"):
        prepare_run(store, dataset, "elsewhere", training)
    assert not store.exists("runs/elsewhere")
    assert named_run(store, dataset, "elsewhere", training).training == training
    assert not store.exists("runs/elsewhere")
    run = prepare_run(store, dataset, "elsewhere", training, elsewhere=True)
    assert store.exists(f"{run.folder}/run.json")


def test_metrics_are_cut_after_a_step_and_an_unfinished_line_is_dropped(tmp_path) -> None:
    rows = [{"step": step, "loss": 1.5} for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 4, "lo')
    assert read_metrics(tmp_path) == rows
    assert truncate_metrics(tmp_path, 2) == rows[:2] == read_metrics(tmp_path)
    (tmp_path / "none").mkdir()
    assert truncate_metrics(tmp_path / "none", 2) == []
