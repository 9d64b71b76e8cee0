"""Progress lines on the terminal."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from flows import progress


@pytest.fixture
def loggers() -> Iterator[list[logging.Logger]]:
    """Those of our packages, afterwards as they were."""
    ours = [logging.getLogger(name) for name in progress.PACKAGES]
    before = [(each, each.level, list(each.handlers)) for each in ours]
    yield ours
    for each, level, handlers in before:
        each.setLevel(level)
        each.handlers[:] = handlers


def test_commands_that_run_in_one_process_say_each_line_once(
    loggers: list[logging.Logger], capsys: pytest.CaptureFixture[str]
) -> None:
    others = [logging.NullHandler() for _ in loggers]
    for logger, handler in zip(loggers, others, strict=True):
        logger.addHandler(handler)
    progress.to_terminal()
    progress.to_terminal()
    logging.getLogger("infra.store").info("one line")
    assert capsys.readouterr().err.count("one line") == 1
    assert all(handler in logger.handlers for logger, handler in zip(loggers, others, strict=True))


def test_a_flow_run_outlives_the_worker_that_read_its_output(tmp_path: Path) -> None:
    flow = """
import logging, sys, time
from pathlib import Path
from rich.console import Console
from flows import progress
progress.let_through()
console = Console(file=sys.stderr)
print("started", flush=True)
for _ in range(60):
    time.sleep(0.02)
    console.print("a line"), print("another", flush=True)
Path(sys.argv[1]).touch()
"""
    done = tmp_path / "done"
    environment = {**os.environ, "PREFECT__FLOW_RUN_ID": str(uuid4())}
    command = [sys.executable, "-c", flow, str(done)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"started\n"
    process.stdout.close()
    process.stderr.close()
    assert process.wait(60) == 0
    assert done.exists()
