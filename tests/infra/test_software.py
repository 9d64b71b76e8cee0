"""Tags of what a run was made with."""

import hashlib
import re
import subprocess

from infra import software
from infra.software import hardware_tags, software_tags
from tests.flows.conftest import REPOSITORY


def test_a_checkout_says_its_commit_and_lock() -> None:
    tags = software_tags()
    lock = (REPOSITORY / "requirements.lock").read_bytes()
    assert tags["software.lock"] == hashlib.sha256(lock).hexdigest()
    assert {"software.gristmill", "software.python", "software.torch", "software.megatron-core"} <= set(tags)
    if (REPOSITORY / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert tags["git.commit"] == tags["mlflow.source.git.commit"] == head.stdout.strip()
        assert tags["git.dirty"] in ("true", "false")


def test_an_image_says_its_commit_by_a_variable(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(software, "_CHECKOUT", tmp_path)
    monkeypatch.setenv(software.COMMIT_VARIABLE, "c0ffee")
    tags = software_tags.__wrapped__()
    assert (tags["git.commit"], tags["git.dirty"]) == ("c0ffee", "false")
    assert re.fullmatch("[0-9a-f]{64}", tags["software.lock"]), "of the installed distributions"


def test_a_machine_is_told_by_what_it_is_made_of() -> None:
    tags = hardware_tags()
    assert int(tags["hardware.cores"]) >= 1
    assert int(tags["hardware.memory_gib"]) >= 1
    assert tags["hardware.cpu"]
