"""Published benchmark files made into a folder of tasks that lm-evaluation-harness reads.

The same files give the same bytes. The folder appears when it is whole.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from infra.errors import BadInput
from tasks.benchmarks.catalogue import Place, find_kind
from tasks.benchmarks.files import NOT_DATA, unpacked
from tasks.benchmarks.folder import MANIFEST, Conversion, SplitParts, TaskParts, task_config, write_folder
from tasks.benchmarks.source import Converted, NoAnswers, Source

_UNKNOWN = "no benchmark that is known has that name"
_MAX_BYTES = 4 << 30
"""Most bytes of all files together, unpacked."""


def convert(source: str, folder: str) -> Conversion:
    """Make a folder of tasks of the benchmark files in or below `source`, or in that one file.

    BadInput for files that are damaged or have other columns, for a source without benchmarks, and for a folder that
    holds something else.
    """
    _check_folder(Path(folder))
    found: dict[str, TaskParts] = {}
    sources, files = _read(Path(source))
    unknown = (name for name in sources if find_kind(name) is None and not _packed(name))
    left_out = {name: _UNKNOWN for name in unknown if not NOT_DATA.match(name.rpartition("/")[2])}
    _take_all(_placed(files, left_out), found, left_out)
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:5])
        raise BadInput(
            f"{source} has no benchmark that can be used{f' ({reasons})' if reasons else ''}",
            "its files or their folders must be called as the benchmarks are: hellaswag, arc_easy, mmlu, ...",
            "Name them so, or correct the path",
        )
    licences = tuple(sorted(name for name in sources if NOT_DATA.match(name.rpartition("/")[2])))
    return write_folder(Path(folder), found, sources, left_out, licences)


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
    size = 0
    for path in paths:
        name, data = path.relative_to(source.parent).as_posix(), path.read_bytes()
        digests[name] = hashlib.sha256(data).hexdigest()
        if find_kind(name) is not None or _packed(name):
            members = dict(unpacked(name, data))
            files.update(members)
            size += sum(map(len, members.values()))
        if size > _MAX_BYTES:
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


def _take_all(placed: Iterable[tuple[Source, Place]], found: dict[str, TaskParts], left_out: dict[str, str]) -> None:
    """Add the files whose own names tell most first; refuse a benchmark of which no file can be read."""
    taken: set[str] = set()
    doubtful: dict[str, BadInput] = {}
    for source, place in sorted(placed, key=lambda pair: (pair[1].distance, pair[0].name)):
        try:
            if _take(source, place, found, left_out):
                taken.add(place.kind.name)
        except BadInput as error:
            if place.distance == 0 or source.split is not None:
                raise
            doubtful.setdefault(place.kind.name, error)  # it only lies in the folder, and may be something else
            left_out[source.name] = f"it is no file of {place.kind.name}: {error.value}"
    for kind, error in doubtful.items():
        if kind not in taken:
            raise error


def _take(source: Source, place: Place, found: dict[str, TaskParts], left_out: dict[str, str]) -> bool:
    """Add what a file has, and say whether it had anything."""
    try:
        converted = [each for each in place.kind.convert(source) if each.rows]
    except NoAnswers:
        left_out[source.name] = "it has no right answers"
        return False
    for each in converted:
        _add(each, source, place, found, left_out)
    return bool(converted)


def _add(each: Converted, source: Source, place: Place, found: dict[str, TaskParts], left_out: dict[str, str]) -> None:
    config = task_config(each.yaml)
    task = found.setdefault(config["task"], TaskParts(each.yaml))
    split = each.split or source.split or config.get("test_split") or config["validation_split"]
    before = task.splits.get(split)
    if before is None:
        task.splits[split] = SplitParts(place.distance, each.rows, [source.name])
    elif before.distance < place.distance:
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
