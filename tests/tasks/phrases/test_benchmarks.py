"""Benchmark files: every format gives the same items, and only the text that makes an item."""

import bz2
import csv
import gzip
import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import BadInput
from tasks.phrases.benchmarks import Benchmark, Item, benchmarks_below, read_items

ROWS = [
    {"id": "q1", "question": "Who stands at the mill?", "choices": ["the miller", "no one"], "answer": "0"},
    {"id": "q2", "question": "Where does the river go, and why?", "choices": ["down", "up"], "answer": "1"},
]


def items(path: Path, **settings: object) -> list[Item]:
    return list(read_items(Benchmark.model_validate({"name": "quiz", "path": str(path), **settings})))


def lines(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv_bytes(delimiter: str) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["id", "question"], delimiter=delimiter, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(ROWS)
    return out.getvalue().encode()


def zip_bytes(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def parquet_bytes() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("test.jsonl", lines(ROWS)),
        ("test.jsonl.gz", gzip.compress(lines(ROWS), mtime=0)),
        ("test.ndjson.bz2", bz2.compress(lines(ROWS))),
        ("test.json", json.dumps(ROWS).encode()),
        ("test.json", json.dumps({"version": 1, "data": ROWS}).encode()),
        ("test.csv", csv_bytes(",")),
        ("test.tsv", csv_bytes("\t")),
        ("test.parquet", parquet_bytes()),
        ("test.txt", "".join(f"{row['question']}\n" for row in ROWS).encode()),
        ("quiz.zip", zip_bytes({"test.jsonl": lines(ROWS), "__MACOSX/._test.jsonl": b"\0", "README.txt": b"a quiz"})),
    ],
)
def test_every_format_gives_the_same_items(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert items(tmp_path / name) == [Item("quiz", "test", n, [str(row["question"])]) for n, row in enumerate(ROWS)]


def test_a_folder_is_read_in_order_without_its_notes(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/b.jsonl").write_bytes(lines(ROWS[:1]))
    (tmp_path / "a.jsonl").write_bytes(lines(ROWS))
    for name in ("LICENSE-NOTE.txt", "README.md", "labels.lst", ".hidden.jsonl"):
        (tmp_path / name).write_text("not an item")
    assert [(item.task, item.number) for item in items(tmp_path)] == [("a", 0), ("a", 1), ("dev/b", 0)]


def test_fields_can_be_chosen_and_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_bytes(lines(ROWS))
    assert items(path, fields=["choices", "question"])[0].parts == ["the miller", "no one", "Who stands at the mill?"]
    with pytest.raises(BadInput, match="id, question, choices, answer"):
        items(path, fields=["query"])


def test_without_usual_fields_every_text_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_bytes(lines([{"number": 1, "riddle": "What is it?", "more": {"hint": ["a mill", 3]}}]))
    assert items(path)[0].parts == ["What is it?", "a mill"]


def test_what_a_prompt_adds_parts_the_text(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    query = "Passage: A mill: it grinds.\nQuestion: Does it?\nChoices:\nA. It does\nB) It does not\nAnswer:"
    path.write_bytes(lines([{"query": query}]))
    assert [part.strip() for part in items(path)[0].parts] == [
        "A mill: it grinds.",
        "Does it?",
        "It does",
        "It does not",
    ]


def test_lines_of_an_item_are_counted(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("one\n0\na\ntwo\n1\nb\n")
    assert [item.parts for item in items(tmp_path / "test.txt", lines_per_item=3)] == [["one"], ["two"]]


@pytest.mark.parametrize(
    ("name", "data"),
    [("test.jsonl", b"{"), ("test.jsonl.gz", b"no"), ("a.zip", b""), ("a.parquet", b"x"), ("a.md", b"")],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match="quiz"):
        items(tmp_path / name)


def test_the_published_benchmarks_are_read(shared_data: Path) -> None:
    found = {each.name: list(read_items(each)) for each in benchmarks_below(str(shared_data / "benchmarks"))}
    assert len(found) == 18
    assert len(found["mmlu"]) == 14_327  # dev and test
    assert len(found["gsm8k"]) == 1_319 + 7_473
    assert len(found["humaneval"]) == 164
    assert found["mmlu"][0][1:] == (
        "dev/abstract_algebra_dev",
        0,
        ["Find all c in Z_3 such that Z_3[x]/(x^2 + c) is a field."],
    )
    assert all(any(item.parts for item in each) for each in found.values())
