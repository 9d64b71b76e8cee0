"""Benchmarks as items: what a question or passage of an evaluation set is called, and its text.

A benchmark is a file or a folder of files: JSON lines, JSON, CSV, TSV, Parquet or plain text, each possibly compressed
(gz, bz2, xz) or in a zip archive. An item is named `benchmark/task/number`: the task is the file's path without its
endings, the number counts the file's items from 0, as lm-evaluation-harness does.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
from pydantic import Field

from infra.errors import BadInput
from tasks.inputs import UserFile

QUESTION_FIELDS = (
    *("question", "query", "problem", "prompt", "goal", "sol1", "sol2", "context", "context_options", "ctx", "passage"),
    *("premise", "hypothesis", "sentence", "sentence1", "sentence2", "sentence_good", "text", "input", "instruction"),
)
"""What the published benchmarks call the text that makes an item; answers are short or stand in no other page."""
PROMPT_LABELS = re.compile(
    r"(?mi)^[ \t]*+(?:question|passage|context|choices|options|answer|problem|solution|statement \d)[ \t]*+[:|]"
    r"|^[ \t]*+[A-H][.)][ \t]"
)
"""What a prompt adds to an item's text (`Question:`, `A.`): a page that has the text does not have them."""
NOT_DATA = re.compile(r"(?i)(readme|licen[cs]e|notice|copying|citation)\b|\.")
OPENERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}


class Benchmark(UserFile):
    """One benchmark: a file, or a folder of files."""

    name: str = Field(pattern=r"^[\w.-]+$")
    """What its items and counters are called by."""
    fields: tuple[str, ...] | None = None
    """Fields that make an item's text; unset takes those that usual names tell, or else every text field."""
    lines_per_item: int = Field(default=1, ge=1)
    """Lines of plain text that make an item, of which the first is its text (6 for the text form of HellaSwag)."""


class Item(NamedTuple):
    """One item: its name, and its text in parts that do not follow each other."""

    benchmark: str
    task: str
    number: int
    parts: list[str]


def read_items(benchmark: Benchmark) -> Iterator[Item]:
    """The items of a benchmark, in order of its files; BadInput where it has none or lacks the fields."""
    place, found = Path(benchmark.path), False
    files = sorted(each for each in place.rglob("*") if each.is_file()) if place.is_dir() else [place]
    for path in files:
        name = path.relative_to(place).as_posix() if place.is_dir() else path.name
        for task, records in _tables(name, path.read_bytes(), benchmark):
            for number, record in enumerate(records):
                found = True
                yield Item(benchmark.name, task, number, _parts(record, benchmark, f"{path} ({task}, item {number})"))
    if not found:
        raise BadInput(
            f"benchmark {benchmark.name}: {benchmark.path} has no items",
            "items stand in .jsonl, .json, .csv, .tsv, .parquet or .txt files, possibly compressed",
            "Correct its path",
        )


def benchmarks_below(folder: str) -> list[Benchmark]:
    """A benchmark for each folder directly below one."""
    return [Benchmark(name=each.name, path=str(each)) for each in sorted(Path(folder).iterdir()) if each.is_dir()]


def _tables(name: str, data: bytes, benchmark: Benchmark) -> Iterator[tuple[str, list[Any]]]:
    """Records of a file by task; none for a file that holds no data."""
    stem, dot, ending = name.rpartition(".")
    base = name.rpartition("/")[2]
    if NOT_DATA.match(base):
        return
    try:
        if f".{ending}" in OPENERS:
            yield from _tables(stem, OPENERS[f".{ending}"](data), benchmark)
        elif ending == "zip":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                for member in sorted(archive.namelist()):
                    yield from _tables(member, archive.read(member), benchmark)
        elif ending == "txt":
            yield stem, data.decode("utf-8", "replace").splitlines()[:: benchmark.lines_per_item]
        elif dot and ending in READERS:
            yield stem, READERS[ending](data)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, lzma.LZMAError, csv.Error) as error:
        raise BadInput(
            f"{name} of benchmark {benchmark.name} ({error})", "it must be readable", "Restore it"
        ) from error


def _json_lines(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.splitlines() if line.strip()]


def _json(data: bytes) -> list[Any]:
    found = json.loads(data)
    while isinstance(found, dict) and len(lists := [each for each in found.values() if isinstance(each, list)]) == 1:
        found = lists[0]
    return found if isinstance(found, list) else [found]


def _table(data: bytes, delimiter: str = ",") -> list[Any]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig")), delimiter=delimiter))


READERS: dict[str, Callable[[bytes], list[Any]]] = {
    "jsonl": _json_lines,
    "ndjson": _json_lines,
    "json": _json,
    "csv": _table,
    "tsv": lambda data: _table(data, "\t"),
    "parquet": lambda data: pq.read_table(io.BytesIO(data)).to_pylist(),
}


def _parts(record: Any, benchmark: Benchmark, place: str) -> list[str]:
    """An item's text in parts, without what a prompt adds to it."""
    if isinstance(record, dict) and benchmark.fields is not None:
        if not (chosen := [record[name] for name in benchmark.fields if record.get(name) is not None]):
            raise BadInput(
                f"{place} has the fields {', '.join(map(str, record))}",
                f"the text of {benchmark.name} is to be made of {', '.join(benchmark.fields)}",
                "Correct the benchmark's fields",
            )
    elif isinstance(record, dict):
        known = {str(name).lower(): value for name, value in record.items()}
        chosen = [known[name] for name in QUESTION_FIELDS if name in known] or list(record.values())
    else:
        chosen = [record]
    return [part for text in _strings(chosen) for part in PROMPT_LABELS.split(text) if part.strip()]


def _strings(value: Any) -> Iterator[str]:
    """The strings in a JSON value, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _strings(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
