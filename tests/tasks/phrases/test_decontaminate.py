"""Decontamination: planted items are named, other text is let through, and settings decide how much is too much."""

import gzip
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from infra.cluster import Cluster
from infra.errors import BadInput
from infra.schema import DOCUMENTS
from infra.store import Store
from tasks.inputs import UserFile
from tasks.phrases.benchmarks import Benchmark, Item, read_items
from tasks.phrases.decontaminate import (
    DECONTAMINATE,
    HITS,
    BenchmarkIndex,
    BenchmarkIndexSettings,
    DecontaminationSettings,
    build_index,
    chosen_benchmarks,
    contamination_by_benchmark,
    decontaminate,
    hold_against,
    make_index,
    pinned_benchmarks,
)
from tasks.stage import Split, Stage, StageRunner

MILL = (
    "The mill that stands at the river had two wheels of oak before the flood of that spring took one of them away, "
    "and the miller who owned it sold the other."
)
RIDDLE = "Which animal sleeps standing on one leg at night?"
BEFORE, AFTER = (
    "It was a dark and stormy night in the valley. ",
    " Nobody in the village has talked about it since then.",
)


def index_of(*texts: str, **settings: object) -> BenchmarkIndex:
    given = BenchmarkIndexSettings.model_validate(settings)
    split = build_index([Item("quiz", "test", number, [text]) for number, text in enumerate(texts)], given)
    return make_index(split.kept, split.others["ngrams"])


def documents(*texts: str) -> pa.Table:
    rows = [{"id": str(n), "source": "c", "file": "w", "offset": n, "text": t} for n, t in enumerate(texts)]
    return pa.Table.from_pylist(rows, schema=DOCUMENTS)


def held(index: BenchmarkIndex, *texts: str, **settings: object) -> Split:
    return hold_against(documents(*texts), index, DecontaminationSettings.model_validate(settings))


def test_a_planted_item_is_named_whatever_its_case_punctuation_and_lines() -> None:
    index = index_of("Some other item of the quiz, which has words enough to be looked for in documents.", MILL)
    loud = MILL.upper().replace(", ", " -- ").replace(" the ", "\nthe\n")
    split = held(index, BEFORE + AFTER, BEFORE + MILL + AFTER, BEFORE + loud + AFTER)
    assert split.kept["id"].to_pylist() == ["0"]
    assert [(row["id"], row["reason"], row["value"], row["detail"]) for row in split.dropped.to_pylist()] == [
        ("1", "contaminated", 1.0, "quiz/test/1"),
        ("2", "contaminated", 1.0, "quiz/test/1"),
    ]
    assert split.counters == {"contaminated_quiz": 2}
    assert split.others["hits"].schema == HITS
    assert split.others["hits"]["passage"].to_pylist()[0] == " ".join(MILL.split()[:13])


def test_thirteen_words_in_a_row_are_enough_and_twelve_are_not() -> None:
    words = MILL.split()
    split = held(index_of(MILL), *(BEFORE + " ".join(words[5 : 5 + count]) + AFTER for count in (12, 13, 14)))
    assert split.kept["id"].to_pylist() == ["0"]
    assert split.others["hits"]["found"].to_pylist() == [1, 2]
    assert split.dropped["value"].to_pylist() == pytest.approx([1 / 20, 2 / 20])


def test_a_share_can_be_asked_for_and_the_rest_is_recorded_only() -> None:
    words = MILL.split()
    texts = [BEFORE + " ".join(words[:count]) + AFTER for count in (21, 22, 23)]
    split = held(index_of(MILL), *texts, min_share=0.5)
    assert split.kept["id"].to_pylist() == ["0"]
    assert split.others["hits"]["contaminated"].to_pylist() == [False, True, True]
    assert split.others["hits"]["found"].to_pylist() == [9, 10, 11]
    assert split.counters == {"contaminated_quiz": 2}


def test_a_repeated_ngram_counts_once() -> None:
    part = " ".join(MILL.split()[:13])
    assert held(index_of(MILL), f"{part}. Then {part}. Then {part}.").others["hits"]["found"].to_pylist() == [1]


