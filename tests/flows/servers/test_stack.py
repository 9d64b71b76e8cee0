"""`gristmill up` and its kin, as far as no server is needed."""

from pathlib import Path

import pytest

from flows.servers.stack import Addresses, StackSettings, down, status, up
from infra.dask_settings import JobQueueDask
from infra.environment import Environment
from infra.errors import BadInput


def refuse(_: Addresses) -> None:
    raise AssertionError("nothing was to start")


def test_services_need_a_root_of_this_machine() -> None:
    settings = StackSettings(environment=Environment(root="memory://mill"))
    for command in (lambda: status("memory://mill"), lambda: down("memory://mill"), lambda: up(settings, refuse)):
        with pytest.raises(BadInput, match="root memory://mill"):
            command()


@pytest.mark.parametrize(
    "stated",
    [
        {"scheduler": "tcp://10.0.0.5:8786"},
        {"mlflow_tracking_uri": "http://mlflow.test"},
        {"dask": JobQueueDask(queue="cpu")},
    ],
)
def test_servers_of_others_are_refused(tmp_path: Path, stated: dict[str, object]) -> None:
    settings = StackSettings(environment=Environment(root=str(tmp_path)).model_copy(update=stated))
    with pytest.raises(BadInput, match=rf"environment\.{next(iter(stated))}="):
        up(settings, refuse)
    assert not list(tmp_path.iterdir())
