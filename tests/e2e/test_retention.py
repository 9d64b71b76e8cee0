"""Retention as people run it: a build keeps it away, old texts go, and what was deleted can be made again."""

import fcntl
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.lock import in_use
from infra.manifest import Telemetry, load_dataset
from infra.retained import STAGES_LOCK
from infra.store import Store
from tests.flows.conftest import REPOSITORY, SHARDS
from tests.tasks.records import CRAWL

pytestmark = pytest.mark.e2e
SECONDS = 600


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


def gristmill(environment: dict[str, str], root: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).with_name("gristmill")), *arguments, "--root", str(root)]
    return subprocess.Popen(
        command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def said(process: subprocess.Popen[str], code: int) -> str:
    """What a command printed, once it has ended by this code."""
    out, log = process.communicate(timeout=SECONDS)
    assert process.returncode == code, log[-3000:]
    return out + log


def build(environment: dict[str, str], root: Path, crawl: Path, *more: str) -> subprocess.Popen[str]:
    given = (
        "dataset.name=web",
        "corpus.heldout.fraction=0.4",
        'dataset.version="1"',
        "corpus.tokenizer.vocabulary_size=600",
        *more,
    )
    settings = [part for each in given for part in ("--set", each)]
    source = ["--base-url", str(crawl), "--crawl", CRAWL, "--shards", str(SHARDS), "--workers", "1"]
    return gristmill(environment, root, "corpus", *source, *settings)


def is_locked(root: Path) -> bool:
    path = root / STAGES_LOCK
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_texts_go_and_come_back(root: Path, small_crawl: Path, clean_environment: dict[str, str]) -> None:
    store = Store(str(root))
    process = build(clean_environment, root, small_crawl)
    while process.poll() is None and not is_locked(root):
        time.sleep(0.01)
    assert process.poll() is None, "a build holds the lock while it works"
    said(process, 0)
    assert not is_locked(root)
    dataset = load_dataset(store, "web")

    for path in [each.path for each in store.files("stages") if each.path.endswith("/telemetry.json")]:
        old = Telemetry.load(store, path)
        old.model_copy(update={"finished_at": "2024-01-01T00:00:00+00:00"}).save(store, path)
    with in_use(store, STAGES_LOCK):
        assert "a build of a corpus, or another retention, is under way already" in said(
            gristmill(clean_environment, root, "retain"), 1
        )
    assert "would be deleted" in said(gristmill(clean_environment, root, "retain", "--dry-run"), 0)
    assert "stages/fetch/" in said(gristmill(clean_environment, root, "retain"), 0)

    today = f"deleted by retention on {datetime.now(UTC):%Y-%m-%d}"
    assert today in said(gristmill(clean_environment, root, "show", "web"), 0)
    rebuilt = build(clean_environment, root, small_crawl, 'dataset.version="2"', "dataset.rebuild=web/1")
    assert today in said(rebuilt, 1)
    said(build(clean_environment, root, small_crawl), 0)
    assert load_dataset(store, "web") == dataset
    assert "deleted by retention" not in said(gristmill(clean_environment, root, "show", "web"), 0)
