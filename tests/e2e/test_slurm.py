"""Training in jobs of a real Slurm: its end, its interruptions, and a flow that is killed while it waits."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.cluster import open_cluster
from infra.dask_settings import JobQueueDask
from infra.environment import Environment
from infra.errors import BadInput, RunFailed
from infra.launching.job_record import save_job
from infra.launching.launch import JobSpec
from infra.launching.launcher_settings import SlurmSettings
from infra.launching.slurm import SlurmLauncher
from infra.manifest import DatasetManifest
from infra.store import Store
from model.config import CheckpointSettings
from model.run import RunRecord, finished_training, prepare_run, read_metrics
from tasks.config import CorpusSettings
from tasks.heldout import HeldoutSettings
from tasks.quality.families import QualitySignalSettings
from tasks.signals import SignalSettings
from tasks.sources.transport import SourceSettings
from tasks.stage import StageRunner
from tasks.tokens.tokenizer import TokenizerSettings
from tests.e2e.slurm_cluster import slurm_cluster
from tests.flows.test_ablation import small_ablation
from tests.model.small_runs import layout, real_documents, small_training, write_dataset
from tests.tasks.chains import only_long_documents, run_chain
from tests.tasks.documents import prose, tree
from tests.tasks.records import CRAWL, members, page, response, warcinfo, write_crawl

pytestmark = pytest.mark.e2e
SETTINGS = SlurmSettings(gpus=False, processes_per_node=2, max_nodes=2, minutes=30, poll_seconds=0.5)
TWO_AT_ONCE = SETTINGS.model_copy(update={"array_parallelism": 2})


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with slurm_cluster(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, DatasetManifest]:
    store = Store(str(tmp_path_factory.mktemp("root")))
    return store, write_dataset(store, real_documents())


def prepared(dataset: tuple[Store, DatasetManifest], name: str, steps: int, processes: int = 2) -> RunRecord:
    store, manifest = dataset
    checkpoint = CheckpointSettings(every_steps=None)
    settings = small_training(steps, parallel=layout(data=processes), checkpoint=checkpoint, log_every=1)
    return prepare_run(store, manifest, name, settings)


def spec_of(store: Store, run: RunRecord) -> JobSpec:
    folder = str(store.local_path(run.folder))
    return JobSpec(
        module="model.train",
        arguments=(folder,),
        processes=run.training.parallel.processes,
        grace_seconds=60,
        folder=folder,
    )


def checkpoints(store: Store, run: RunRecord) -> list[int]:
    return [int(name.removeprefix("step-")) for name in store.names(f"{run.folder}/checkpoints")]


def job_of(store: Store, run: RunRecord) -> str:
    return json.loads(store.read_bytes(f"{run.folder}/jobs/model.train.json"))["id"]


def jobs() -> list[str]:
    """Number, name and state of each that has not ended, an array's one by one."""
    asked = ["squeue", "--noheader", "--array", "--format=%i %j %T"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()


def once(lines: list[str], word: str, action: Callable[[], Any]) -> Callable[[str], None]:
    """Collects lines, and acts at the first one with the word."""

    def take(line: str) -> None:
        lines.append(line)
        if word in line and sum(word in each for each in lines) == 1:
            action()

    return take


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def test_a_job_of_two_nodes_trains_to_the_end(dataset) -> None:
    store, run = dataset[0], prepared(dataset, "nodes", steps=6, processes=4)
    lines: list[str] = []
    result = SlurmLauncher(SETTINGS).run(spec_of(store, run), lines.append)
    summary = finished_training(store, run)
    assert result.seconds > 0
    assert summary is not None
    assert summary.layout.data == 4
    assert any("step 6" in line for line in lines)
    assert {line[: len("[rank 0]")] for line in lines} == {"[rank 0]"}
    kept = list(store.local_path(f"{run.folder}/jobs").iterdir())
    assert "model.train.json" not in [path.name for path in kept], "the job has ended"


def test_secrets_that_ranks_print_stay_out_of_the_files_of_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PASSWORD", "correct-horse-battery")
    (tmp_path / "telling.py").write_text("import os; print('it is', os.environ['TEST_PASSWORD'])")
    spec = JobSpec(module="telling", environment={"PYTHONPATH": str(tmp_path)}, processes=2, folder=str(tmp_path))
    lines: list[str] = []
    SlurmLauncher(SETTINGS).run(spec, lines.append)
    assert sorted(lines) == ["[rank 0] it is ***", "[rank 1] it is ***"]
    kept = {path.name: path.read_bytes() for path in (tmp_path / "jobs").iterdir()}
    assert any(b"it is ***" in content for content in kept.values()), "the files are those of the job"
    assert not [name for name, content in kept.items() if b"correct-horse" in content]


def test_cancelling_writes_a_checkpoint_and_ends_the_job(dataset) -> None:
    store, run = dataset[0], prepared(dataset, "cancelled", steps=100_000)
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        SlurmLauncher(SETTINGS).run(spec_of(store, run), once(lines, "step 3", raise_interrupt))
    assert checkpoints(store, run)[-1] >= 3
    assert not store.exists(f"{run.folder}/jobs/model.train.json")
    assert not subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("sent", ["USR2", "TERM"])
def test_a_job_that_is_told_to_make_room_goes_on_later(dataset, sent: str) -> None:
    """Slurm sends USR2 before a time limit and TERM before a preemption."""
    store, run = dataset[0], prepared(dataset, f"requeued-{sent}", steps=400, processes=4)
    lines: list[str] = []

    def interrupt() -> None:
        subprocess.run(["scancel", f"--signal={sent}", job_of(store, run)], check=True)

    SlurmLauncher(SETTINGS).run(spec_of(store, run), once(lines, "step 3", interrupt))
    assert finished_training(store, run) is not None
    starts = [line for line in lines if "from step" in line]
    assert len(starts) == 2
    assert int(starts[1].rsplit(" ", 1)[-1]) >= 3


def test_a_flow_that_was_killed_finds_its_job_again(dataset) -> None:
    store, run = dataset[0], prepared(dataset, "killed", steps=400)
    spec = spec_of(store, run)
    script = f"""
from infra.launching.launch import JobSpec
from infra.launching.launcher_settings import SlurmSettings
from infra.launching.slurm import SlurmLauncher
settings = SlurmSettings.model_validate_json({SETTINGS.model_dump_json()!r})
spec = JobSpec.model_validate_json({spec.model_dump_json()!r})
SlurmLauncher(settings).run(spec, lambda line: print(line, flush=True))
"""
    flow = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert flow.stdout is not None
    with flow.stdout as out:
        next(line for line in out if "step 3" in line)
        flow.kill()
        flow.wait()
    job = job_of(store, run)
    other = spec.model_copy(update={"processes": 1})
    with pytest.raises(RunFailed, match=f"job {job} still works"):
        SlurmLauncher(SETTINGS).run(other)
    Path(store.local_path(f"{run.folder}/jobs/model.train.json")).unlink()  # killed before it was written
    lines: list[str] = []
    SlurmLauncher(SETTINGS).run(spec, lines.append)
    assert finished_training(store, run) is not None
    assert sum("from step" in line for line in lines) == 1, "one job did it all"
    assert len([name for name in store.names(f"{run.folder}/jobs") if name.endswith("submitted.pkl")]) == 1


def test_a_flow_that_was_killed_while_it_stopped_its_job_waits_for_the_end(dataset) -> None:
    store, run = dataset[0], prepared(dataset, "stopping", steps=300)
    spec = spec_of(store, run)
    lines: list[str] = []

    def leave_it_stopping() -> None:
        job = job_of(store, run)
        (store.local_path(run.folder) / f"jobs/{job}.stop").touch()
        subprocess.run(["scancel", "--signal=TERM", job], check=True)
        SlurmLauncher(SETTINGS).run(spec, lines.append)  # as the next flow does

    with pytest.raises(RunFailed):  # of the first flow, whose job ended
        SlurmLauncher(SETTINGS).run(spec, once(lines, "step 3", leave_it_stopping))
    assert finished_training(store, run) is not None
    starts = [int(line.rsplit(" ", 1)[-1]) for line in lines if "from step" in line]
    assert starts[0] == 0
    assert starts[1] >= 3


def test_several_jobs_are_one_array_and_run_at_once(dataset) -> None:
    store, runs = dataset[0], [prepared(dataset, f"array-{n}", steps=60) for n in range(3)]
    specs = [spec_of(store, run) for run in runs]
    launcher, seen = SlurmLauncher(TWO_AT_ONCE), list[str]()
    with launcher.handed_in(specs):
        numbers = [job_of(store, run) for run in runs]
        lines: list[str] = []
        for spec in specs:
            SlurmLauncher(SETTINGS).run(spec, once(lines, "step 3", lambda: seen.extend(jobs())))
    assert [each.partition("_")[2] for each in numbers] == ["0", "1", "2"]
    assert len({each.partition("_")[0] for each in numbers}) == 1
    assert sum("RUNNING" in each for each in seen) == 2, "as many as may run at once"
    assert all(finished_training(store, run) is not None for run in runs)
    assert not any(store.exists(f"{run.folder}/jobs/model.train.json") for run in runs)
    with launcher.handed_in([]):
        pass


def test_an_array_is_cancelled_as_a_whole(dataset) -> None:
    store, runs = dataset[0], [prepared(dataset, f"whole-{n}", steps=100_000) for n in range(3)]
    specs, launcher = [spec_of(store, run) for run in runs], SlurmLauncher(TWO_AT_ONCE)

    def stop_when_both_train(_: str) -> None:
        if all(len(read_metrics(store.local_path(run.folder))) >= 3 for run in runs[:2]):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), launcher.handed_in(specs):
        launcher.run(specs[0], stop_when_both_train)
    assert not subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True).stdout
    assert [bool(checkpoints(store, run)) for run in runs] == [True, True, False], "the third waited"
    assert checkpoints(store, runs[0])[-1] >= 3


