"""Jobs of real processes: their lines, their failures and their end."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from infra.errors import BadInput, DiskFull, RunFailed
from infra.launching.launch import JobSpec, LocalLauncher, _told_once
from infra.lock import only_one
from infra.store import Store


def job(folder: Path, body: str, processes: int = 2, **environment: str) -> JobSpec:
    """A module with the given body, importable by the ranks."""
    (folder / "rank_body.py").write_text(
        "import os, sys, time\nrank = int(os.environ['RANK'])\n" + textwrap.dedent(body)
    )
    return JobSpec(
        module="rank_body", processes=processes, environment={"PYTHONPATH": str(folder), **environment}, grace_seconds=5
    )


def test_streams_lines_without_secrets(tmp_path) -> None:
    spec = job(
        tmp_path,
        """
        print(f"rank {rank} of {os.environ['WORLD_SIZE']} with {sys.argv[1]} and {os.environ['TEST_PASSWORD']}")
        print("to postgres://me:hunter2@host/db", file=sys.stderr)
        """,
        TEST_PASSWORD="correct-horse",
    )
    lines: list[str] = []
    result = LocalLauncher().run(spec.model_copy(update={"arguments": ("folder",)}), lines.append)
    assert result.seconds > 0
    assert "[rank 0] rank 0 of 2 with folder and ***" in lines
    assert "[rank 1] to postgres://me:***@host/db" in lines


def test_reports_the_error_that_a_rank_reported(tmp_path) -> None:
    body = """
        from infra.errors import DiskFull
        from infra.launching.ranks import reporting_failures
        with reporting_failures():
            if rank == 1:
                raise DiskFull("checkpoint", "must fit", "Free space")
            time.sleep(60)
        """
    with pytest.raises(DiskFull) as failure:
        LocalLauncher().run(job(tmp_path, body), lambda line: None)
    assert str(failure.value) == "checkpoint: must fit. Free space."


def test_reports_the_last_lines_of_the_rank_that_failed(tmp_path) -> None:
    body = """
        if rank == 1:
            raise KeyError("no such layer")
        time.sleep(60)
        """
    with pytest.raises(RunFailed) as failure:
        LocalLauncher().run(job(tmp_path, body), lambda line: None)
    assert "rank 1 exited with code 1; its last lines:" in str(failure.value)
    assert "KeyError: 'no such layer'" in str(failure.value)
    assert len(str(failure.value).splitlines()) < 20


def test_refused_input_keeps_its_kind(tmp_path) -> None:
    body = """
        from infra.errors import BadInput
        from infra.launching.ranks import reporting_failures
        with reporting_failures():
            raise BadInput("heads = 3", "must be even", "Set 4")
        """
    with pytest.raises(BadInput, match="heads = 3: must be even"):
        LocalLauncher().run(job(tmp_path, body, processes=1), lambda line: None)


def test_what_ignores_the_request_to_stop_is_killed(tmp_path) -> None:
    body = """
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("pid", os.getpid(), flush=True)
        time.sleep(600)
        """
    spec = job(tmp_path, body, processes=1).model_copy(update={"grace_seconds": 1})
    ranks: list[int] = []

    def stop(line: str) -> None:
        if "pid" in line:
            ranks.append(int(line.split()[-1]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalLauncher().run(spec, stop)
    assert ranks
    assert gone(ranks[0])


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_a_second_request_to_stop_does_not_disturb_ranks_that_write() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with _told_once():
            os.kill(os.getpid(), signal.SIGTERM)
        assert not heard
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_killed_launcher_leaves_nothing_behind(tmp_path) -> None:
    spec = job(
        tmp_path,
        """
        from infra.launching.ranks import reporting_failures
        with reporting_failures():
            print("pid", os.getpid(), flush=True)
            time.sleep(600)
        """,
        processes=1,
    )
    script = f"""
from infra.launching.launch import JobSpec, LocalLauncher
LocalLauncher().run(JobSpec.model_validate_json({spec.model_dump_json()!r}), lambda line: print(line, flush=True))
"""
    launcher = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    with launcher.stdout as lines:
        rank = next(int(line.split()[-1]) for line in lines if "pid" in line)
        agent = psutil.Process(rank).ppid()
        os.kill(launcher.pid, signal.SIGKILL)
        launcher.wait()
        assert gone(agent)
        assert gone(rank)


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_the_next_job_of_a_folder_waits_for_ranks_whose_launcher_was_killed(tmp_path) -> None:
    body = """
        from infra.launching.ranks import reporting_failures
        from model.rank import StopRequest
        with reporting_failures(), StopRequest() as stop:
            print("pid", os.getpid(), flush=True)
            while not stop.requested:
                time.sleep(0.05)
            time.sleep(2)
            open(sys.argv[1], "w").close()
        """
    folder, saved = tmp_path / "run", tmp_path / "saved"
    update = {"folder": str(folder), "arguments": (str(saved),)}
    spec = job(tmp_path, body, processes=1).model_copy(update=update)
    script = f"""
from infra.launching.launch import JobSpec, LocalLauncher
LocalLauncher().run(JobSpec.model_validate_json({spec.model_dump_json()!r}), lambda line: print(line, flush=True))
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        assert "pid" in launcher.stdout.readline()
        with (
            pytest.raises(RunFailed, match=rf"is under way already \(process {launcher.pid}"),
            only_one(Store(str(folder)), "rank_body.lock", "a job"),
        ):
            pass
        launcher.kill()
    assert not saved.exists()
    with LocalLauncher().room(spec):
        assert saved.exists()


def gone(pid: int) -> bool:
    """Whether a process ends within a minute; one that nobody has waited for has ended too."""
    for _ in range(600):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False
