"""A finished corpus that tests may read and must not change."""

import pytest

from infra.cluster import Cluster
from infra.store import Store
from tasks.stage import StageRunner
from tests.tasks.small_corpus import Small, build_small


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Small:
    """The corpus, its dataset small/1 and its stages."""
    root = tmp_path_factory.mktemp("small")
    return build_small(tmp_path_factory.mktemp("crawl"), StageRunner(Store(str(root)), cluster))
