"""What every flow begins with."""

import inspect
from pathlib import Path

import pytest

from flows.beginning import begin
from flows.deployments import every_deployment
from infra.environment import Environment
from infra.errors import BadInput


def test_a_root_in_the_working_folder_of_a_worker_s_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert begin(Environment()).local_path("") == tmp_path / "gristmill-data", "a command's root is where it is given"
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "some")
    with pytest.raises(BadInput, match=r"environment\.root=gristmill-data: .*its working folder is temporary"):
        begin(Environment())
    assert begin(Environment(root=str(tmp_path))).root == str(tmp_path)


def test_every_flow_that_has_a_form_begins_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "some")
    for flow in {each.entrypoint: each.load() for each in every_deployment()}.values():
        needed = [each.name for each in inspect.signature(flow.fn).parameters.values() if each.default is each.empty]
        with pytest.raises(BadInput, match=r"environment\.root=gristmill-data"):
            flow.fn(**dict.fromkeys(needed, "some"))
    assert not list(tmp_path.iterdir())
