"""What many tests share: one Dask cluster for the session, and real input where it stands beside the checkout."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.cluster import Cluster, open_cluster
from infra.environment import Environment

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two worker processes."""
    with open_cluster(Environment(workers=2)) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real input; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real input is absent: no folder {SHARED_DATA}")
    return SHARED_DATA
