"""The stage engine: what is written, what is reused, and that being killed changes no byte."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from infra.cluster import Cluster
from infra.errors import BadInput, DiskFull, RunFailed
from infra.manifest import ShardRecord, StageManifest, Telemetry
from infra.schema import DOCUMENTS, DROPPED
from infra.store import Store
from tasks.observer import FailedShard, MadeShard, StageObserver
from tasks.stage import (
    ShardFunction,
    ShardTask,
    Split,
    Stage,
    StageRunner,
    drop,
    finished_shard,
    make_shard,
    split_by_reason,
)
from tests.tasks.documents import tree
from tests.tasks.shard_functions import (
    COUNTING,
    NUMBERS,
    CountSettings,
    DiesOnce,
    Incomplete,
    count,
    fail,
    fail_long,
    fail_no_more,
    refuse,
    stumble,
)

SOURCES = ["a", "b", "c", "d"]
SETTINGS = CountSettings()


def run(
    root: Path, cluster: Cluster, function: ShardFunction = count, settings: CountSettings = SETTINGS
) -> StageManifest:
    return StageRunner(Store(str(root)), cluster).run(COUNTING, function, SOURCES, settings, {"parent": "p"})


def telemetry(root: Path, manifest: StageManifest) -> Telemetry:
    return Telemetry.load(Store(str(root)), f"{manifest.folder}/telemetry.json")


def temporary(root: Path) -> list[Path]:
    return list(root.rglob("*.tmp"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> dict[str, str]:
    root = tmp_path_factory.mktemp("uninterrupted")
    run(root, cluster)
    return tree(root)


def test_outputs_reasons_and_counters_stand_in_files_and_manifest(tmp_path: Path, cluster: Cluster) -> None:
    manifest = run(tmp_path, cluster)
    store = Store(str(tmp_path))
    assert [shard.source for shard in manifest.shards] == SOURCES
    assert (manifest.rows_in, manifest.kept, manifest.rows_of("quarantined")) == (4 * 33, 4 * 20, 4 * 3)
    assert manifest.total("reasons") == {"multiple_of_three": 40}
    assert manifest.total("counters") == {"seen": 120, "batches": 12}
    kept = store.read_table(manifest.kept_paths[1])
    assert kept["id"].to_pylist() == [f"b-{n}" for n in range(30) if n % 3]
    dropped = store.read_table(f"{manifest.folder}/{manifest.shards[1].dropped.path}")
    assert dropped["id"].to_pylist() == [f"b-{n}" for n in range(0, 30, 3)]
    assert set(dropped["stage"].to_pylist()) == {"counting"}
    for shard in manifest.shards:
        for file in (shard.kept, shard.dropped, *shard.others.values()):
            path = f"{manifest.folder}/{file.path}"
            assert (store.size(path), store.sha256(path)) == (file.bytes, file.sha256)
            assert store.read_table(path).num_rows == file.rows
            assert stat.S_IMODE(store.local_path(path).stat().st_mode) == 0o600
    assert store.read_table(manifest.kept_paths[0]).num_rows == 20
    assert StageManifest.load(store, f"{manifest.folder}/manifest.json") == manifest


def test_a_finished_stage_is_not_run_again(tmp_path: Path, cluster: Cluster) -> None:
    first = run(tmp_path, cluster)
    assert run(tmp_path, cluster, fail) == first  # a function that would fail, were it called


def test_settings_name_the_folder(tmp_path: Path, cluster: Cluster) -> None:
    assert run(tmp_path, cluster).folder == run(tmp_path, cluster, settings=CountSettings(rows=30)).folder
    other = run(tmp_path, cluster, settings=CountSettings(rows=60))
    assert other.folder != run(tmp_path, cluster).folder
    assert other.rows_in == 4 * 63


def test_only_the_shard_without_a_record_is_redone(
    tmp_path: Path, cluster: Cluster, uninterrupted: dict[str, str]
) -> None:
    manifest = run(tmp_path, cluster)
    folder = tmp_path / manifest.folder
    (folder / "manifest.json").unlink()
    (folder / "shards/part-00002-of-00004.json").unlink()
    inodes = {path: path.stat().st_ino for path in folder.glob("*.arrow")}
    again = run(tmp_path, cluster)
    assert [path.name for path, inode in inodes.items() if path.stat().st_ino != inode] == ["part-00002-of-00004.arrow"]
    assert telemetry(tmp_path, again).shards_reused == 3
    assert tree(tmp_path) == uninterrupted


def test_a_shard_whose_file_is_gone_or_cut_is_redone(
    tmp_path: Path, cluster: Cluster, uninterrupted: dict[str, str]
) -> None:
    folder = tmp_path / run(tmp_path, cluster).folder
    (folder / "manifest.json").unlink()
    (folder / "quarantined/part-00000-of-00004.arrow").unlink()
    cut = folder / "part-00003-of-00004.arrow"
    cut.write_bytes(cut.read_bytes()[:-1])
    assert telemetry(tmp_path, run(tmp_path, cluster)).shards_reused == 2
    assert tree(tmp_path) == uninterrupted


def test_a_worker_killed_in_the_middle_of_a_shard_changes_no_byte(
    tmp_path: Path, cluster: Cluster, uninterrupted: dict[str, str]
) -> None:
    root = tmp_path / "root"
    run(root, cluster, DiesOnce(tmp_path, "b"))
    assert (tmp_path / "died").exists()
    assert temporary(root) == []
    assert tree(root) == uninterrupted


DRIVER = """
import sys
from pathlib import Path
from infra.cluster import open_cluster
from infra.environment import Environment
from tests.tasks.shard_functions import Stalls
from test_stage import run
if __name__ == "__main__":
    with open_cluster(Environment(workers=2)) as cluster:
        run(Path(sys.argv[1]), cluster, Stalls(Path(sys.argv[2]), "c"))
