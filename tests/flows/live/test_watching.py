"""What Prefect's pages show of a running stage and of training, and that a server which is gone holds up nothing."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.live.panels import Panels, as_markdown
from flows.live.shard_table import ROWS, ShardTable
from flows.live.training_watch import answered, last_steps, progress, tail
from flows.live.watching import StageWatch
from infra.cluster import Cluster
from infra.errors import RunFailed
from infra.manifest import FileRecord, ShardRecord
from infra.store import Store
from tasks.observer import FailedShard, MadeShard
from tasks.stage import StageRunner
from tests.flows.conftest import free_port
from tests.tasks.shard_functions import COUNTING, CountSettings, count, fail

NOTHING = FileRecord(path="dropped/p.arrow", rows=0, bytes=0, sha256="")


def record(index: int, broken: int = 0) -> ShardRecord:
    return ShardRecord(
        index=index,
        source=f"crawl/{index}.warc.gz",
        rows_in=10 + broken,
        kept=NOTHING.model_copy(update={"rows": 10}),
        dropped=NOTHING,
        others={"quarantined": FileRecord(path=f"quarantined/part-{index}.arrow", rows=broken, bytes=1, sha256="")},
        quarantined={"gzip": broken} if broken else {},
    )


def test_the_table_of_shards_begins_with_what_is_worth_looking_at():
    table = ShardTable("stages/fetch/abc")
    table.add_reused(record(0))
    for index in range(1, 4 * ROWS):
        table.add(MadeShard(record(index, broken=3 if index == 7 else 0), 0, {}, seconds=index / 100))
    table.add_failed(FailedShard("crawl/999.warc.gz", "ValueError: broken"))
    total, failed, quarantined, slowest, *others = table.rows(4 * ROWS + 1, 12.34)
    assert total == {
        "shard": "all 801 shards", "state": "800 done, 1 of them before, 1 failed", "in": 8003, "kept": 8000,
        "dropped": 0, "quarantined": 3, "documents/s": 12.3, "why": "gzip 3: stages/fetch/abc/quarantined",
    }  # fmt: skip
    assert (failed["shard"], failed["why"]) == ("crawl/999.warc.gz", "ValueError: broken")
    assert (quarantined["shard"], quarantined["why"]) == (
        "crawl/7.warc.gz",
        "gzip 3: stages/fetch/abc/quarantined/part-7.arrow",
    )
    assert (slowest["shard"], slowest["documents/s"]) == ("crawl/799.warc.gz", 1.3)
    assert len(others) == ROWS - 3


def test_a_server_that_is_gone_is_warned_of_once_and_holds_up_nothing(
    tmp_path: Path, cluster: Cluster, caplog: pytest.LogCaptureFixture
):
    gone: dict[Any, Any] = {PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}
    with temporary_settings(gone), caplog.at_level(logging.WARNING, "flows"), Panels() as panels:
        runner = StageRunner(Store(str(tmp_path)), cluster, StageWatch(panels))
        runner.run(COUNTING, count, [f"shard {n}" for n in range(20)], CountSettings(), {})
        with pytest.raises(RunFailed):
            runner.run(COUNTING, fail, ["a", "b"], CountSettings(rows=60), {})
        began = time.thread_time()
        end = time.monotonic() + 30
        while not caplog.messages and time.monotonic() < end:
            time.sleep(0.05)
    assert time.thread_time() - began < 1
    (warning,) = [each for each in caplog.messages if "fall behind" in each]
    assert "ConnectError" in warning


def test_training_is_read_from_the_end_of_its_metrics(tmp_path: Path):
    file = tmp_path / "metrics.jsonl"
    assert tail(file) == []
    assert progress(file, 900).description == "training: starting, 900 steps"
    row = {"loss": 2.5, "tokens_per_second": 1234.5, "seconds": 0.5, "filling": "x" * 200}
    lines = [json.dumps({"step": step, **row}) for step in range(1, 301)]
    file.write_text("\n".join(lines) + '\n{"step": 301, "lo')
    shown = progress(file, 900)
    assert shown.data == pytest.approx(100 / 3)
    assert shown.description == "training: step 300/900, loss 2.5000, 1,234 tokens/s, 5 min left"
    assert [each["step"] for each in json.loads(last_steps(file).data)] == list(range(300, 280, -1))


def test_links_are_pages_of_servers_without_passwords():
    links = {"MLflow": "http://me:hush@mlflow:5000", "Dask": None, "file": "sqlite:///mlflow.db"}
    assert as_markdown(links) == "- MLflow: [http://mlflow:5000](http://mlflow:5000)"


def test_evaluation_is_read_from_the_lines_of_its_ranks():
    assert answered("[rank 0] 1,500 of 6,000 log-likelihoods, 81.3 a second") == (
        25.0,
        "evaluation: 1,500 of 6,000 log-likelihoods, 81.3 a second",
    )
    assert answered("[rank 0] 3 of 7 questions are odd") is None
