"""Prefect's forms in a real browser: what they show and refuse, and a refresh from its form to MLflow and back."""

import json
import re
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from flows.deployments import every_deployment
from tests.e2e.browser import PrefectPage
from tests.e2e.flow_processes import until
from tests.flows.conftest import REPOSITORY
from tests.flows.small_crawls import write_crawls
from tests.flows.stacks import BIN, Stack, ask
from tests.tasks.documents import prose

pytestmark = pytest.mark.e2e
CRAWL = "CC-MAIN-2026-05"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source with one crawl."""
    folder = tmp_path_factory.mktemp("mirror")
    write_crawls(folder, {CRAWL: [range(0, len(prose()), 2), range(1, len(prose()), 2)]})
    return folder


@pytest.mark.parametrize("name", [f"{each.load().name}/{each.name}" for each in every_deployment()])
def test_a_form_has_words_for_everything(page: PrefectPage, name: str):
    page.open_form(name)
    labels = page.page.locator(".schema-form-property__label")
    expect(labels.last).to_be_visible()
    words = labels.all_inner_texts()
    page.screenshot(name.replace("/", "-"))
    assert len(words) > 5
    assert not [each for each in words if "_" in each or not each.strip()]
    assert page.page.get_by_text("Root (Optional)").is_visible()


def test_the_page_of_a_deployment_says_what_it_does(page: PrefectPage):
    page.open_deployment("crawl_to_model/demo", tab="Description")
    expect(page.page.get_by_text("Two CPU cores and a few minutes")).to_be_visible()


def test_registering_again_keeps_what_a_person_has_set(stack: Stack):
    address = f"{stack.api}/deployments/name/refresh_corpus/default"
    found = ask(address)
    (schedule,) = found["schedules"]
    assert not schedule["active"]
    overrides = {"refresh": {"dataset": "mine", "gone": 1}}
    switched = {"active": True, "parameters": overrides}
    patch(f"{stack.api}/deployments/{found['id']}/schedules/{schedule['id']}", switched)
    patch(f"{stack.api}/deployments/{found['id']}", {"concurrency_limit": 3, "description": "mine"})
    saved = {**found["parameters"], "refresh": {"dataset": "mine", "budget": {"bytes": 10**9}}}
    patch(f"{stack.api}/deployments/{found['id']}", {"parameters": saved})
    command = [str(BIN / "gristmill"), "register", "--root", str(stack.root)]
    subprocess.run(command, env=dict(stack.environment), cwd=REPOSITORY, check=True, timeout=600)
    again = ask(address)
    assert again["parameters"] == saved
    assert again["schedules"][0]["active"]
    assert again["schedules"][0]["parameters"] == {"refresh": {"dataset": "mine"}}, "but for what the form has no more"
    assert again["global_concurrency_limit"]["limit"] == 3
    assert again["description"] == found["description"], "texts are those of the code"
    assert again["parameters"]["environment"] == found["parameters"]["environment"]
    assert again["parameters"]["environment"]["mlflow_tracking_uri"] == stack.mlflow
    patch(f"{stack.api}/deployments/{found['id']}", {"parameters": found["parameters"]})
    chain = ask(f"{stack.api}/deployments/name/crawl_to_model/demo")["parameters"]["settings"]
    assert chain["environment"]["scheduler"] == stack.dask
    patch(f"{stack.api}/deployments/{found['id']}/schedules/{schedule['id']}", {"active": False, "parameters": {}})


def patch(url: str, body: dict[str, Any]) -> None:
    """Change something as the page does, again if Prefect's SQLite is busy (503)."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="PATCH")
    until(lambda: _answered(request), url, 60)


def _answered(request: urllib.request.Request) -> bool:
    try:
        with urllib.request.urlopen(request, timeout=60):
            return True
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise
        return False


def test_a_wrong_value_is_refused_with_its_reason(page: PrefectPage, stack: Stack):
    before = len(stack.flow_runs())
    page.open_form("build_corpus/default")
    page.choose("Corpus / Tokenizer", "Own values")
    page.fill({"Corpus / Tokenizer / Vocabulary size": "100"})
    page.press_submit()
    expect(page.page.get_by_text("100 is less than the minimum of 300").first).to_be_visible()
    page.screenshot("refused")
    assert len(stack.flow_runs()) == before


def test_what_cannot_work_together_fails_at_once_with_its_reason(page: PrefectPage, stack: Stack):
    page.open_form("crawl_to_model/demo")
    page.fill(
        {"Settings / Training / Model / Hidden size": "100", "Settings / Training / Model / Num attention heads": "3"}
    )
    run = page.submit()
    page.expect_state("Failed")
    page.screenshot("failed")
    found = stack.finished(run)
    assert "hidden_size" in found["state"]["message"]
    assert [each["id"] for each in stack.flow_runs() if each["parent_task_run_id"]] == [], "no corpus was begun"
    expect(page.page.get_by_text("hidden_size").first).to_be_visible()


def test_a_refresh_from_its_form_to_mlflow_and_back(page: PrefectPage, stack: Stack, mirror: Path):
    page.open_form("refresh_corpus/default")
    page.choose("Refresh / Budget / Shards", "Number")
    page.choose("Refresh / Corpus / Tokenizer", "Own values")
    page.choose("Refresh / Corpus / Heldout", "Own values")
    page.fill(
        {
            "Refresh / Dataset": "news",
            "Refresh / Budget / Shards": "2",
            "Refresh / Corpus / Source / Base URL": str(mirror),
            "Refresh / Corpus / Tokenizer / Vocabulary size": "512",
            "Refresh / Corpus / Heldout / Fraction": "0.1",
        }
    )
    page.screenshot("refresh-form")
    run = page.submit()
    page.expect_state("Completed")
    page.open_run(run, tab="Artifacts")
    expect(page.page.get_by_text("refresh", exact=True).first).to_be_visible()
    page.screenshot("refresh-artifacts")

    (build,) = [each["id"] for each in stack.flow_runs() if each["parent_task_run_id"]]
    (linked,) = [each["data"] for each in stack.artifacts() if each["key"] == "mlflow-corpus"]
    page.open_run(build, tab="Artifacts")
    expect(page.page.get_by_text("mlflow-corpus").first).to_be_visible()
    page.screenshot("mlflow-link")
    page.page.goto(re.findall(r"\((http[^)]+)\)", linked)[0])  # where the link goes, in the same tab
    expect(page.page.get_by_text("news").first).to_be_visible()
    page.screenshot("mlflow")
    back = page.page.get_by_text(re.compile("prefect.flow_run_url")).first
    expect(back).to_be_visible()
    assert build in page.page.content()
