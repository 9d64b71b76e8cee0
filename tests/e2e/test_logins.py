"""`gristmill up` with passwords."""

from pathlib import Path

import pytest
from distributed import Client, Security

from flows.servers.init import init, read_secrets
from flows.servers.stack import status
from tests.e2e.logins import ask, refused
from tests.flows.stacks import running_stack

pytestmark = pytest.mark.e2e


def test_both_servers_ask_for_logins_and_everything_registers(tmp_path: Path, clean_environment: dict[str, str]):
    init(tmp_path)
    secrets = read_secrets((tmp_path / ".env").read_text())
    (tmp_path / "root").mkdir()
    with running_stack(tmp_path / "root", clean_environment, f"secrets={tmp_path / '.env'}") as stack:
        deployments = f"{stack.api}/deployments/filter"
        assert refused(deployments, {}) == 401
        assert ask(deployments, {}, secrets["GRISTMILL_PREFECT_LOGIN"])
        experiments = f"{stack.mlflow}/api/2.0/mlflow/experiments/search"
        assert refused(experiments, {"max_results": 1}) == 401
        assert ask(experiments, {"max_results": 1}, f"admin:{secrets['GRISTMILL_MLFLOW_PASSWORD']}")["experiments"]
        assert (tmp_path / "root/mlflow_users.db").stat().st_mode & 0o077 == 0
        assert not any(each.trouble for each in status(str(tmp_path / "root")).services)
        known = ask(f"{stack.api}/deployments/name/build_corpus/default", None, secrets["GRISTMILL_PREFECT_LOGIN"])
        scheduler = known["parameters"]["environment"]["scheduler"]
        folder = tmp_path / "root/services/dask-certificates"
        files = {f"tls_{each.stem}": str(each) for each in folder.iterdir()}
        assert {each.stat().st_mode & 0o077 for each in (folder, *folder.iterdir())} == {0}
        with Client(scheduler, security=Security(require_encryption=True, **files), set_as_default=False) as client:
            assert client.submit(sum, [1, 2]).result() == 3
        with pytest.raises(OSError, match=r"."):
            Client(scheduler.replace("tls", "tcp"), timeout="5s", set_as_default=False)
    for file in (tmp_path / "root").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not any(value.rpartition(":")[2].encode() in content for value in secrets.values()), file
