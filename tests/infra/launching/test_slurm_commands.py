"""Commands of Slurm that do not answer."""

from pathlib import Path

import pytest

from infra.launching.slurm_commands import ask, state_and_reason


def test_a_command_that_does_not_answer_is_an_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("infra.launching.slurm_commands._ANSWER_SECONDS", 0.1)
    assert ask(["squeue"]).returncode == 124
    assert state_and_reason("7") == ("UNKNOWN", "")
