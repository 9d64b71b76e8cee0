"""The whole chain as a newcomer starts it: one command, real parts, a small crawl."""

import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.manifest import load_dataset
from infra.report import Report
from infra.store import Store
from tests.flows.conftest import REPOSITORY
from tests.tasks.documents import prose
from tests.tasks.records import CRAWL

SETTINGS = {
    "training.duration.steps": 30,
    "training.global_batch_size": 8,
    "training.micro_batch_size": 4,
    "training.model.hidden_size": 64,
    "training.model.num_layers": 2,
    "training.model.ffn_hidden_size": 128,
    "training.model.sequence_length": 64,
    "corpus.tokenizer.vocabulary_size": 512,
    "corpus.heldout.fraction": 0.1,
    "evaluation.prompts": "['The module ']",
    "evaluation.sample_tokens": 8,
}


def gristmill(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "gristmill"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=REPOSITORY, timeout=400)


def demo(root: Path, crawl: Path, environment: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    assignments = [part for path, value in SETTINGS.items() for part in ("--set", f"{path}={value}")]
    source = ["--base-url", str(crawl), "--crawl", CRAWL]
    return gristmill("demo", "--root", str(root), *source, *assignments, "--json", *more, environment=environment)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def report(root: Path, small_crawl: Path, clean_environment: dict[str, str]) -> Report:
    done = demo(root, small_crawl, clean_environment)
    assert done.returncode == 0, done.stderr[-3000:]
    for stage in ("fetch", "select", "extract", "signals", "filter", "dedup", "redact", "tokenizer", "tokenization"):
        assert f"{stage}: " in done.stderr, f"no progress line of {stage}"
    assert "tokens/s" in done.stderr
    return Report.model_validate_json(done.stdout)


def test_the_report_accounts_for_every_page(report: Report):
    assert report.records.read == report.records.documents == len(prose())
    assert [stage.name for stage in report.stages] == [
        *("fetch", "select", "extract", "signals", "filter", "dedup", "redact", "tokenizer", "tokenization")
    ]
    for before, after in zip(report.stages, report.stages[1:], strict=False):
        assert before.kept == after.entered
    assert report.tokens > 5_000
    assert (report.layout.tp, report.layout.pp, report.layout.dp) == (1, 1, 2)


def test_training_helped(report: Report):
    assert report.loss.last < report.loss.first
    assert report.bits_per_byte is not None
    assert report.bits_per_byte.trained < report.bits_per_byte.untrained
    assert report.samples[0].prompt == "The module "


def test_files_stand_where_the_readme_says(root: Path, report: Report):
    dataset = load_dataset(Store(str(root)), "demo")
    assert dataset.fingerprint == report.dataset.fingerprint
    (run,) = (root / "runs/demo").iterdir()
    for name in ("run.json", "metrics.jsonl", "training.json", "report.json", "report.html"):
        assert (run / name).is_file(), name
    assert json.loads((run / "report.json").read_text())["stages"][0]["in"] == report.stages[0].entered


def test_prefect_and_mlflow_point_at_each_other(root: Path, report: Report):
    with sqlite3.connect(root / "mlflow.db") as tracked:
        tags = dict(tracked.execute("select key, value from tags where run_uuid = ?", (report.mlflow_run_id,)))
        digests = [row[0] for row in tracked.execute("select digest from datasets")]
        metrics = {row[0] for row in tracked.execute("select distinct key from metrics")}
    with sqlite3.connect(root / "prefect/prefect.db") as flows:
        states = dict(flows.execute("select id, state_type from flow_run"))
        linked = [row[0] for row in flows.execute("select data from artifact where key = 'mlflow-run'")]
        names = [row[0] for row in flows.execute("select name from task_run where name not like 'stage-%'")]
    assert report.prefect_flow_run_id in states
    assert set(states.values()) == {"COMPLETED"}
    assert tags["prefect.flow_run_id"] in states
    assert len(linked) == 1
    assert str(report.mlflow_run_id) in linked[0]
    assert tags["dataset"] == f"demo/{report.dataset.version}"
    assert set(digests) == {report.dataset.fingerprint}
    assert {"loss", "learning_rate", "gradient_norm", "tokens_per_second", "tokens"} <= metrics
    assert {"fetch", "dedup", "tokenize", "model.train", "model.evaluate"} <= set(names)


def test_a_second_run_finds_everything_done(
    root: Path, report: Report, small_crawl: Path, clean_environment: dict[str, str]
):
    before = time.time()
    done = demo(root, small_crawl, clean_environment)
    assert done.returncode == 0
    assert "done already" in done.stderr
    assert Report.model_validate_json(done.stdout) == report
    changed = [path for path in (root / "stages").rglob("*") if path.stat().st_mtime > before]
    assert changed == []


def test_an_unknown_crawl_is_one_clear_message(tmp_path: Path, clean_environment: dict[str, str]):
    source = ("--base-url", str(tmp_path), "--crawl", "CC-NOT-THERE")
    done = gristmill("corpus", "--root", str(tmp_path), *source, environment=clean_environment)
    assert done.returncode == 2
    assert "source.crawl=CC-NOT-THERE" in done.stderr
    assert "a crawl must have a listing" in done.stderr
    assert "Traceback" not in done.stderr


def test_evaluate_and_show_find_the_run(root: Path, report: Report, clean_environment: dict[str, str]):
    assignments = [part for path, value in SETTINGS.items() for part in ("--set", f"{path}={value}")]
    shared = ("--preset", "demo", "--root", str(root), *assignments, "--json")
    evaluated = gristmill("evaluate", *shared, environment=clean_environment)
    assert evaluated.returncode == 0, evaluated.stderr[-2000:]
    bits = json.loads(evaluated.stdout)["record"]["bits_per_byte"]
    assert report.bits_per_byte is not None
    assert bits == pytest.approx(report.bits_per_byte.model_dump())
    shown = json.loads(gristmill("show", *shared, environment=clean_environment).stdout)
    assert shown["datasets"][0]["fingerprint"] == report.dataset.fingerprint
    assert shown["runs"][0]["finished"]