def test_short_items_count_whole_and_too_short_ones_not_at_all() -> None:
    index = index_of(RIDDLE, "Which animal sleeps at night?")
    assert index.items["ngrams"].to_pylist() == [1, 0]
    split = held(
        index, BEFORE + RIDDLE + AFTER, BEFORE + "Which animal sleeps at night?" + AFTER, RIDDLE[:-7] + "noon?"
    )
    assert split.dropped["detail"].to_pylist() == ["quiz/test/0"]
    assert split.kept["id"].to_pylist() == ["1", "2"]


def test_ngrams_of_many_items_and_of_numbers_name_no_item() -> None:
    rules = "Choose the one answer of the four below that is most nearly true of the mill number "
    endings = ("one", "two", "three")
    assert index_of(*(rules + each for each in endings), max_items=3).items["ngrams"].to_pylist() == [6, 6, 6]
    index = index_of(*(rules + each for each in endings), max_items=2)
    assert index.items["ngrams"].to_pylist() == [1, 1, 1]
    assert held(index, BEFORE + rules).kept.num_rows == 1
    counting = " ".join(map(str, range(30)))
    assert index_of(counting, counting + " " + MILL).items["ngrams"].to_pylist() == [0, 20 + 6]
    assert index_of(counting, min_telling=0).items["ngrams"].to_pylist() == [18]


def test_the_frequency_of_an_ngram_is_counted_within_a_benchmark() -> None:
    items = [Item(name, "test", number, [MILL]) for name in ("one", "two") for number in range(2)]
    split = build_index(items, BenchmarkIndexSettings(max_items=2))
    assert split.kept["ngrams"].to_pylist() == [20] * 4


def test_the_parts_of_an_item_do_not_run_into_each_other() -> None:
    words = MILL.split()
    split = build_index(
        [Item("quiz", "test", 0, [" ".join(words[:12]), " ".join(words[12:])])], BenchmarkIndexSettings()
    )
    index = make_index(split.kept, split.others["ngrams"])
    assert index.items["ngrams"].to_pylist() == [1 + 8]
    assert held(index, " ".join(words[5:20])).kept.num_rows == 1


def test_the_item_with_the_largest_share_is_named_first_and_all_are_recorded() -> None:
    split = held(index_of(MILL + " " + RIDDLE * 3, MILL, MILL), BEFORE + MILL + AFTER)
    assert split.dropped["detail"].to_pylist() == ["quiz/test/1"]
    assert split.others["hits"]["item"].to_pylist() == [1, 2, 0]


def test_annotating_keeps_every_document() -> None:
    split = held(index_of(MILL), MILL, BEFORE, action="annotate")
    assert (split.kept.num_rows, split.dropped.num_rows) == (2, 0)
    assert split.others["hits"]["id"].to_pylist() == ["0"]
    assert split.counters == {"contaminated_quiz": 1}


@pytest.mark.parametrize("texts", [[], [""], ["...", BEFORE]])
def test_documents_without_hits_pass(texts: list[str]) -> None:
    split = held(index_of(MILL), *texts)
    assert (split.kept.num_rows, split.dropped.num_rows, split.counters) == (len(texts), 0, {})
    assert split.others["hits"].equals(HITS.empty_table())


def test_a_document_that_repeats_an_item_without_end_takes_no_longer_than_another() -> None:
    index = index_of(MILL)
    held(index, MILL)
    started = time.process_time()
    split = held(index, (MILL + " ") * 50_000)
    assert split.dropped["value"].to_pylist() == [1.0]
    assert time.process_time() - started < 5


def test_items_without_ngrams_make_an_index_that_finds_nothing() -> None:
    assert held(index_of("too short", ""), MILL).kept.num_rows == 1
    assert held(index_of(), MILL).kept.num_rows == 1


def test_two_benchmarks_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = (Benchmark(name="quiz", path=str(tmp_path)),) * 2
    with pytest.raises(BadInput, match="name of its own"):
        pinned_benchmarks(BenchmarkIndexSettings(benchmarks=twice))


