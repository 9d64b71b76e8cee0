"""Items in training documents: found there and only there, whatever stands in held-out text, and counted by task."""

import json
import logging
import stat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import BadInput
from infra.store import Store
from tasks.inputs import UserFile
from tasks.phrases.contamination import (
    CONTAMINATED,
    ContaminationSettings,
    TaskContamination,
    contamination,
    read_items,
)
from tasks.phrases.decontaminate import BenchmarkIndexSettings, DecontaminationSettings, decontaminate
from tasks.training_documents import training_documents
from tests.tasks.small_corpus import Small

ABSENT = "No page of this corpus says that seven blue herons carried the clock of the town hall over the frozen lake."


def split_ids(small: Small, split: Any) -> list[str]:
    return [
        each
        for shard in small.dataset.split(split)
        for each in small.store.read_table(shard.path)["doc_id"].to_pylist()
    ]


@pytest.fixture(scope="module")
def documents(small: Small) -> dict[str, str]:
    """Text of each document before tokenization."""
    tables = [small.store.read_table(path) for path in small.stage("mix").kept_paths]
    whole = pa.concat_tables(tables)
    return dict(zip(whole["id"].to_pylist(), whole["text"].to_pylist(), strict=True))


def some_words(text: str, first: int, count: int) -> str:
    return " ".join(text.split()[first : first + count])


@pytest.fixture(scope="module")
def questions(small: Small, documents: dict[str, str]) -> dict[str, list[tuple[str, str]]]:
    """Questions and answers by task: of training text, of held-out text, of none, and too short."""
    train = [documents[each] for each in split_ids(small, "train")]
    held = documents[split_ids(small, "heldout")[0]]
    whole, joined = some_words(train[0], 5, 20), some_words(train[1], 10, 14)
    return {
        "absent": [(ABSENT, ""), (held.split(".")[0] + " and what is more, nothing else is known of it.", "")],
        "quiz": [
            (f"Question: {whole}\nA. one\nB. two\nAnswer:", "A"),
            (some_words(held, 0, 20), ""),
            (joined.rpartition(" ")[0], joined.rpartition(" ")[2]),
            ("Too short to say.", "Yes"),
        ],
    }


def write_items(store: Store, path: str, questions: dict[str, list[tuple[str, str]]], **more: list[str]) -> None:
    rows = [
        {"task": task, "item": number, "text": text, "answer": answer}
        for task, pairs in questions.items()
        for number, (text, answer) in enumerate(pairs)
    ]
    table = pa.Table.from_pylist(rows)
    for name, values in more.items():
        table = table.append_column(name, pa.array(values))
    with store.create(path) as out:
        pq.write_table(table, out)


def test_items_are_found_in_what_was_trained_on_alone(small, questions, documents) -> None:
    write_items(small.store, "items/one.parquet", questions)
    found = contamination(small.runner, "items/one.parquet", [small.dataset], ContaminationSettings())
    assert found is not None
    assert found.items.schema == CONTAMINATED
    rows = {(row["task"], row["item"]): row for row in found.items.to_pylist()}
    assert list(rows) == [(task, number) for task in questions for number in range(len(questions[task]))]
    assert {name for name, row in rows.items() if row["documents"]} == {("quiz", 0), ("quiz", 2)}
    first = rows["quiz", 0]
    assert first["ngrams"] >= 8
    assert (first["share"], first["document"]) == (1, split_ids(small, "train")[0])
    assert some_words(first["passage"], 0, 13) in some_words(documents[first["document"]], 0, 40)
    assert rows["quiz", 3]["ngrams"] == 0
    assert rows["quiz", 3]["passage"] is None
    assert found.record.tasks == (
        TaskContamination(task="absent", items=2, looked_for=2, contaminated=0),
        TaskContamination(task="quiz", items=4, looked_for=3, contaminated=2),
    )
    assert found.record.datasets == ("small/1",)
    assert found.record.documents == sum("#" not in each for each in split_ids(small, "train"))
    for folder in (each for each in small.store.local_path("stages/contamination").iterdir()):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(each.stat().st_mode) for each in folder.glob("part-*")} == {0o600}


