"""Benchmarks as items: what a question or passage of an evaluation set is called, and its text.

A benchmark is a file or a folder of files: JSON lines, JSON, CSV, TSV, Parquet or plain text, each possibly compressed
(gz, bz2, xz) or in a zip archive. An item is named `benchmark/task/number`: the task is the file's path without its
endings, the number counts the file's items from 0, as lm-evaluation-harness does.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from infra.errors import BadInput
from tasks.benchmarks.files import READERS, read, unpacked
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
    try:
        for member, content in unpacked(name, data):
            stem, dot, ending = member.rpartition(".zip/")[2].rpartition(".")
            if ending == "txt":
                yield stem, content.decode("utf-8", "replace").splitlines()[:: benchmark.lines_per_item]
            elif dot and ending in READERS:
                yield stem, read(member, content, READERS[ending])
    except BadInput as error:
        raise BadInput(f"benchmark {benchmark.name}: {error.value}", error.rule, error.remedy) from error


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
