"""Data of the harness's tasks: files beside a task's YAML, or data sets of the Hugging Face hub.

The harness resolves `dataset_kwargs.data_files` against the folder that a program happens to run in. Here they stand
beside the YAML, so that a folder of tasks can be moved; Parquet is read without datasets' cache on disk.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra.errors import BadInput

_LOCAL = ("json", "parquet", "csv", "text", "arrow")
"""Builders of `datasets` that read files."""


class TaskData:
    """Reads one task's data set; stands in a task's configuration as its `custom_dataset`."""

    def __init__(self, task: str, config: Mapping[str, Any], folder: Path, were_read: "list[TaskData]") -> None:
        self.task, self._were_read = task, were_read
        self._path, self._name = config.get("dataset_path"), config.get("dataset_name")
        self._options = dict(config.get("dataset_kwargs") or {})
        self._options.pop("trust_remote_code", None)
        self._folder = folder
        self.columns: dict[str, list[str]] = {}
        """Columns of each split; empty before it is read."""

    def __deepcopy__(self, memo: Any) -> "TaskData":
        return self  # the harness copies configurations; what was read is to be seen here

    def __repr__(self) -> str:
        return f"TaskData({self.task})"

    def __call__(self, **_: Any) -> Any:
        """The `datasets.DatasetDict`; BadInput where it cannot be had."""
        files = self._files()
        if files is not None and all(name.endswith(".parquet") for names in files.values() for name in names):
            found = _read_parquet(self.task, files)
        else:
            found = self._read_by_datasets(files)
        self.columns = {split: list(table.column_names) for split, table in found.items()}
        self._were_read.append(self)
        return found

    def _files(self) -> dict[str, list[str]] | None:
        """Paths of the data files by split; none for a data set of the hub."""
        given = self._options.get("data_files")
        if self._path not in _LOCAL or given is None:
            return None
        by_split = given if isinstance(given, Mapping) else {"train": given}
        return {
            split: [path for each in ([names] if isinstance(names, str) else names) for path in self._found(each)]
            for split, names in by_split.items()
        }

    def _found(self, name: str) -> list[str]:
        if "://" in name:
            return [name]
        for folder in (self._folder, Path.cwd()):
            if paths := sorted(folder.glob(name) if not Path(name).is_absolute() else Path("/").glob(name[1:])):
                return [str(path) for path in paths]
        raise BadInput(
            f"data file {name} of task {self.task}",
            f"it must stand where the task's YAML says, seen from {self._folder}",
            "Restore it, or make the folder again with `gristmill benchmarks`",
        )

    def _read_by_datasets(self, files: dict[str, list[str]] | None) -> Any:
        import datasets

        beside = self._folder / str(self._path)
        path = str(beside if beside.is_dir() else self._path)
        options: dict[str, Any] = {**self._options, "data_files": files} if files is not None else self._options
        try:
            if files is None:
                return datasets.load_dataset(path, self._name, **options)
            with TemporaryDirectory() as cache:
                return datasets.load_dataset(path, cache_dir=cache, keep_in_memory=True, **options)
        except Exception as error:  # the hub, the network and every builder have errors of their own
            raise cannot_be_had(self.task, f"{path} ({_first_line(error)})", local=files is not None) from error


def _read_parquet(task: str, files: Mapping[str, list[str]]) -> Any:
    import datasets

    try:
        tables = {split: pa.concat_tables([pq.read_table(name) for name in names]) for split, names in files.items()}
    except (OSError, pa.ArrowException) as error:
        raise cannot_be_had(task, f"{next(iter(files.values()))[0]} ({_first_line(error)})", local=True) from error
    return datasets.DatasetDict({split: datasets.Dataset(table) for split, table in tables.items()})


def cannot_be_had(task: str, what: str, *, local: bool) -> BadInput:
    """What to say of data that are not there or cannot be read."""
    if local:
        remedy = "Make them again with `gristmill benchmarks`"
        return BadInput(f"task {task}: {what}", "data files of a task must be readable", remedy)
    return BadInput(
        f"task {task}: {what}",
        "a task that is not in benchmarks.tasks_dir comes from the Hugging Face hub",
        "Make a folder of tasks with `gristmill benchmarks` and set benchmarks.tasks_dir, or connect to the hub and "
        "leave HF_HUB_OFFLINE unset",
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