"""


def test_everything_killed_at_once_and_run_again_leaves_the_same_bytes(
    tmp_path: Path, cluster: Cluster, uninterrupted: dict[str, str]
) -> None:
    root = tmp_path / "root"
    (tmp_path / "stall").touch()
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen([sys.executable, driver, root, tmp_path], env=environment, start_new_session=True)
    try:
        wait_for(lambda: (tmp_path / "stalled").exists() and len(list(root.rglob("shards/*.json"))) == 3, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    (tmp_path / "stall").unlink()
    assert len(temporary(root)) == 3
    assert list(root.rglob("manifest.json")) == []
    manifest = run(root, cluster)
    assert telemetry(root, manifest).shards_reused == 3
    assert tree(root) == uninterrupted


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "the driver ended before it was killed"
        assert time.monotonic() < deadline, "the driver never came to the slow shard"
        time.sleep(0.05)


def test_an_incomplete_shard_is_tried_again_and_its_children_notice(tmp_path: Path, cluster: Cluster) -> None:
    root, marker = tmp_path / "root", tmp_path / "marker"
    marker.touch()
    thin = run(root, cluster, Incomplete(marker, "b"))
    assert [shard.incomplete for shard in thin.shards] == [False, True, False, False]
    still = run(root, cluster, Incomplete(marker, "b"))
    assert telemetry(root, still).shards_reused == 3
    assert still.digest == thin.digest
    marker.unlink()
    whole = run(root, cluster, Incomplete(marker, "b"))
    assert (whole.folder, whole.kept) == (thin.folder, thin.kept + 20)
    assert whole.digest != thin.digest
    assert run(root, cluster, fail) == whole


class Noted(StageObserver):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def stage_started(self, stage: str, folder: str, shards: int, reused: Sequence[ShardRecord]) -> None:
        self.calls.append(("started", (stage, shards, len(reused))))

    def shard_done(self, made: MadeShard) -> None:
        self.calls.append(("done", made.record.source))

    def shard_failed(self, failed: FailedShard) -> None:
        self.calls.append(("failed", str(failed)))

    def stage_finished(self, manifest: StageManifest, telemetry: Telemetry | None) -> None:
        self.calls.append(("finished", telemetry and telemetry.shards_reused))

    def stage_failed(self, reason: str) -> None:
        self.calls.append(("ended", reason))


def test_a_failing_shard_stops_no_other_and_is_made_alone_next_time(
    tmp_path: Path, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    noted = Noted()
    runner = StageRunner(Store(str(tmp_path)), cluster, noted)
    with pytest.raises(RunFailed) as caught, caplog.at_level("ERROR", "tasks"):
        runner.run(COUNTING, fail, SOURCES, SETTINGS, {"parent": "p"})
    assert caught.value.value == "counting: 1 of 4 shards failed: b (ArithmeticError: cannot go on)"
    (said,) = [each for each in caplog.messages if "shard failed" in each]
    assert re.search(r"b \(ArithmeticError: cannot go on\); shard_functions.py:\d+ in fail; stage.py:", said)
    assert "all other shards are done and kept" in caught.value.rule
    assert list(tmp_path.rglob("manifest.json")) == []
    assert list(tmp_path.rglob("*part-00001*")) == []
    assert temporary(tmp_path) == []
    (_, *shards, last), noted.calls = noted.calls, []
    assert sorted(shards) == [
        ("done", "a"),
        ("done", "c"),
        ("done", "d"),
        ("failed", "b (ArithmeticError: cannot go on)"),
    ]
    assert last == ("ended", "RunFailed")

    runner.run(COUNTING, fail_no_more, SOURCES, SETTINGS, {"parent": "p"})
    runner.run(COUNTING, fail, SOURCES, SETTINGS, {"parent": "p"})
    assert noted.calls == [("started", ("counting", 4, 3)), ("done", "b"), ("finished", 3), ("finished", None)]


def test_a_stage_whose_shards_all_fail_stops_before_it_has_tried_them_all(tmp_path: Path, cluster: Cluster) -> None:
    noted = Noted()
    runner = StageRunner(Store(str(tmp_path)), cluster, noted, max_failed_shards=3)
    sources = [f"b{number}" for number in range(40)]
    with pytest.raises(RunFailed, match=r"3 of 40 shards failed: b.*environment\.max_failed_shards"):
        runner.run(COUNTING, fail_long, sources, SETTINGS, {"parent": "p"})
    assert [name for name, _ in noted.calls] == ["started", "failed", "failed", "failed", "ended"]
    assert all(len(text) < 300 for name, text in noted.calls if name == "failed")


def test_what_the_user_did_wrong_is_said_as_it_is(tmp_path: Path, cluster: Cluster) -> None:
    with pytest.raises(BadInput, match=r"source .: a rule\. A remedy\.") as caught:
        run(tmp_path, cluster, refuse)
    assert caught.value.exit_code == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", folder]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"needs root to mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_stage_that_met_a_full_disk_goes_on_when_there_is_space(
    small_disk: Path, cluster: Cluster, uninterrupted: dict[str, str]
) -> None:
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    ballast.write_bytes(bytes(free - 28_000))
    with pytest.raises(DiskFull) as caught:
        run(small_disk / "root", cluster)
    assert "No space left on device" in caught.value.value
    assert "run the same command again" in caught.value.remedy
    deadline = time.monotonic() + 20  # shards in flight on the other worker fail a moment later
    while temporary(small_disk) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert temporary(small_disk) == []
    ballast.unlink()
    run(small_disk / "root", cluster)
    assert tree(small_disk / "root") == uninterrupted


def test_a_stage_may_live_on_a_remote_file_system() -> None:
    # Two processes share no memory:// files, so the shard is made in this one.
    store = Store("memory://stage-on-remote")
    task = ShardTask(COUNTING, count, SETTINGS, NUMBERS, "stages/counting/x", 0, 1, "a")
    assert finished_shard(store, task) is None
    record, resident, counted, seconds = make_shard(store, task)
    assert seconds > 0
    assert finished_shard(store, task) == record
    assert store.sha256(f"stages/counting/x/{record.kept.path}") == record.kept.sha256
    assert resident > 1 << 20
    assert list(counted) == ["cpu_ms"]


def test_what_is_true_of_one_run_only_is_counted_beside_the_manifest(
    tmp_path: Path, cluster: Cluster, uninterrupted: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    stage = replace(COUNTING, worth_telling={"stumbles": "stumbles", "falls": "falls"})
    runner = StageRunner(Store(str(tmp_path)), cluster)
    with caplog.at_level("INFO", "tasks"):
        manifest = runner.run(stage, stumble, SOURCES, SETTINGS, {"parent": "p"})
    counts = telemetry(tmp_path, manifest).counts
    assert counts.pop("cpu_ms") >= 0
    assert counts == {"stumbles": 12, "falls": 0}
    assert caplog.messages[-1] == "counting: 12 stumbles"
    assert tree(tmp_path) == uninterrupted
    assert "stumbles" not in (tmp_path / manifest.folder / "manifest.json").read_text()


def documents(texts: list[str]) -> pa.Table:
    rows = [{"id": str(n), "source": "c", "file": "w", "offset": n, "text": t} for n, t in enumerate(texts)]
    return pa.Table.from_pylist(rows, schema=DOCUMENTS)


def test_documents_are_split_by_reason() -> None:
    kept, dropped = split_by_reason(documents(["x", "y", "z"]), "s", [None, "bad", None], [1, 2, 3], ["p", "q", "r"])
    assert kept["id"].to_pylist() == ["0", "2"]
    assert kept.schema == DOCUMENTS
    [row] = dropped.to_pylist()
    assert (row["id"], row["stage"], row["reason"], row["value"], row["detail"]) == ("1", "s", "bad", 2.0, "q")


def test_dropped_rows_have_the_schema_of_dropped_rows_whatever_they_came_with() -> None:
    assert drop(documents(["x"]).select(["id", "source", "file", "offset"]), "s", ["r"]).schema == DROPPED
    assert Split(DOCUMENTS.empty_table()).dropped.schema == DROPPED


def test_a_stage_says_which_libraries_decide_its_bytes(tmp_path: Path, cluster: Cluster) -> None:
    stage = Stage("counting", 2, COUNTING.schema, COUNTING.others, ("pyarrow", "numpy"))
    runner = StageRunner(Store(str(tmp_path)), cluster)
    manifest = runner.run(stage, count, ["a"], SETTINGS, {})
    assert manifest.libraries == {"pyarrow": pa.__version__, "numpy": __import__("numpy").__version__}
    assert manifest.version == 2


def test_a_shard_whose_second_file_cannot_be_opened_leaves_no_first_one(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    task = ShardTask(COUNTING, count, SETTINGS, NUMBERS, "stages/counting/x", 0, 1, "a")
    store.write_bytes("stages/counting/x/dropped", b"a file where a folder should be")
    with pytest.raises(OSError, match="dropped") as caught:
        make_shard(store, task)
    assert temporary(tmp_path) == []
    assert caught.value.errno is not None