def published(shared_data: Path) -> BenchmarkIndexSettings:
    folder = shared_data / "benchmarks"
    hellaswag = Benchmark(name="hellaswag", path=str(folder / "hellaswag"), lines_per_item=6)
    return BenchmarkIndexSettings(folder=UserFile(path=str(folder)), benchmarks=(hellaswag,))


@pytest.fixture(scope="module")
def items(shared_data: Path) -> list[Item]:
    return [item for each in chosen_benchmarks(published(shared_data)) for item in read_items(each)]


@pytest.fixture(scope="module")
def index(items: list[Item], shared_data: Path) -> BenchmarkIndex:
    split = build_index(items, published(shared_data))
    return make_index(split.kept, split.others["ngrams"])


def test_every_planted_item_of_the_published_benchmarks_is_found(items: list[Item], index: BenchmarkIndex) -> None:
    looked_for = np.flatnonzero(index.items["ngrams"].to_numpy())
    assert len(looked_for) > 80_000
    chosen = looked_for[:: len(looked_for) // 500].tolist()
    texts = [BEFORE + "\n\n".join(items[row].parts).upper() + AFTER for row in chosen]
    split = held(index, *texts)
    assert split.kept.num_rows == 0
    hits = split.others["hits"]
    whole = hits.filter(pa.array(hits["share"].to_numpy() == 1)).select(["id", "benchmark", "task", "item"])
    names = set(zip(*(column.to_pylist() for column in whole.columns), strict=True))
    assert {(str(n), *items[row][:3]) for n, row in enumerate(chosen)} <= names


def test_ordinary_text_is_let_through(shared_data: Path, index: BenchmarkIndex) -> None:
    texts = []
    for name in ("books", "peps"):
        with gzip.open(shared_data / f"text/{name}.jsonl.gz", "rt") as file:
            texts += [json.loads(line)["text"][:100_000] for line in file]
    started = time.process_time()
    split = held(index, *texts)
    assert sum(map(len, texts)) / (time.process_time() - started) > 5e6
    # LAMBADA is made of books, and one of these is among them.
    assert {detail.split("/")[0] for detail in split.dropped["detail"].to_pylist()} <= {"lambada"}
    assert split.dropped.num_rows <= 1


PARENT = Stage("source", 1)


def planted(store: Store, source: str, settings: object) -> Iterator[Split]:
    """A shard of three documents in two batches, of which two hold an item."""
    yield Split(documents(BEFORE + AFTER, BEFORE + MILL + AFTER))
    yield Split(documents(BEFORE + RIDDLE + AFTER))


def test_the_stages_run_on_workers_and_benchmarks_may_move(tmp_path: Path, cluster: Cluster) -> None:
    first = tmp_path / "here/quiz"
    first.mkdir(parents=True)
    (first / "test.jsonl").write_text(
        "".join(json.dumps({"question": text}) + "\n" for text in (RIDDLE, MILL, "What?"))
    )
    runner = StageRunner(Store(str(tmp_path / "store")), cluster)
    parent = runner.run(PARENT, planted, ["a", "b"], BenchmarkIndexSettings(), {})
    settings = DecontaminationSettings(index=BenchmarkIndexSettings(folder=UserFile(path=str(first.parent))))
    made, done = decontaminate(runner, parent, settings)
    assert (done.kept, done.total("reasons"), done.total("counters")) == (
        *(2, {"contaminated": 4}, {"contaminated_quiz": 4}),
    )
    assert contamination_by_benchmark(runner.store, made, done).to_pylist() == [
        {"benchmark": "quiz", "items": 3, "indexed": 2, "hit": 2, "documents": 2}
    ]
    shutil.move(first.parent, tmp_path / "there")
    moved = BenchmarkIndexSettings(folder=UserFile(path=str(tmp_path / "there")))
    again = decontaminate(runner, parent, settings.model_copy(update={"index": moved}))
    assert again == (made, done)
    assert done.stage == DECONTAMINATE.name
