"""Plans of flows added up: what the disk has no room for."""

import shutil
from pathlib import Path

from flows.plans.flow_plan import FlowPlan, concluded
from infra.cost import Cost
from infra.environment import Environment


def test_all_that_is_kept_must_fit_together(tmp_path: Path):
    environment = Environment(root=str(tmp_path / "not" / "yet"))
    free = shutil.disk_usage(tmp_path).free

    def refused(stored: float) -> tuple[str, ...]:
        return concluded(FlowPlan(flow="ablate", cost=Cost(stored_bytes=stored), seconds=0), environment).refused

    assert not refused(free / 2)
    (reason,) = refused(2 * free)
    assert reason.startswith(f"{2 * free:,} bytes are needed under {environment.root}, ")
