"""What Prefect's pages say while a corpus is built, when one of its shards fails, and after Retry."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.flows.stacks import Stack, ask, nested
from tests.flows.test_end_to_end import SETTINGS
from tests.tasks.records import CRAWL

pytestmark = pytest.mark.e2e


@pytest.fixture
def parameters(stack: Stack, small_crawl: Path, tmp_path: Path) -> dict[str, Any]:
    corpus = {name: value for name, value in SETTINGS.items() if name.startswith("corpus.")}
    addresses = {
        "environment.root": str(tmp_path / "root"),
        "environment.scheduler": stack.dask,
        "environment.mlflow_tracking_uri": stack.mlflow,
        "environment.shard_retries": 0,
        "corpus.source.base_url": str(small_crawl),
        "corpus.source.crawl": CRAWL,
    }
    return nested(corpus | addresses)


def artifacts(stack: Stack, flow_run: str) -> dict[str, dict[str, Any]]:
    """The newest artifact of each key; Prefect makes some without any."""
    found = [each for each in stack.artifacts() if each["flow_run_id"] == flow_run and each["key"]]
    return {each["key"]: each for each in sorted(found, key=lambda each: each["created"])}


def task_runs(stack: Stack, flow_run: str) -> list[dict[str, Any]]:
    return ask(f"{stack.api}/task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run]}}})


def logs(stack: Stack, flow_run: str) -> list[dict[str, Any]]:
    asked = {"logs": {"flow_run_id": {"any_": [flow_run]}}, "limit": 200, "sort": "TIMESTAMP_ASC"}
    return ask(f"{stack.api}/logs/filter", asked)


def test_a_failed_shard_is_named_stops_no_other_and_is_all_that_retry_makes(
    stack: Stack, parameters: dict[str, Any], tmp_path: Path
):
    root = tmp_path / "root"
    run = stack.finished(stack.start("build_corpus/default", parameters)["id"])
    assert run["state_type"] == "COMPLETED", run
    shown = artifacts(stack, run["id"])
    assert shown["progress-extract"]["data"] == 100
    assert "extract: 3/3 shards" in shown["progress-extract"]["description"]
    assert "done" in shown["progress-extract"]["description"]
    (total, *shards) = json.loads(shown["shards-extract"]["data"])
    assert (total["shard"], total["state"], len(shards)) == ("all 3 shards", "3 done", 3)
    assert total["kept"] == sum(each["kept"] for each in shards) > 0
    (task,) = [each for each in task_runs(stack, run["id"]) if each["name"] == "extract"]
    assert shown["progress-extract"]["task_run_id"] == task["id"]
    assert f"[{stack.mlflow}]" in shown["links"]["data"]
    assert "/status]" in shown["links"]["data"]

    broken = next((root / "stages" / "fetch").glob("*/part-00001-of-00003.arrow"))
    whole = broken.read_bytes()
    for folder in (root / "stages").iterdir():
        if folder.name != "fetch":
            shutil.rmtree(folder)
    broken.write_bytes(bytes(len(whole)))
    failed = stack.finished(stack.start("build_corpus/default", parameters)["id"])
    assert failed["state_type"] == "FAILED"
    name = broken.relative_to(root).as_posix()
    assert f"1 of 3 shards failed: {name} (ArrowInvalid: Not an Arrow file)" in failed["state"]["message"]
    (task,) = [each for each in task_runs(stack, failed["id"]) if each["state_type"] == "FAILED"]
    assert name in task["state"]["message"]
    shown = artifacts(stack, failed["id"])
    (table,) = [json.loads(each["data"]) for key, each in shown.items() if key.startswith("shards-")]
    assert table[0]["state"] == "2 done, 1 failed"
    assert (table[1]["shard"], table[1]["why"]) == (name, "ArrowInvalid: Not an Arrow file")
    said = [each["message"] for each in logs(stack, failed["id"])]
    assert any(f"shard failed: {name}" in each for each in said)

    broken.write_bytes(whole)
    retry = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}  # what the button asks for
    ask(f"{stack.api}/flow_runs/{failed['id']}/set_state", retry)
    mended = stack.finished(failed["id"])
    assert (mended["state_type"], mended["run_count"]) == ("COMPLETED", 2)
    descriptions = {key: each["description"] for key, each in artifacts(stack, failed["id"]).items()}
    assert "found done, 3 shards" in descriptions["progress-fetch"]
    assert any("3/3 shards, 2 of them made before" in each for each in descriptions.values())
