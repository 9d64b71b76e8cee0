"""The harness's own YAML of a task, as YAML that stands alone and refers to the harness's functions by module.

The harness itself is not imported, only its files are read.
"""

from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

Config = dict[str, Any]


class Function(str):
    """Dotted name of a function, written as `!function`."""


class _Writer(yaml.SafeDumper):
    """Writes functions as the harness reads them."""


_Writer.add_representer(Function, lambda writer, name: writer.represent_scalar("!function", str(name)))


def harness_version() -> str:
    """Version of the lm-evaluation-harness that is installed."""
    return version("lm_eval")


def tasks_folder() -> Path:
    """Where the harness keeps its tasks."""
    found = find_spec("lm_eval")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "tasks"


@lru_cache(maxsize=256)
def read_config(path: str) -> Config:
    """A YAML file of the harness, seen from its folder of tasks, with all that it includes; not to be changed."""
    return _read(tasks_folder() / path)


def _read(path: Path) -> Config:
    class Reader(yaml.SafeLoader):
        """Knows the folder that functions are named from."""

    def construct(_: yaml.SafeLoader, node: yaml.Node) -> Function:
        return _function(str(node.value), path.parent)

    Reader.add_constructor("!function", construct)
    config = yaml.load(path.read_bytes(), Loader=Reader)  # noqa: S506 - it is a SafeLoader with one more tag
    included = config.pop("include", [])
    merged: Config = {}
    for each in included if isinstance(included, list) else [included]:
        merged.update(_read(path.parent / each))
    return {**merged, **config}


def _function(name: str, folder: Path) -> Function:
    module, _, function = name.rpartition(".")
    if not (folder / f"{module.replace('.', '/')}.py").exists():
        return Function(name)
    return Function(".".join(["lm_eval.tasks", *folder.relative_to(tasks_folder()).parts, module, function]))


def write_config(config: Config) -> bytes:
    """YAML in the order of the keys."""
    text = yaml.dump(config, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=120)
    return text.encode()
