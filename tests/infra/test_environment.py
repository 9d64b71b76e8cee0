"""Where the work is done."""

import pytest
from pydantic import ValidationError

from infra.environment import Environment


def test_memory_of_workers_is_what_dask_understands() -> None:
    assert [Environment(worker_memory=each).worker_memory for each in ("auto", "4GiB")] == ["auto", "4GiB"]
    with pytest.raises(ValidationError, match="Could not interpret 'apples'"):
        Environment(worker_memory="4 apples")
