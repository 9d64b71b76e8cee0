"""What can be said of jobs of Slurm without one; `tests/e2e/test_slurm.py` has a real cluster."""

from pathlib import Path

import pytest

from infra.errors import BadInput, RunFailed
from infra.launching.job_record import forget_job, job_name, load_job, require_same_job, save_job
from infra.launching.launch import JobSpec
from infra.launching.launcher_settings import SlurmSettings
from infra.launching.ranks import RankOutput
from infra.launching.slurm import JobLines, SlurmLauncher, require_time


def spec_in(folder: Path, **changes: object) -> JobSpec:
    return JobSpec(module="model.train", arguments=(str(folder),), folder=str(folder)).model_copy(update=changes)


def test_each_line_is_handed_over_once_and_whole(tmp_path: Path) -> None:
    lines: list[str] = []
    first, second = tmp_path / "7_0_log.out", tmp_path / "7_1_log.out"
    read = JobLines(tmp_path, "7", 2, RankOutput(lines.append, ()))
    read.pass_on()
    first.write_text("[rank0]:step 1\n[rank0]:st")
    second.write_text("[rank1]:step 1\n")
    read.pass_on()
    assert lines == ["[rank 0] step 1", "[rank 1] step 1"]
    with first.open("a") as more:
        more.write("ep 2\n[rank0]:the end")
    read.pass_on()
    assert lines[2:] == ["[rank 0] step 2"]
    read.pass_on(last=True)
    assert lines[3:] == ["[rank 0] the end"]


def test_a_job_that_is_found_again_is_read_from_near_its_end(tmp_path: Path) -> None:
    (tmp_path / "7_0_log.out").write_text("".join(f"[rank0]:step {n}\n" for n in range(100)))
    lines: list[str] = []
    JobLines(tmp_path, "7", 1, RankOutput(lines.append, ()), last_bytes=40).pass_on()
    assert lines == ["[rank 0] step 98", "[rank 0] step 99"]


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
