"""Reference text: every form of file, cut into passages."""

import bz2
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import BadInput
from infra.store import Store
from tasks.models.reference import PassageSettings, ReferenceFile, cut, read_passages, read_texts, resolve_references

TEXTS = ["The mill stands at the river.", "Die Mühle steht am Fluss."]
LINES = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()


def write(path: Path) -> str:
    packed = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": lambda data: pa.compress(data, "zstd", asbytes=True)}
    if ".parquet" in path.name:
        pq.write_table(pa.table({"other": [1, 2], "text": TEXTS}), path)
    else:
        data = LINES if ".jsonl" in path.name else "\n".join(TEXTS).encode()
        path.write_bytes(packed.get(path.suffix, lambda given: given)(data))
    return str(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.bz2", "a.jsonl.zst", "a.parquet"])
def test_records_are_read(tmp_path: Path, name: str) -> None:
    assert list(read_texts(ReferenceFile(path=write(tmp_path / name)))) == TEXTS


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.md", "a"])
def test_plain_text_is_one_record(tmp_path: Path, name: str) -> None:
    assert list(read_texts(ReferenceFile(path=write(tmp_path / name)))) == ["\n".join(TEXTS)]


def test_empty_records_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n\n{"text": null}\n{"text": "x"}\n')
    assert list(read_texts(ReferenceFile(path=str(tmp_path / "a.jsonl")))) == ["x"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"body": "x"}\n'),
        ("a.jsonl", b'["x"]\n'),
        ("a.jsonl", b"x\n"),
        ("a.jsonl.gz", b"x"),
        ("a.jsonl.gz", gzip.compress(LINES)[:-20]),
        ("a.parquet", b"PAR1"),
        ("a.jsonl.zst", b"x"),
    ],
)
def test_what_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=name):
        list(read_texts(ReferenceFile(path=str(tmp_path / name))))


def test_a_parquet_file_without_the_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="content"):
        list(read_texts(ReferenceFile(path=write(tmp_path / "a.parquet"), text_column="content")))


def test_passages_end_at_white_space_and_lose_nothing() -> None:
    text = "word " * 1000
    parts = list(cut(text, 123))
    assert max(map(len, parts)) <= 123
    assert " ".join(parts) == text.strip()
    assert list(cut("x" * 250, 100)) == ["x" * 100, "x" * 100, "x" * 50]


def test_pieces_of_a_record_bear_its_name_and_short_ones_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "word " * 50}) + "\n" + json.dumps({"text": "short"}) + "\n")
    files = resolve_references((ReferenceFile(path="a.jsonl"),), Store(str(tmp_path)))
    passages = list(read_passages(files, PassageSettings(characters=100, min_characters=20)))
    assert {passage.record for passage in passages} == {f"{files[0].sha256}:0"}
    assert len(passages) == 3


def test_the_order_in_which_files_are_named_does_not_matter(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for name in "ab":
        store.write_bytes(f"{name}.txt", name.encode())
    store.write_bytes("copy.txt", b"a")
    files = [ReferenceFile(path=f"{name}.txt") for name in ("a", "b", "copy")]
    one, other = resolve_references(tuple(files), store), resolve_references(tuple(reversed(files)), store)
    assert [each.sha256 for each in one] == [each.sha256 for each in other]
    assert len(one) == 2
