"""Refreshes as a team has them: of the mirror's two crawls, killed, at once, in Prefect, and with training after."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.cluster import Cluster
from infra.lock import only_one
from infra.manifest import dataset_versions, load_dataset
from infra.store import Store
from tests.flows.conftest import REPOSITORY
from tests.flows.small_crawls import Builder, Stopped, settings, write_crawls
from tests.flows.stacks import BIN, Stack, nested

pytestmark = pytest.mark.e2e

A, B, C = "CC-MAIN-2026-05", "CC-MAIN-2026-10", "CC-MAIN-2026-14"
MIRROR = ("CC-MAIN-2026-91", "CC-MAIN-2026-92")


def given(root: Path, mirror: Path, stack: Stack, **more: Any) -> dict[str, Any]:
    """Settings of a refresh of few pages."""
    values = {
        "refresh.dataset": "news",
        "refresh.corpus.source.base_url": str(mirror),
        "refresh.corpus.heldout.fraction": 0.3,
        "refresh.corpus.tokenizer.vocabulary_size": 600,
        "environment.root": str(root),
        "environment.scheduler": stack.dask,
        "environment.mlflow_tracking_uri": stack.mlflow,
    }
    return nested({**values, **more})


def command(values: Mapping[str, Any], folder: Path) -> list[str]:
    path = folder / "settings.json"
    path.write_text(json.dumps(values))
    return [str(BIN / "gristmill"), "refresh", "--config", str(path), "--json"]


def refresh(values: Mapping[str, Any], folder: Path, stack: Stack) -> dict[str, Any]:
    """Run the command and return what it prints."""
    done = subprocess.run(
        command(values, folder),
        env=dict(stack.environment),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return json.loads(done.stdout)


def killed_when(said: str, values: Mapping[str, Any], folder: Path, stack: Stack) -> None:
    """Run the command, and kill it and its children once its log says something."""
    log = folder / "killed.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command(values, folder), env=dict(stack.environment), cwd=REPOSITORY, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
    end = time.monotonic() + 600
    while said not in log.read_text():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def manifests(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.glob("datasets/*/*/manifest.json")}


@pytest.fixture(scope="module")
def first(stack: Stack, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a version of the mirror's first crawl."""
    folder = tmp_path_factory.mktemp("first")
    found = refresh(of_mirror(folder / "root", shared_data, stack, **{"refresh.budget.shards": 2}), folder, stack)
    assert [each["version"] for each in found["made"]] == ["2026.91"]
    assert found["pending"] == [MIRROR[1]]
    return folder / "root"


def of_mirror(root: Path, shared_data: Path, stack: Stack, **more: Any) -> dict[str, Any]:
    some = {
        "refresh.first_crawl": MIRROR[0],
        "refresh.corpus.source.shards": 2,
        "refresh.corpus.source.max_records": 80,
    }
    return given(root, shared_data / "commoncrawl", stack, **some, **more)