def test_other_answers_of_a_model_are_no_reason_to_search_again(small, questions, caplog) -> None:
    write_items(small.store, "items/one.parquet", questions)
    first = contamination(small.runner, "items/one.parquet", [small.dataset], ContaminationSettings())
    write_items(small.store, "items/two.parquet", questions, response=[f"said {n}" for n in range(6)])
    with caplog.at_level(logging.INFO):
        again = contamination(small.runner, "items/two.parquet", [small.dataset], ContaminationSettings())
    assert [each.getMessage().split(",")[0] for each in caplog.records] == [
        "contamination_index: already done",
        "contamination: already done",
    ]
    assert first is not None
    assert again is not None
    assert (again.items, again.record) == (first.items, first.record)
    strict = contamination(small.runner, "items/two.parquet", [small.dataset] * 2, ContaminationSettings(min_share=0.9))
    assert strict is not None
    assert strict.record.tasks[1].contaminated == 2
    whole = ContaminationSettings(ngram=20, min_words=20)
    longer = contamination(small.runner, "items/two.parquet", [small.dataset], whole)
    assert longer is not None
    assert longer.record.tasks[1].looked_for < 3
    assert longer.record.tasks[1].contaminated == 1


def test_decontamination_of_the_corpus_says_the_same(small: Small, questions, tmp_path: Path) -> None:
    for task, pairs in questions.items():
        (tmp_path / task).mkdir()
        lines = [json.dumps({"question": text, "context": answer}) + "\n" for text, answer in pairs]
        (tmp_path / task / "test.jsonl").write_text("".join(lines))
    index = BenchmarkIndexSettings(folder=UserFile(path=str(tmp_path)))
    source = training_documents(small.store, small.dataset)
    assert source is not None
    settings = DecontaminationSettings(index=index, action="annotate")
    _, done = decontaminate(small.runner, source.stage, settings)
    hits = [
        row
        for shard in done.shards
        for row in small.store.read_table(f"{done.folder}/{shard.others['hits'].path}").to_pylist()
    ]
    trained = set(split_ids(small, "train"))
    theirs = {(row["benchmark"], row["item"], row["share"], row["passage"]) for row in hits if row["id"] in trained}
    alone = {task: [(f"{text} {answer}", "") for text, answer in pairs] for task, pairs in questions.items()}
    write_items(
        small.store, "items/alone.parquet", {task: [(text, "") for text, _ in pairs] for task, pairs in alone.items()}
    )
    found = contamination(small.runner, "items/alone.parquet", [small.dataset], ContaminationSettings())
    assert found is not None
    ours = {
        (row["task"], row["item"], row["share"], row["passage"]) for row in found.items.to_pylist() if row["documents"]
    }
    assert ours
    assert ours <= theirs
    assert {each[:2] for each in theirs} == {each[:2] for each in ours}


def test_documents_that_are_gone_give_no_figure(small, questions, caplog) -> None:
    write_items(small.store, "items/one.parquet", questions)
    gone = small.dataset.model_copy(update={"name": "older", "stages": {}})
    with caplog.at_level(logging.WARNING):
        both = contamination(small.runner, "items/one.parquet", [small.dataset, gone], ContaminationSettings())
    assert both is None
    assert "documents of dataset older/1 before tokenization are gone" in caplog.text


def test_a_file_without_items_is_refused_and_no_items_are_fine(small: Small) -> None:
    with small.store.create("items/other.parquet") as out:
        pq.write_table(pa.table({"task": ["a"], "question": ["?"]}), out)
    with pytest.raises(BadInput, match=r"other\.parquet has no column answer, item, text"):
        read_items(small.store, "items/other.parquet")
    empty = pa.schema([("task", pa.string()), ("item", pa.int32()), ("text", pa.string()), ("answer", pa.string())])
    with small.store.create("items/none.parquet") as out:
        pq.write_table(empty.empty_table(), out)
    found = contamination(small.runner, "items/none.parquet", [small.dataset], ContaminationSettings())
    assert found is not None
    assert (found.items.num_rows, found.record.tasks) == (0, ())
