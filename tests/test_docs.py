"""The documentation is true: commands parse, targets exist, the tree of the README is the tree."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from flows.ablations.settings import AblationSettings, variant_corpora
from flows.cli import main
from flows.command_line import SettingsCommand, gather
from flows.config import PipelineSettings
from flows.refreshes.settings import RefreshOptions
from infra.configuration import assignment, load_settings
from infra.settings import Settings

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.S | re.M)


def shell_lines() -> list[str]:
    lines = [line for language, block in BLOCKS if language == "sh" for line in block.splitlines()]
    return [line.split("   #")[0].strip() for line in lines if line.strip()]


@pytest.mark.parametrize("line", [line for line in shell_lines() if "gristmill" in line])
def test_commands_of_the_readme_mean_something(line: str):
    _, name, *arguments = shlex.split(line)
    command = main.commands[name]
    given = command.make_context(name, arguments).params
    of_its_own: dict[str, type[Settings]] = {"refresh_corpus": RefreshOptions, "ablate": AblationSettings}
    if (kind := of_its_own.get(given.get("flow", ""))) is not None:
        assert load_settings(kind, kind(), given["config"], list(map(assignment, given["assignments"])))
    elif isinstance(command, SettingsCommand) and command.kind is PipelineSettings:
        own_of_plan = ("flow", "runs", "sample_shards", "sample_records", "seventy_billion", "device", "mfu", "measure")
        for own in ("as_json", "tokens_per_second", "measure", *own_of_plan):
            given.pop(own, None)
        assert gather(name, **given)


def test_make_targets_of_the_readme_exist():
    makefile = (REPOSITORY / "Makefile").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z0-9]+)", README, re.M))
    assert {"demo", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.M), target
    helped = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for target in re.findall(r"^\.PHONY: (.*)$", makefile, re.M)[0].split():
        assert f"make {target}" in helped


def test_the_tree_of_the_readme_is_the_tree():
    listed = set()
    folder = ""
    block = next(block for _, block in BLOCKS if "end_to_end.py" in block)
    for line in block.splitlines():
        found = re.match(r"([\w/]+/)?\s+([\w.]+)\s+\S", line)
        if not found and line.endswith("/"):
            folder = line
        if found:
            folder = found[1] or folder
            listed.add(folder + found[2])
    actual = {
        str(path.relative_to(REPOSITORY))
        for folder in ("flows", "tasks", "model", "infra")
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and path.name != "__init__.py" and "__pycache__" not in path.parts and path.suffix != ".jinja"
    }
    assert listed == actual


def test_the_lock_names_no_address_and_pins_every_line():
    for line in (REPOSITORY / "requirements.lock").read_text().splitlines():
        assert re.match(r"^[a-z0-9._-]+==[^\s]+( ; .+)?$", line), line


@pytest.mark.parametrize("kind", [PipelineSettings, AblationSettings])
def test_configurations_of_the_readme_are_settings(kind: type[Settings], tmp_path: Path):
    wanted = "ablation.toml" if kind is AblationSettings else "evaluation.toml"
    (block,) = [block for language, block in BLOCKS if language == "toml" and wanted in block]
    (tmp_path / wanted).write_text(block)
    found = load_settings(kind, kind(), tmp_path / wanted, [])
    if isinstance(found, AblationSettings):
        assert list(variant_corpora(found)) == ["plain", "long"]
