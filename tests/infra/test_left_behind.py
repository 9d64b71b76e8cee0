"""What services have started is found after their end, told once, awaited, and killed when it is late."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.left_behind import end_all, inherited, left_behind

RUN = """
import signal, subprocess, sys, time
from infra.child import child_command
ends = []
signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
rank = subprocess.Popen(child_command("rank", sys.argv[1:]), start_new_session=True, stdout=subprocess.PIPE)
rank.stdout.readline()
print("up", flush=True)
while not ends:
    time.sleep(0.02)
rank.terminate()
rank.wait()
"""
RANK = """
import signal, sys, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
print("up", flush=True)
while not asked or sys.argv[1] == "stays":
    time.sleep(0.02)
time.sleep(0.5)  # for another signal, which must not come
open(f"asked-{len(asked)}", "w").close()
"""


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator["subprocess.Popen[str]"]:
    """A flow run whose worker is gone, with a rank that writes a checkpoint or never ends."""
    (tmp_path / "rank.py").write_text(RANK)
    python_path = f"{tmp_path}:{Path(__file__).parents[2]}"
    with subprocess.Popen(
        [sys.executable, "-c", RUN, request.param],
        env={**os.environ, **inherited(tmp_path), "PYTHONPATH": python_path},
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


@pytest.mark.parametrize("run", ["saves"], indirect=True)
def test_a_rank_writes_its_checkpoint_before_the_end(run: "subprocess.Popen[str]", tmp_path: Path) -> None:
    assert len(left_behind(tmp_path)) == 2
    assert run.pid not in {each.pid for each in left_behind(tmp_path, [run.pid])}
    end_all(lambda: left_behind(tmp_path), 60)
    assert (tmp_path / "asked-1").exists()
    assert not left_behind(tmp_path)
    assert run.wait() == 0


@pytest.mark.parametrize("run", ["saves"], indirect=True)
def test_a_rank_whose_run_was_killed_is_told_by_the_kernel_alone(run: "subprocess.Popen[str]", tmp_path: Path) -> None:
    run.kill()
    run.wait()
    end_all(lambda: left_behind(tmp_path), 60)
    assert (tmp_path / "asked-1").exists()


@pytest.mark.parametrize("run", ["stays"], indirect=True)
def test_what_is_late_is_killed(run: "subprocess.Popen[str]", tmp_path: Path) -> None:
    end_all(lambda: left_behind(tmp_path), 0.3)
    assert not left_behind(tmp_path)
    run.wait()
