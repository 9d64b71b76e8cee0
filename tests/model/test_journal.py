"""What a run tells of itself: rows, lines, the summary and a trace."""

import json

import pytest

from infra.store import Store
from model.config import ProfileSettings
from model.run import finished_training, prepare_run, read_metrics
from tests.model.small_runs import launch, layout, small_training


def test_a_run_tells_how_fast_it_was(store: Store, dataset) -> None:
    settings = small_training(
        steps=5, parallel=layout(pipeline=2), profile=ProfileSettings(first_step=2, steps=2), peak_tflops=0.01
    )
    run = prepare_run(store, dataset, "speed", settings)
    lines: list[str] = []
    launch(store, run, on_line=lines.append)
    run_dir = store.local_path(run.folder)

    rows = read_metrics(run_dir)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    kinds = ("data", "compute", "communication", "optimizer", "checkpoint", "evaluation")
    for row in rows:
        assert row["devices"] == 2
        assert 0 < sum(row[f"{kind}_seconds"] for kind in kinds) <= row["seconds"] * 1.001
        assert row["tflops_per_device"] / 0.01 == pytest.approx(row["mfu"])

    summary = finished_training(store, run)
    assert summary is not None
    speed = summary.speed
    assert speed.device_hours == pytest.approx(2 * sum(row["seconds"] for row in rows) / 3600)
    assert sum(speed.seconds.values()) == pytest.approx(sum(row["seconds"] for row in rows))
    assert speed.mfu == pytest.approx(speed.tokens_per_second_per_device * speed.flops_per_token / 1e10)
    assert speed.memory_gib > 0.05

    (told,) = [line for line in lines if "step 4/5" in line]
    assert "TFLOP/s" in told
    assert "MFU" in told
    assert "left" in told
    assert any("device-hours" in line for line in lines)

    (trace,) = (run_dir / "profile").iterdir()
    assert trace.name == "steps-00000002-00000003-rank-0001.json"
    assert any(str(trace) in line for line in lines)
    assert any("backward" in str(event.get("name")).lower() for event in json.loads(trace.read_text())["traceEvents"])
