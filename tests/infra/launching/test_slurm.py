"""What can be said of jobs of Slurm without one; `tests/e2e/test_slurm.py` has a real cluster."""

import logging
import os
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest

from infra.errors import BadInput, RunFailed
from infra.launching.job_record import forget_job, job_name, load_job, require_same_job, save_job
from infra.launching.launch import JobSpec
from infra.launching.launcher_settings import SlurmSettings
from infra.launching.slurm import SlurmLauncher, require_time

SETTINGS = SlurmSettings(poll_seconds=0.2)
COMMANDS = {
    "sbatch": 'cat "$1" >> "$HERE/scripts"; echo >> "$HERE/numbers"; echo "job $(wc -l < "$HERE/numbers")"',
    "squeue": '[ -e "$HERE/state" ] || exit 1; case "$*" in *--name=*) ;; *) cat "$HERE/state" ;; esac',
    "scancel": 'echo "$*" >> "$HERE/cancelled"',
    "srun": "",
}
"""Slurm, as far as its commands tell: jobs are numbered, and are in the state that a file holds."""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of such commands."""
    pytest.importorskip("submitit", reason="submitit is absent")
    here = tmp_path / "slurm"
    here.mkdir()
    for name, script in COMMANDS.items():
        (here / name).write_text(f'#!/bin/sh\nHERE="{here}"\n{script}\n')
        (here / name).chmod(0o755)
    say(here, "RUNNING None")
    monkeypatch.setenv("PATH", f"{here}{os.pathsep}{os.environ['PATH']}")
    return here


def say(slurm: Path, state: str) -> None:
    """What squeue says of jobs from now on."""
    (slurm / "next").write_text(f"{state}\n")
    (slurm / "next").replace(slurm / "state")


@contextmanager
def under_way(slurm: Path, *flows: Callable[[], object]) -> Iterator[list[Future[object]]]:
    """Flows in threads, whose jobs have failed at the latest when the block ends."""
    with ThreadPoolExecutor() as threads:
        try:
            yield [threads.submit(flow) for flow in flows]
        finally:
            say(slurm, "FAILED None")


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def spec_in(folder: Path, **changes: object) -> JobSpec:
    return JobSpec(module="model.train", arguments=(str(folder),), folder=str(folder)).model_copy(update=changes)


def test_the_job_of_a_folder_is_found_until_it_is_forgotten(tmp_path: Path) -> None:
    spec = spec_in(tmp_path)
    assert load_job(spec, "slurm") is None
    save_job(spec, "slurm", "12")
    record = load_job(spec, "slurm")
    assert record is not None
    require_same_job(spec, record, "scancel 12")
    with pytest.raises(RunFailed, match="job 12 still works"):
        require_same_job(spec_in(tmp_path, processes=2), record, "scancel 12")
    assert load_job(spec_in(tmp_path, module="model.evaluate"), "slurm") is None
    forget_job(spec)
    assert load_job(spec, "slurm") is None


def test_names_of_jobs_are_their_folders_own(tmp_path: Path) -> None:
    name = job_name(spec_in(tmp_path))
    assert name == job_name(spec_in(tmp_path, processes=4))
    assert name != job_name(spec_in(tmp_path / "other"))
    assert name.startswith("model-train-")


@pytest.mark.parametrize("wrong", [{"warning_seconds": 60}, {"minutes": 4}])
def test_time_to_write_a_checkpoint_is_asked_for(tmp_path: Path, wrong: dict[str, int]) -> None:
    spec = spec_in(tmp_path, grace_seconds=60)
    require_time(spec, SlurmSettings(minutes=5))
    with pytest.raises(BadInput, match="ranks have 60 s to write a checkpoint"):
        require_time(spec, SlurmSettings.model_validate({"minutes": 5, **wrong}))


def test_a_machine_without_slurm_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="without sbatch, srun, squeue, scancel"):
        SlurmLauncher(SlurmSettings()).run(spec_in(tmp_path))


def test_two_flows_hand_in_one_job_of_a_folder(slurm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    spec, both = spec_in(tmp_path / "run"), Barrier(2)

    def flow() -> None:
        launcher = SlurmLauncher(SETTINGS)
        with launcher.room(spec):
            with suppress(BrokenBarrierError):
                both.wait(0.5)
            launcher.run(spec)

    with under_way(slurm, flow, flow) as flows:
        wait_until(lambda: caplog.text.count("handed in") + caplog.text.count("there already") == 2)
        (tmp_path / "run/jobs/1_0_result.pkl").write_bytes(pickle.dumps(("success", None)))
        say(slurm, "COMPLETED None")
        assert [each.exception() for each in flows] == [None, None]
    assert (slurm / "numbers").read_text().count("\n") == 1
    assert "--dependency=singleton" in (slurm / "scripts").read_text()


def test_a_job_whose_number_cannot_be_written_down_is_ended(slurm: Path, tmp_path: Path) -> None:
    spec = spec_in(tmp_path / "run")
    with (slurm / "sbatch").open("a") as script:
        script.write(f"mkdir {tmp_path}/run/jobs/model.train.json\n")
    with pytest.raises(OSError, match=r"model\.train\.json"):
        SlurmLauncher(SETTINGS).run(spec)
    assert f"--name={job_name(spec)}" in (slurm / "cancelled").read_text()


def test_what_ended_an_earlier_start_of_a_job_explains_no_later_end(
    slurm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lines = tmp_path / "run/jobs/1_0_log.out"
    with under_way(slurm, lambda: SlurmLauncher(SETTINGS).run(spec_in(tmp_path / "run"))) as (flow,):
        wait_until(lambda: "job 1 of Slurm: running" in caplog.text)
        lines.write_text("Root Cause (first observed failure):\n  rank      : 8\n  exitcode  : 143\n")
        say(slurm, "PENDING JobHeldUser")
        wait_until(lambda: "job 1 of Slurm: pending (JobHeldUser)" in caplog.text)
        with lines.open("a") as more:
            more.write("slurmstepd: error: *** JOB 1 ON n1 CANCELLED DUE TO NODE FAILURE ***\n")
        say(slurm, "NODE_FAIL None")
        error = flow.exception()
    assert isinstance(error, RunFailed)
    assert error.value.startswith("job 1 of Slurm ended (node_fail); its last lines:")
    assert "NODE FAILURE" in error.value
    assert "143" not in error.value


def test_a_silence_of_slurm_ends_the_waiting_and_not_the_job(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("infra.launching.slurm._SILENCE_SECONDS", 0.1)
    spec = spec_in(tmp_path / "run")
    with under_way(slurm, lambda: SlurmLauncher(SETTINGS).run(spec)) as (flow,):
        wait_until(lambda: "job 1 of Slurm: running" in caplog.text)
        (slurm / "state").unlink()
        assert "Slurm has told nothing of job 1" in str(flow.exception())
    assert not (slurm / "cancelled").exists()
    assert load_job(spec, "slurm") is not None
    (slurm / "state").unlink()
    with pytest.raises(RunFailed, match="squeue ended with code 1"):
        SlurmLauncher(SETTINGS).run(spec_in(tmp_path / "other"))
    assert (slurm / "numbers").read_text().count("\n") == 1
