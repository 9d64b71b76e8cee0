"""What a newcomer does with two terminals and a browser: from `gristmill up` to a champion, by pages alone.

One terminal runs `gristmill up`; the other is not needed. In the browser a dataset is begun, its refresh is put on a
schedule and happens by itself when a new crawl appears, a model is trained on the newest version, evaluated and
promoted, and MLflow shows the champion.
"""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.browser import PrefectPage
from tests.flows.small_crawls import write_crawls
from tests.flows.stacks import Stack, ask, wait_until
from tests.tasks.documents import prose

pytestmark = pytest.mark.e2e
FIRST, SECOND = "CC-MAIN-2026-05", "CC-MAIN-2026-09"
DATASET = "weekly"


def write_first(mirror: Path) -> dict[str, list[range]]:
    half = len(prose()) // 2
    crawls = {FIRST: [range(0, half, 2), range(1, half, 2)]}
    write_crawls(mirror, crawls)
    return crawls


def fill_refresh(page: PrefectPage, mirror: Path) -> None:
    page.choose("Refresh / Corpus / Tokenizer", "Own values")
    page.choose("Refresh / Corpus / Heldout", "Own values")
    page.fill(
        {
            "Refresh / Dataset": DATASET,
            "Refresh / Corpus / Source / Base URL": str(mirror),
            "Refresh / Corpus / Tokenizer / Vocabulary size": "512",
            "Refresh / Corpus / Heldout / Fraction": "0.4",
        }
    )


def versions(stack: Stack) -> list[str]:
    return sorted(path.parent.name for path in (stack.root / "datasets" / DATASET).glob("*/manifest.json"))


def scheduled(stack: Stack) -> int:
    """Runs that a schedule started and that have ended well."""
    return sum(run["auto_scheduled"] and run["state_type"] == "COMPLETED" for run in stack.flow_runs())


def test_from_up_to_a_promoted_model(page: PrefectPage, stack: Stack, tmp_path: Path):
    mirror = tmp_path / "mirror"
    crawls = write_first(mirror)

    # A dataset begins with the newest crawl.
    page.open_form("refresh_corpus/default")
    fill_refresh(page, mirror)
    page.submit()
    page.expect_state("Completed")
    assert versions(stack) == ["2026.05"]

    # Its refresh is put on a schedule, and a new crawl appears: half of it is known already.
    page.add_schedule("refresh_corpus/default", "* * * * *", "refresh", lambda: fill_refresh(page, mirror))
    quarter = len(prose()) // 4
    write_crawls(mirror, crawls | {SECOND: [range(quarter, len(prose()), 2), range(quarter + 1, len(prose()), 2)]})
    wait_until(lambda: scheduled(stack) > 0 and versions(stack) == ["2026.05", "2026.09"], stack.log, 600)
    page.open_deployment("refresh_corpus/default")
    expect(page.page.get_by_text("Completed").first).to_be_visible()
    page.screenshot("scheduled")
    page.switch_off_schedules("refresh_corpus/default")
    (report,) = (stack.root / "datasets" / DATASET / "2026.09").glob("changes.html")
    assert "known" in report.read_text()

    # A model is trained on the newest version,
    page.open_form("pretrain/demo")
    page.fill({"Run": "person", "Dataset / Name": DATASET, "Training / Duration / Steps": "40"})
    run = page.submit()
    page.expect_state("Completed")
    page.open_run(run, tab="Artifacts")
    expect(page.page.get_by_text("mlflow-run").first).to_be_visible()
    page.screenshot("trained")

    # evaluated,
    page.open_form("evaluate/demo")
    page.fill({"Run": "person"})
    page.submit()
    page.expect_state("Completed")

    # and promoted.
    page.open_form("promote/default")
    page.fill({"Run": "person"})
    run = page.submit()
    page.expect_state("Completed")
    page.open_run(run, tab="Artifacts")
    page.screenshot("promoted")

    # MLflow shows the champion, and the way back to the flow run that trained it.
    page.page.goto(f"{stack.mlflow}/#/models/gristmill")
    expect(page.page.get_by_text("champion").first).to_be_visible()
    page.screenshot("champion")
    version = ask(f"{stack.mlflow}/api/2.0/mlflow/registered-models/alias?name=gristmill&alias=champion")
    tracked = ask(f"{stack.mlflow}/api/2.0/mlflow/runs/get?run_id={version['model_version']['run_id']}")["run"]
    tags = {each["key"]: each["value"] for each in tracked["data"]["tags"]}
    assert tags["dataset"] == f"{DATASET}/2026.09"
    page.page.goto(tags["prefect.flow_run_url"])
    expect(page.page.get_by_text(re.compile("pretrain")).first).to_be_visible()
    page.screenshot("back")
