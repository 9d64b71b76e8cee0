"""A folder of tasks as it is written: data, YAML, groups and manifest.

    FOLDER/hellaswag.yaml                   the harness's own, but for where the data are
    FOLDER/data/hellaswag/validation.parquet
    FOLDER/mmlu.yaml ...                    groups, of the tasks that are there
    FOLDER/manifest.json                    what was made of which bytes, written last

Paths in it are relative, so that it can be moved; `cd FOLDER; lm_eval --include_path . ...` reads it as well.
"""

import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra.errors import BadInput
from infra.manifest import Manifest
from infra.settings import Settings
from infra.store import Store
from tasks.benchmarks import harness
from tasks.benchmarks.source import Row
from tasks.benchmarks.texts import BOOKS

MANIFEST = "manifest.json"
_GROUPS = (
    *(f"mmlu/default/_mmlu{part}.yaml" for part in ("_stem", "_other", "_social_sciences", "_humanities", "")),
    "blimp/_blimp.yaml",
    "hendrycks_math/hendrycks_math.yaml",
)
"""Groups of the harness, those within others first."""
_SPLIT_KEYS = ("training_split", "validation_split", "test_split", "fewshot_split")
_SHOWN = 20
_SANDBOX = "model.benchmarks.code_execution"


class ConvertedTask(Settings):
    """One task of the folder."""

    items: dict[str, int]
    """By split."""
    files: tuple[str, ...]
    """What they were read from."""
    note: str = ""
    """How it differs from the hub's."""


class Conversion(Manifest):
    """What was made of a folder of benchmark files."""

    harness_version: str
    tasks: dict[str, ConvertedTask]
    groups: tuple[str, ...]
    sources: dict[str, str]
    """SHA-256 of every file that was looked at, by path."""
    left_out: dict[str, str]
    """Why, by file."""
    licences: tuple[str, ...]
    """Files that say what may be done with the data; read them where they are."""

    def text(self) -> str:
        """The same for people."""
        lines = [
            f"{name:<32} {_counts(task.items)}{f'  ({task.note})' * bool(task.note)}"
            for name, task in self.tasks.items()
        ]
        lines += [f"left out: {name} ({reason})" for name, reason in list(self.left_out.items())[:_SHOWN]]
        lines += [f"left out: {more:,} more files"] if (more := len(self.left_out) - _SHOWN) > 0 else []
        return "\n".join([*lines, f"{len(self.tasks)} tasks; groups: {', '.join(self.groups) or 'none'}"])


def _counts(items: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {split}" for split, number in items.items())


@dataclass
class SplitParts:
    """Items of one split, and the file or files that they are from."""

    distance: int
    """How near its name stands to the items, see `catalogue.Place`."""
    rows: list[Row]
    files: list[str]


@dataclass
class TaskParts:
    """A task as it comes together from files."""

    yaml: str
    splits: dict[str, SplitParts] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def task_config(path: str) -> harness.Config:
    """The harness's YAML of a task; BadInput where it has none, such as for an unknown subject of MMLU."""
    if path == BOOKS["task"]:
        return dict(BOOKS)
    try:
        config = harness.read_config(path)
    except FileNotFoundError as error:
        raise BadInput(
            f"{Path(path).stem} of {path.partition('/')[0]}",
            "lm-evaluation-harness has no such task",
            "Remove its file",
        ) from error
    return config


def write_folder(
    folder: Path,
    found: dict[str, TaskParts],
    sources: dict[str, str],
    left_out: dict[str, str],
    licences: tuple[str, ...],
) -> Conversion:
    """Write everything under another name, then put it in the folder's place; what was there before is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        made = Path(temporary) / "made"
        store = Store(str(made))
        tags = {tag for name, task in sorted(found.items()) for tag in _write_task(store, name, task)}
        groups = tuple(_write_groups(store, {*found, *tags}))
        conversion = Conversion(
            harness_version=harness.harness_version(),
            tasks={name: _summary(task) for name, task in sorted(found.items())},
            groups=groups,
            sources=sources,
            left_out=dict(sorted(left_out.items())),
            licences=licences,
        )
        conversion.save(store, MANIFEST)
        if folder.exists():
            folder.rename(Path(temporary) / "before")
        made.rename(folder)
    return conversion


def _summary(task: TaskParts) -> ConvertedTask:
    files = dict.fromkeys(name for split in task.splits.values() for name in split.files)
    items = {name: len(split.rows) for name, split in sorted(task.splits.items())}
    return ConvertedTask(items=items, files=tuple(files), note=task.note)


def _write_task(store: Store, name: str, task: TaskParts) -> list[str]:
    """Write a task's data and YAML; its tags."""
    for split, found in task.splits.items():
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(found.rows), out, compression="zstd")
        store.write_bytes(f"data/{name}/{split}.parquet", out.getvalue())
    config = _local_config(task_config(task.yaml), name, task)
    store.write_bytes(f"{name}.yaml", harness.write_config(config))
    tags = config.get("tag") or []
    return [tags] if isinstance(tags, str) else list(tags)


def _local_config(config: harness.Config, name: str, task: TaskParts) -> harness.Config:
    """The harness's configuration with the data beside it, and without splits that are not there."""
    files = {split: f"data/{name}/{split}.parquet" for split in sorted(task.splits)}
    config = {**config, "dataset_path": "parquet", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    if "class" in config:
        config["class"] = harness.Function("model.benchmarks.squad.SquadFiles")
    else:
        config.update(_splits(config, set(task.splits)))
    if config.get("unsafe_code"):
        config = _sandboxed(config)
    config.update(task.changes)
    return {key: value for key, value in config.items() if value is not None or key == "dataset_name"}


def _splits(config: harness.Config, there: set[str]) -> dict[str, str | None]:
    """Which split is for what. Where one split is all there is, examples are taken from it, and the harness is told so.

    It leaves an item out of its own examples only where `fewshot_split` is `test_split`.
    """
    splits = {key: config[key] if config.get(key) in there else None for key in _SPLIT_KEYS}
    if not (splits["test_split"] or splits["validation_split"]):
        splits["test_split"] = min(there - {"train", "dev"} or there, key=lambda name: name != "validation")
    asked = splits["test_split"] or splits["validation_split"]
    others = {splits["training_split"], splits["validation_split"], splits["fewshot_split"]} - {None, asked}
    if not others and "samples" not in (config.get("fewshot_config") or {}):
        splits.update(training_split=None, validation_split=None, test_split=asked, fewshot_split=asked)
    return splits


def _sandboxed(value: Any) -> Any:
    """A configuration whose functions are our own of the same names."""
    if isinstance(value, dict):
        return {key: _sandboxed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_sandboxed(each) for each in value]
    return harness.Function(f"{_SANDBOX}.{value.rpartition('.')[2]}") if isinstance(value, harness.Function) else value


def _write_groups(store: Store, known: set[str]) -> Iterator[str]:
    """Write the harness's groups of what is there."""
    for path in _GROUPS:
        config = harness.read_config(path)
        config = {**config, "task": [name for name in config["task"] if name in known]}
        if config["task"]:
            known.add(config["group"])
            store.write_bytes(f"{config['group']}.yaml", harness.write_config(config))
            yield config["group"]
