"""A folder of published benchmark files made into a folder of tasks that lm-evaluation-harness reads.

    FOLDER/hellaswag.yaml                   the harness's own, but for where the data are
    FOLDER/data/hellaswag/validation.parquet
    FOLDER/mmlu.yaml ...                    groups, of the tasks that are there
    FOLDER/manifest.json                    what was made of which bytes

Paths in it are relative, so that it can be moved; `cd FOLDER; lm_eval --include_path . ...` reads it as well. The same
files give the same bytes. The folder appears when it is whole.
"""

import hashlib
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
from tasks.benchmarks.catalogue import Place, find_kind
from tasks.benchmarks.files import NOT_DATA, unpacked
from tasks.benchmarks.source import Converted, NoAnswers, Row, Source
from tasks.benchmarks.texts import BOOKS

MANIFEST = "manifest.json"
_GROUPS = (
    *(f"mmlu/default/_mmlu{part}.yaml" for part in ("_stem", "_other", "_social_sciences", "_humanities", "")),
    "blimp/_blimp.yaml",
    "hendrycks_math/hendrycks_math.yaml",
)
"""Groups of the harness, those within others first."""
_SPLIT_KEYS = ("training_split", "validation_split", "test_split", "fewshot_split")
_UNKNOWN = "no benchmark that is known has that name"
_SHOWN = 20
_MAX_BYTES = 4 << 30
"""Most bytes of all files together, unpacked."""
_SANDBOX = "model.evaluation.code_execution"


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
class _Split:
    """Items of one split, and the file or files that they are from."""

    place: Place
    rows: list[Row]
    files: list[str]


@dataclass
class _Task:
    """A task as it comes together from files."""

    yaml: str
    splits: dict[str, _Split] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def convert(source: str, folder: str) -> Conversion:
    """Make a folder of tasks of the benchmark files in or below `source`, or in that one file.

    BadInput for files that are damaged or have other columns, for a source without benchmarks, and for a folder that
    holds something else.
    """
    _check_folder(Path(folder))
    found: dict[str, _Task] = {}
    sources, files = _read(Path(source))
    unknown = (name for name in sources if find_kind(name) is None and not _packed(name))
    left_out = {name: _UNKNOWN for name in unknown if not NOT_DATA.match(name.rpartition("/")[2])}
    taken: set[str] = set()
    doubtful: dict[str, BadInput] = {}
    for each, place in sorted(_placed(files, left_out), key=lambda pair: (pair[1].distance, pair[0].name)):
        try:
            if _take(each, place, found, left_out):
                taken.add(place.kind.name)
        except BadInput as error:
            if place.distance == 0 or each.split is not None:
                raise
            doubtful.setdefault(place.kind.name, error)  # it only lies in the folder, and may be something else
            left_out[each.name] = f"it is no file of {place.kind.name}: {error.value}"
    for kind, error in doubtful.items():
        if kind not in taken:
            raise error
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:5])
        raise BadInput(
            f"{source} has no benchmark that can be used{f' ({reasons})' if reasons else ''}",
            "its files or their folders must be called as the benchmarks are: hellaswag, arc_easy, mmlu, ...",
            "Name them so, or correct the path",
        )
    licences = tuple(sorted(name for name in sources if NOT_DATA.match(name.rpartition("/")[2])))
    return _write(Path(folder), found, sources, left_out, licences)


def _check_folder(folder: Path) -> None:
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} exists", "the folder of tasks must be new or one made before", "Name another folder")


def _read(source: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """Digests of the files as they are, and the content of what they unpack to."""
    if not source.exists():
        raise BadInput(f"{source} does not exist", "it must be a file or folder of benchmarks", "Correct the path")
    source = source.resolve()
    paths = sorted(each for each in source.rglob("*") if each.is_file()) if source.is_dir() else [source]
    digests: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for path in paths:
        name, data = path.relative_to(source.parent).as_posix(), path.read_bytes()
        digests[name] = hashlib.sha256(data).hexdigest()
        if find_kind(name) is not None or _packed(name):
            files.update(unpacked(name, data))
        if sum(map(len, files.values())) > _MAX_BYTES:
            raise BadInput(
                f"{source} has more than {_MAX_BYTES} bytes", "no set of benchmarks is that large", "Give less"
            )
    return digests, files


def _packed(name: str) -> bool:
    """Whether the names within decide."""
    return name.endswith(".zip")


def _placed(files: dict[str, bytes], left_out: dict[str, str]) -> Iterator[tuple[Source, Place]]:
    for name, data in files.items():
        if name.endswith(".lst"):
            continue
        place = find_kind(name)
        if place is None:
            left_out[name] = _UNKNOWN
            continue
        folder = name.rpartition("/")[0]
        yield Source(name, data, place.split, lambda beside, folder=folder: files.get(f"{folder}/{beside}")), place


def _take(source: Source, place: Place, found: dict[str, _Task], left_out: dict[str, str]) -> bool:
    """Add what a file has, and say whether it had anything."""
    try:
        converted = [each for each in place.kind.convert(source) if each.rows]
    except NoAnswers:
        left_out[source.name] = "it has no right answers"
        return False
    for each in converted:
        _add(each, source, place, found, left_out)
    return bool(converted)


def _add(each: Converted, source: Source, place: Place, found: dict[str, _Task], left_out: dict[str, str]) -> None:
    config = _config(each.yaml)
    task = found.setdefault(config["task"], _Task(each.yaml))
    split = each.split or source.split or config.get("test_split") or config["validation_split"]
    before = task.splits.get(split)
    if before is None:
        task.splits[split] = _Split(place, each.rows, [source.name])
    elif before.place.distance < place.distance:
        left_out[source.name] = f"{before.files[0]} has the items of {config['task']} already"
        return
    elif place.kind.many:
        before.rows += each.rows
        before.files.append(source.name)
    else:
        raise BadInput(
            f"{source.name} and {before.files[0]}", f"both are {split} of {config['task']}", "Remove one of them"
        )
    task.changes.update(each.changes)
    task.note = each.note or task.note


def _config(path: str) -> harness.Config:
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


def _write(
    folder: Path,
    found: dict[str, _Task],
    sources: dict[str, str],
    left_out: dict[str, str],
    licences: tuple[str, ...],
) -> Conversion:
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


def _summary(task: _Task) -> ConvertedTask:
    files = dict.fromkeys(name for split in task.splits.values() for name in split.files)
    items = {name: len(split.rows) for name, split in sorted(task.splits.items())}
    return ConvertedTask(items=items, files=tuple(files), note=task.note)


def _write_task(store: Store, name: str, task: _Task) -> list[str]:
    """Write a task's data and YAML; its tags."""
    for split, found in task.splits.items():
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(found.rows), out, compression="zstd")
        store.write_bytes(f"data/{name}/{split}.parquet", out.getvalue())
    config = _local_config(_config(task.yaml), name, task)
    store.write_bytes(f"{name}.yaml", harness.write_config(config))
    tags = config.get("tag") or []
    return [tags] if isinstance(tags, str) else list(tags)


def _local_config(config: harness.Config, name: str, task: _Task) -> harness.Config:
    """The harness's configuration with the data beside it, and without splits that are not there."""
    files = {split: f"data/{name}/{split}.parquet" for split in sorted(task.splits)}
    config = {**config, "dataset_path": "parquet", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    if "class" in config:
        config["class"] = harness.Function("model.evaluation.squad.SquadFiles")
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
        config["task"] = [name for name in config["task"] if name in known]
        if config["task"]:
            known.add(config["group"])
            store.write_bytes(f"{config['group']}.yaml", harness.write_config(config))
            yield config["group"]
