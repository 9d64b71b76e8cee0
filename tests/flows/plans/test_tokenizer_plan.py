"""Plans of `train_tokenizer`: from what the dataset's own tokenizer took."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flows.cli import main
from flows.config import DatasetSettings
from flows.plans.flow_plan import FlowPlan
from flows.plans.tokenizer_plan import plan_tokenizer
from flows.plans.whole_plan import refuse
from infra.cluster import Cluster
from infra.environment import Environment
from infra.errors import BadInput
from infra.store import Store
from tasks.config import CorpusSettings
from tasks.tokens.tokenizer import TokenizerSettings
from tests.flows.small_crawls import Builder, settings, write_crawls

CRAWL = "CC-MAIN-2026-05"
LEARNED_FROM = 20_000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Path:
    """With a dataset whose tokenizer was learned from a part of its texts."""
    root = tmp_path_factory.mktemp("root")
    write_crawls(root, {CRAWL: [list(range(40))]})
    tokenizer = TokenizerSettings(vocabulary_size=400, sample_bytes=LEARNED_FROM)
    source = {"source": {"base_url": str(root), "crawl": CRAWL}, "dedup": {"index": "news"}}
    corpus = settings(root).corpus.model_copy(update={"tokenizer": tokenizer})
    corpus = CorpusSettings.model_validate({**corpus.model_dump(), **source})
    Builder(Store(str(root)), cluster).build(corpus, DatasetSettings(name="news", version="2026.05"))
    return root


def plan(root: Path, tokenizer: TokenizerSettings, measured_bytes: int = 1, **cost: Any) -> FlowPlan:
    environment = Environment.model_validate({"root": str(root), "cost": cost})
    return plan_tokenizer(DatasetSettings(name="news"), tokenizer, measured_bytes, environment)


def test_learning_grows_with_the_sample_and_measuring_with_what_is_measured(root: Path):
    same = TokenizerSettings(vocabulary_size=400, sample_bytes=LEARNED_FROM)
    there, half, more = (plan(root, same.model_copy(update={"sample_bytes": n})) for n in (20_000, 10_000, 40_000))
    assert there.notes == ("the tokenizer is there already",)
    assert there.seconds is not None
    assert half.seconds is not None
    assert more.seconds == pytest.approx(4 * half.seconds, rel=0.1)
    assert half.cost.core_hours == pytest.approx(half.seconds / 3600)
    measured = plan(root, same, measured_bytes=10**9).seconds
    assert measured is not None
    assert measured > there.seconds
    assert "other settings" in plan(root, TokenizerSettings(vocabulary_size=500)).notes[0]


def test_a_plan_that_costs_too_much_is_refused(root: Path):
    with pytest.raises(BadInput, match="the budget is"):
        refuse(plan(root, TokenizerSettings(vocabulary_size=500), core_hour=1e6, budget=1e-6))


def test_the_command_plans_it(root: Path):
    given = ["--root", str(root), "--set", "dataset.name=news", "--set", "tokenizer.vocabulary_size=500"]
    done = CliRunner().invoke(main, ["plan", "train_tokenizer", *given])
    assert done.exit_code == 0, done.output
    assert "train_tokenizer: " in done.output
    assert "core-hours" in done.output
