"""Items of HellaSwag and LAMBADA as the harness asks them, from the files as they are published."""

import bz2
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "benchmarks"

Pair = tuple[str, str]


def hellaswag(folder: Path = FOLDER) -> Iterator[list[Pair]]:
    """For each item the context with each of its four endings; the file has six lines an item."""
    with bz2.open(_found(folder / "hellaswag" / "hellaswag_val_full.txt.bz2"), "rt", encoding="utf-8") as source:
        while item := list(itertools.islice(source, 6)):
            question, _, *endings = (re.sub(r"\s+", " ", line.strip()) for line in item)
            yield [(question, f" {each}") for each in endings]


def lambada(folder: Path = FOLDER) -> Iterator[list[Pair]]:
    """The text but its last word, and that word."""
    with open(_found(folder / "lambada" / "lambada_test.jsonl"), encoding="utf-8") as source:
        for line in source:
            question, _, word = json.loads(line)["text"].rpartition(" ")
            yield [(question, f" {word}")]


def _found(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path
