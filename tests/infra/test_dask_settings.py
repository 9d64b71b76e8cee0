"""Settings of Dask clusters: when workers leave their jobs."""

from typing import Literal

import pytest

from infra.dask_settings import JobQueueDask


@pytest.mark.parametrize(
    ("system", "walltime", "lifetime"),
    [
        ("slurm", "08:00:00", (27_600, 600)),
        ("slurm", "00:10:00", (540, 30)),
        ("pbs", "30:00", (1620, 90)),
        ("lsf", "08:00", (27_600, 600)),
    ],
)
def test_workers_leave_before_the_time_of_their_job_is_over(
    system: Literal["slurm", "pbs", "lsf"], walltime: str, lifetime: tuple[float, float]
) -> None:
    assert JobQueueDask(system=system, walltime=walltime).lifetime == lifetime


def test_lsf_is_told_no_seconds() -> None:
    assert JobQueueDask(system="lsf").time_limit == "08:00"
    assert JobQueueDask(system="lsf").lifetime == (27_600, 600)
    assert JobQueueDask(system="slurm").time_limit == "08:00:00"