@pytest.fixture(scope="module")
def straight(first: Path, stack: Stack, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same root after a refresh that nobody stopped."""
    folder = tmp_path_factory.mktemp("straight")
    shutil.copytree(first, folder / "root")
    refresh(of_mirror(folder / "root", shared_data, stack), folder, stack)
    assert len(manifests(folder / "root")) == 2
    return folder / "root"


@pytest.mark.parametrize("said", ["refresh: news/2026.92 takes", "extract: 2/2", "ledger_counts: 2/2"])
def test_a_killed_refresh_goes_on_and_ends_with_the_same_bytes(
    first: Path, straight: Path, stack: Stack, shared_data: Path, tmp_path: Path, said: str
):
    shutil.copytree(first, tmp_path / "killed")
    values = of_mirror(tmp_path / "killed", shared_data, stack)
    killed_when(said, values, tmp_path, stack)
    (made,) = refresh(values, tmp_path, stack)["made"]
    assert (made["version"], made["crawl"], made["shards"]) == ("2026.92", MIRROR[1], 2)
    assert made["known"] > 0
    assert manifests(tmp_path / "killed") == manifests(straight)


def test_a_refresh_that_finds_nothing_new_says_so(straight: Path, stack: Stack, shared_data: Path, tmp_path: Path):
    before = manifests(straight)
    found = refresh(of_mirror(straight, shared_data, stack), tmp_path, stack)
    assert (found["made"], found["pending"], found["newest"]) == ([], [], "2026.92")
    assert "NothingNew" in {each["state_name"] for each in stack.flow_runs()}
    assert manifests(straight) == before


def test_a_second_refresh_is_refused_while_one_goes_on(stack: Stack, shared_data: Path, tmp_path: Path):
    root = tmp_path / "root"
    with only_one(Store(str(root)), "refreshes/news.lock", "a refresh"):
        done = subprocess.run(
            command(of_mirror(root, shared_data, stack), tmp_path),
            **{"env": dict(stack.environment), "cwd": REPOSITORY, "capture_output": True, "text": True, "timeout": 300},
        )
    assert done.returncode == 1
    assert "a refresh of news is under way already (process" in json.loads(done.stdout)["error"]["value"]
    assert not list(root.glob("datasets"))


def test_two_runs_of_the_deployment_wait_for_each_other(stack: Stack, tmp_path: Path):
    (tmp_path / "mirror").mkdir()
    write_crawls(tmp_path / "mirror", {A: [list(range(30))]})
    values = given(tmp_path / "root", tmp_path / "mirror", stack, **long_texts())
    started = [stack.start("refresh_corpus/default", values)["id"] for _ in range(2)]
    names = [stack.finished(each, 1200)["state_name"] for each in started]
    assert sorted(names) == ["Completed", "NothingNew"]
    assert dataset_versions(Store(str(tmp_path / "root")), "news") == ["2026.05"]


def long_texts() -> dict[str, Any]:
    """Filters that keep every text of fifty words."""
    quality = settings(Path("unused")).corpus.filter.quality
    return {"refresh.corpus.filter.quality": quality.model_dump(mode="json")}


TINY = {
    "dtype": "float32",
    "global_batch_size": 8,
    "micro_batch_size": 8,
    "duration": {"steps": 20},
    "optimizer": {"warmup_steps": 2},
    "model": {
        **{"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "num_query_groups": 2},
        **{"ffn_hidden_size": 128, "sequence_length": 64},
    },
}


def test_training_goes_on_from_the_champion_and_the_gate_decides(stack: Stack, tmp_path: Path):
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    mirror.mkdir()
    write_crawls(mirror, {A: [list(range(40))]})
    continuation = {
        **{"run": "continued", "duration": {"steps": 10}, "new_share": 0.4},
        **{"promotion": {"model": "news", "min_items": 2}, "optimizer": {"learning_rate": 1e-3, "warmup_steps": 2}},
    }
    values = given(root, mirror, stack, **long_texts())
    with_training = given(root, mirror, stack, **long_texts(), **{"refresh.continuation": continuation})
    refused = subprocess.run(
        command(with_training, tmp_path),
        **{"env": dict(stack.environment), "cwd": REPOSITORY, "capture_output": True, "text": True, "timeout": 300},
    )
    assert refused.returncode == 2
    assert "model news has no champion" in refused.stdout

    refresh(values, tmp_path, stack)
    pipeline = {"environment": values["environment"], "dataset": {"name": "news"}, "run": "base", "training": TINY}
    (tmp_path / "run.json").write_text(json.dumps(pipeline))
    (tmp_path / "promotion.json").write_text(
        json.dumps({"environment": values["environment"], "promotion": continuation["promotion"]})
    )
    for step in (["pretrain"], ["evaluate"]):
        gristmill([*step, "--config", str(tmp_path / "run.json")], stack)
    gristmill(["promote", "base", "--config", str(tmp_path / "promotion.json")], stack)

    write_crawls(mirror, {A: [list(range(40))], B: [list(range(30, 63))]})
    found = refresh(with_training, tmp_path, stack)
    assert [each["version"] for each in found["made"]] == ["2026.10"]
    done = found["continuation"]
    assert done["champion"].startswith("base/2026.05-")
    record = json.loads((root / done["run"] / "run.json").read_text())
    assert [(each["dataset"], each["version"], each["weight"]) for each in record["training"]["data"]["blend"]] == [
        ("news", "2026.10", 0.4),
        ("news", "2026.05", 0.6),
    ]
    assert record["training"]["start_from"].startswith("models/base-")
    assert "held-out bits per byte of news/2026.05" in json.dumps(verdict(root, done["run"]))
    assert done["promoted"] == verdict(root, done["run"])["promoted"]
    again = refresh(with_training, tmp_path, stack)
    assert (again["made"], again["continuation"]) == ([], None)


def gristmill(arguments: list[str], stack: Stack) -> None:
    done = subprocess.run(
        [str(BIN / "gristmill"), *arguments, "--json"],
        **{"env": dict(stack.environment), "cwd": REPOSITORY, "capture_output": True, "text": True, "timeout": 900},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def verdict(root: Path, run: str) -> dict[str, Any]:
    (path,) = (root / run / "promotion").glob("*.json")
    return json.loads(path.read_text())


# Without servers


@pytest.fixture
def builder(tmp_path: Path, cluster: Cluster) -> Builder:
    (tmp_path / "mirror").mkdir()
    return Builder(Store(str(tmp_path / "root")), cluster)


@pytest.mark.parametrize("where", ["build", "index", "report"])
def test_a_refresh_that_stops_anywhere_goes_on(builder: Builder, tmp_path: Path, cluster: Cluster, where: str):
    mirror = tmp_path / "mirror"
    write_crawls(mirror, {A: [list(range(12)), list(range(12, 24))], B: [list(range(6, 30))]})
    builder.run(settings(mirror, first_crawl=A, budget={"shards": 2}))
    stopped = Builder(builder.store, cluster, stop_at=where)
    with pytest.raises(Stopped):
        stopped.run(settings(mirror))
    assert len(dataset_versions(builder.store, "news")) == (1 if where == "build" else 2)
    (made,) = builder.run(settings(mirror))
    assert (made.version, made.shards, made.known) == ("2026.10", 1, 18)

    straight = Builder(Store(str(tmp_path / "straight")), cluster)
    straight.run(settings(mirror, first_crawl=A))
    assert manifests(tmp_path / "straight") == manifests(tmp_path / "root")


def test_a_backfill_takes_a_range_and_leaves_out_what_is_done(builder: Builder, tmp_path: Path):
    mirror = tmp_path / "mirror"
    write_crawls(mirror, {A: [[*range(8)]], B: [[*range(8, 20)]], C: [[*range(20, 32)]]})
    builder.run(settings(mirror, first_crawl=C))
    backfill = settings(mirror, backfill={"first": A, "last": C})
    builder.stop_at = "report"
    with pytest.raises(Stopped):
        builder.run(backfill)
    builder.stop_at = ""
    assert [each.version for each in builder.run(backfill)] == ["2026.05", "2026.10"]
    assert dataset_versions(builder.store, "news") == ["2026.05", "2026.10", "2026.14"], "the newest stays the newest"
    assert builder.run(backfill) == []
    found = [load_dataset(builder.store, "news", each) for each in dataset_versions(builder.store, "news")]
    assert len({each.tokenizer.sha256 for each in found}) == 1
