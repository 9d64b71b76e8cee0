"""The system as a team runs it, by `gristmill up`: Prefect's server and worker, MLflow and Dask, all real."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows.config import PipelineSettings
from flows.deployments import every_deployment, prefect_yaml
from flows.presets import PRESETS
from flows.servers.stack import down, status
from infra.errors import BadInput, RunFailed
from infra.services import Services
from infra.store import Store
from infra.tracking import log_text, open_run
from tests.flows.conftest import REPOSITORY
from tests.flows.stacks import BIN, Stack, ask, call, nested, running_stack
from tests.flows.test_end_to_end import SETTINGS
from tests.tasks.records import CRAWL


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("team")
    (folder / "prefect").mkdir(mode=0o755)  # by a command of an earlier version
    return folder


@pytest.fixture(scope="module")
def team(root: Path, clean_environment: dict[str, str]) -> Iterator[Stack]:
    with running_stack(root, clean_environment) as stack:
        yield stack


def test_a_worker_runs_the_whole_chain(team: Stack, small_crawl: Path, tmp_path: Path):
    mlflow = team.mlflow
    settings = {
        **SETTINGS,
        "evaluation.prompts": ["The module "],
        "environment.root": str(tmp_path / "root"),
        "environment.mlflow_tracking_uri": mlflow,
        "corpus.source.base_url": str(small_crawl),
        "corpus.source.crawl": CRAWL,
        "training.dtype": "float32",
        "training.parallel.processes": 2,
        "training.parallel.tensor": 2,
    }
    parameters = json.dumps({"settings": nested(settings)})
    call(team.environment, "deployment", "run", "crawl_to_model/default", "--params", parameters, "--watch")
    runs = team.flow_runs()
    assert {run["state_type"] for run in runs} == {"COMPLETED"}
    assert len(runs) == 4  # the chain and the three flows that it is made of
    artifacts = {each["key"]: each for each in team.artifacts()}
    assert '"stage": "dedup"' in artifacts["corpus-funnel"]["data"]
    for watched in ("extract", "dedup", "training", "evaluation"):
        assert artifacts[f"progress-{watched}"]["data"] == 100, watched
    assert mlflow in artifacts["links"]["data"]
    assert mlflow in artifacts["mlflow-run"]["data"]
    logs = [each["message"] for each in ask(f"{team.api}/logs/filter", {"limit": 200})]
    assert any("filter:" in each for each in logs)
    assert any("step 30/30" in each for each in logs)
    experiments = f"{mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name=gristmill/"
    search = {"experiment_ids": [ask(f"{experiments}pretraining")["experiment"]["experiment_id"]]}
    (run,) = ask(f"{mlflow}/api/2.0/mlflow/runs/search", search)["runs"]
    tags = {each["key"]: each["value"] for each in run["data"]["tags"]}
    assert run["info"]["status"] == "FINISHED"
    assert tags["prefect.flow_run_id"] in {each["id"] for each in runs}
    assert tags["prefect.flow_run_url"].startswith("http://127.0.0.1")
    listed = ask(f"{mlflow}/api/2.0/mlflow/artifacts/list?run_id={run['info']['run_id']}")
    assert "report.html" in {each["path"] for each in listed["files"]}


def test_the_file_of_deployments_is_the_list():
    written = (REPOSITORY / "infra/prefect.yaml").read_text()
    assert written == prefect_yaml(), "python -m flows.deployments > infra/prefect.yaml"


def test_every_deployment_says_what_it_is_and_has_values_that_its_flow_takes():
    for each in every_deployment():
        assert each.description.count("**") >= 4, each.entrypoint
        flow = each.load()
        typed = {name: {"run": "one", "runs": ("one", "two")}[name] for name in flow.parameters.required or ()}
        flow.validate_parameters({**each.form({"root": "somewhere"}), **typed})


def test_a_preset_is_what_its_form_is_filled_in_with():
    forms = {(each.entrypoint, each.name): each.parameters for each in every_deployment()}
    for name in set(PRESETS) - {"default"}:
        settings = forms["flows.end_to_end:crawl_to_model", name]["settings"]
        assert PipelineSettings.model_validate(settings) == PRESETS[name]()
        assert "retries" not in settings["corpus"]["source"]  # a default is not filled in


def test_what_is_listed_is_registered_and_can_be_deployed_from_the_file(team: Stack):
    flows = {each["id"]: each["name"] for each in ask(f"{team.api}/flows/filter", {})}
    found = {f"{flows[each['flow_id']]}/{each['name']}": each for each in ask(f"{team.api}/deployments/filter", {})}
    listed = {f"{each.load().name}/{each.name}": each for each in every_deployment()}
    assert set(found) == set(listed)
    for name, each in found.items():
        assert each["entrypoint"] == listed[name].entrypoint.replace(":", ".")
        assert not any(schedule["active"] for schedule in each["schedules"])
    call(team.environment, "--no-prompt", "deploy", "--prefect-file", "infra/prefect.yaml", "--name", "cc-en")


def test_a_wrong_value_is_refused_before_anything_starts(team: Stack):
    parameters = json.dumps({"corpus": {"heldout": {"min_wrods": 3}}})
    command = [str(BIN / "prefect"), "deployment", "run", "build_corpus/default", "--params", parameters]
    done = subprocess.run(command, env=team.environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "min_wrods" in done.stdout


def test_status_says_what_runs_and_down_stops_all_of_it(team: Stack, root: Path):
    """The last test of this module."""
    closed = [root / name for name in ("prefect", "prefect/prefect.db", "mlflow.db")]
    assert {each.stat().st_mode & 0o077 for each in closed} == {0}
    services = status(str(root)).services
    names = ["prefect-server", "mlflow-server", "dask-scheduler", "dask-workers", "prefect-worker"]
    assert [each.name for each in services] == names
    assert not any(each.trouble for each in services)
    family = [each for one in services for each in (psutil.Process(one.pid), *psutil.Process(one.pid).children(True))]
    with pytest.raises(RunFailed, match="run already"):
        Services(root / "services").__enter__()

    store = Store(str(root))
    open_run(store, team.mlflow, "shared", "beside")
    assert not down(str(root)).services
    log_text(open_run(store, None, "shared", "alone"), "a page", "page.md")  # a command without servers
    assert [each.read_text() for each in (root / "mlflow-artifacts").rglob("page.md")] == ["a page"]
    assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family)
    assert "Nothing runs" in status(str(root)).text()
    with pytest.raises(BadInput, match="no service of"):
        down(str(root))