@pytest.mark.parametrize("numbered", [True, False])
def test_a_flow_that_was_killed_finds_its_array_again(dataset, numbered: bool) -> None:
    store, runs = dataset[0], [prepared(dataset, f"found-{numbered}-{n}", steps=60) for n in range(2)]
    specs = [spec_of(store, run) for run in runs]
    given = [spec.model_dump_json() for spec in specs]
    script = f"""
from infra.launching.launch import JobSpec
from infra.launching.launcher_settings import SlurmSettings
from infra.launching.slurm import SlurmLauncher
launcher = SlurmLauncher(SlurmSettings.model_validate_json({SETTINGS.model_dump_json()!r}))
specs = [JobSpec.model_validate_json(each) for each in {given!r}]
with launcher.handed_in(specs):
    launcher.run(specs[0], lambda line: print(line, flush=True))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as flow:
        assert flow.stdout is not None
        next(line for line in flow.stdout if "step 3" in line)
        flow.kill()
    if not numbered:  # killed between the handing in and the writing down of numbers
        (name,) = {each.split()[1] for each in jobs()}
        for place, spec in enumerate(specs):
            save_job(spec, "slurm", f"{name}[{place}]", f"{specs[0].folder}/jobs")
    launcher = SlurmLauncher(SETTINGS)
    with launcher.handed_in(specs):
        for spec in specs:
            launcher.run(spec)
    assert all(finished_training(store, run) is not None for run in runs)
    handed_in = [name for run in runs for name in store.names(f"{run.folder}/jobs") if name.endswith("submitted.pkl")]
    assert len(handed_in) == 2, "each once"


def test_what_a_rank_reports_is_the_error(dataset) -> None:
    store, run = dataset[0], prepared(dataset, "damaged", steps=6, processes=4)
    spec = spec_of(store, run)
    with pytest.raises(BadInput, match="holds no run"):
        SlurmLauncher(SETTINGS).run(spec.model_copy(update={"arguments": (store.root + "/runs/none/at-all",)}))


def test_a_rank_that_is_killed_ends_the_job_and_the_next_one_goes_on(dataset) -> None:
    store, run = dataset[0], prepared(dataset, "rank-killed", steps=200, processes=4)
    lines: list[str] = []

    def kill_a_rank() -> None:
        ranks = [
            each
            for each in psutil.process_iter(["cmdline"])
            if (words := each.info["cmdline"] or [])
            and words[1:4] == ["-u", "-m", "model.train"]
            and run.folder in words[4]
        ]
        assert len(ranks) == 4, [each.info for each in ranks]
        os.kill(ranks[-1].pid, signal.SIGKILL)

    # Where another node's rank fails first because of it, Slurm may end the job before the killed one is told of.
    with pytest.raises(RunFailed, match=r"rank \d was killed by SIGKILL|Connection closed by peer"):
        SlurmLauncher(SETTINGS).run(spec_of(store, run), once(lines, "step 3", kill_a_rank))
    SlurmLauncher(SETTINGS).run(spec_of(store, run), lines.append)
    assert finished_training(store, run) is not None


def test_a_time_limit_is_not_the_end(dataset) -> None:
    """The whole way: Slurm warns up to a minute before it has to, and the job is queued again."""
    store, run = dataset[0], prepared(dataset, "limited", steps=100_000)
    settings = SETTINGS.model_copy(update={"minutes": 3, "warning_seconds": 60})
    lines: list[str] = []

    def cancel_after_the_second_start(line: str) -> None:
        lines.append(line)
        if sum("from step" in each for each in lines) == 2 and "from step" in line:
            raise KeyboardInterrupt

    spec = spec_of(store, run).model_copy(update={"grace_seconds": 30})
    with pytest.raises(KeyboardInterrupt):
        SlurmLauncher(settings).run(spec, cancel_after_the_second_start)
    starts = [int(line.rsplit(" ", 1)[-1]) for line in lines if "from step" in line]
    assert starts[0] == 0
    assert 0 < starts[1] <= checkpoints(store, run)[-1]


def test_settings_that_slurm_refuses_are_bad_input(dataset) -> None:
    store, run = dataset[0], prepared(dataset, "refused", steps=6)
    settings = SETTINGS.model_copy(update={"partition": "nowhere"})
    with pytest.raises(BadInput, match="Invalid partition"):
        SlurmLauncher(settings).run(spec_of(store, run))


def test_flows_use_it_by_configuration(dataset, tmp_path: Path, clean_environment: dict[str, str]) -> None:
    store, manifest = dataset
    settings = {
        "dataset": {"name": manifest.name},
        "run": "by-flow",
        "training": small_training(6, parallel=layout(data=2)).model_dump(mode="json"),
        "evaluation": {"step": 6},
        "contamination": None,
        "environment": {"root": store.root, "launcher": SETTINGS.model_dump(mode="json")},
    }
    (tmp_path / "run.json").write_text(json.dumps(settings))
    for command in ("pretrain", "evaluate"):
        line = [str(Path(sys.executable).parent / "gristmill"), command, "--config", str(tmp_path / "run.json")]
        done = subprocess.run(line, env=clean_environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "of Slurm: completed" in done.stderr
    (run,) = store.local_path("runs/by-flow").iterdir()
    assert (run / "training.json").exists()
    assert (run / "evaluations/step-00000006.json").exists()


def test_trainings_of_an_ablation_are_one_array(
    shared_data: Path, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    settings = small_ablation(shared_data / "text" / "peps.jsonl.gz", tmp_path, duration={"steps": 20})
    settings["environment"]["launcher"] = SETTINGS.model_dump(mode="json")
    (tmp_path / "ablation.json").write_text(json.dumps(settings))
    line = [str(Path(sys.executable).parent / "gristmill"), "ablate", "--config", str(tmp_path / "ablation.json")]
    done = subprocess.run([*line, "--json"], env=clean_environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(json.loads(done.stdout)["variants"]) == 2
    assert done.stderr.count("handed in as one array") == 1
    assert "handed in for 1 nodes" not in done.stderr, "no training was handed in alone"
    with sqlite3.connect(tmp_path / "data" / "mlflow.db") as tracked:
        assert set(tracked.execute("select status from runs")) == {("FINISHED",)}


def test_a_corpus_is_built_by_workers_in_jobs(tmp_path: Path) -> None:
    crawl = tmp_path / "crawl"
    pages = [response(f"http://{n}.example/", page(text)) for n, text in enumerate(prose())]
    write_crawl(crawl, [members(warcinfo(), *pages[n::4]) for n in range(4)])
    corpus = CorpusSettings(
        source=SourceSettings(base_url=str(crawl), crawl=CRAWL),
        signals=SignalSettings(quality=QualitySignalSettings(languages_with_rules=("en",))),
        filter=only_long_documents(),
        tokenizer=TokenizerSettings(vocabulary_size=600),
        heldout=HeldoutSettings(fraction=0.1),
    )
    queue = JobQueueDask(
        processes=1, memory_gib=1, minimum=2, maximum=3, walltime="00:30:00", host="127.0.0.1", wait_seconds=300
    )
    root = tmp_path / "jobs"
    with open_cluster(Environment(root=str(root), dask=queue)) as cluster:
        asked = subprocess.run(["squeue", "-h", "-o", "%j"], capture_output=True, text=True, check=True)
        assert asked.stdout.split().count("gristmill-dask") >= 2
        assert cluster.workers >= 2
        run_chain(StageRunner(Store(str(root)), cluster), corpus)
    assert not subprocess.run(["squeue", "-h", "--states=RUNNING"], capture_output=True, text=True, check=True).stdout
    assert not list((root / "dask").glob("certificates*")), "they are gone with the cluster"
    with open_cluster(Environment(workers=1)) as cluster:
        run_chain(StageRunner(Store(str(tmp_path / "here")), cluster), corpus)
    shutil.rmtree(root / "dask")
    assert tree(root) == tree(tmp_path / "here")


def test_jobs_of_workers_leave_before_their_time_limit_and_are_replaced(tmp_path: Path) -> None:
    queue = JobQueueDask(processes=2, memory_gib=1, walltime="00:01:00", host="127.0.0.1", wait_seconds=300)
    with open_cluster(Environment(root=str(tmp_path), dask=queue)) as cluster:
        assert len(list(cluster.map(time.sleep, [4] * 30, "two jobs' work"))) == 30
    lines = [path.read_text() for path in (tmp_path / "dask").glob("gristmill-dask-*.err")]
    assert 2 <= len(lines) <= 4, "each is replaced once"
    assert any(each.count("Closing worker gracefully") == 2 and "worker-lifetime-reached" in each for each in lines)
    assert not any("DUE TO TIME LIMIT" in each for each in lines)


def test_workers_that_do_not_come_are_reported(tmp_path: Path) -> None:
    queue = JobQueueDask(processes=1, memory_gib=1, minimum=9, maximum=9, host="127.0.0.1", wait_seconds=20)
    with (
        pytest.raises(RunFailed, match=r"\d of 9 Dask workers came within 20 s"),
        open_cluster(Environment(root=str(tmp_path), dask=queue)),
    ):
        pytest.fail("it must not open")
