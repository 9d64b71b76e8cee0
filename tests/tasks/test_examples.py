"""Examples: the same documents whatever the shards, dropped and nearly dropped."""

import re
from typing import Any

import pyarrow as pa

from tasks.examples import (
    EXAMPLES_SCHEMA,
    ExampleInputs,
    ExampleSettings,
    count_words,
    examples,
    first_of_each,
    most_frequent,
)
from tasks.filters import FilterInputs
from tests.tasks.documents import documents
from tests.tasks.small_corpus import Small


def shown(small: Small, **chosen: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Examples and words of the corpus under other settings."""
    build = small.corpus.build
    inputs = ExampleInputs(
        examples=ExampleSettings(**chosen), filter=FilterInputs(filter=small.settings.filter, signals=build.signals)
    )
    found = examples(small.runner, build.passed, build.stage("signals"), inputs)
    return found.documents.to_pylist(), found.words.to_pylist()


def test_every_reason_has_examples_of_what_it_dropped(small: Small) -> None:
    rows = small.corpus.examples.documents.to_pylist()
    dropped = {row["reason"] for row in rows if not row["kept"]}
    assert {reason for each in small.corpus.build.passed for reason in each.total("reasons")} == dropped
    short = [row for row in rows if row["reason"] == "too_few_words" and not row["kept"]]
    assert sorted(row["value"] for row in short)[0] == 9
    assert all("mill" in row["text"] for row in short if row["url"].startswith("http://short"))


def test_nearly_dropped_documents_lie_nearest_to_the_threshold(small: Small) -> None:
    ledger = small.ledger().to_pylist()
    kept = [row["nonsymbol_words"] for row in ledger if row["words"] is not None and row["stage"] != "filter"]
    rows, _ = shown(small, per_rule=3)
    near = [row for row in rows if row["reason"] == "too_few_words" and row["kept"]]
    assert [row["value"] for row in near] == sorted(kept)[:3]
    assert {row["threshold"] for row in near} == {50}
    assert all(row["value"] >= row["threshold"] for row in near)


def test_doubtful_languages_are_among_them(small: Small) -> None:
    rows = [row for row in small.corpus.examples.documents.to_pylist() if row["reason"] == "language_uncertain"]
    assert [row["order"] for row in rows if row["kept"]] == sorted(row["order"] for row in rows if row["kept"])
    assert any(row["kept"] for row in rows)


def test_texts_are_cut_and_numbers_kept_small(small: Small) -> None:
    rows, words = shown(small, per_rule=2, characters=100, words=5)
    counts: dict[tuple[str, bool], int] = {}
    for row in rows:
        assert len(row["text"] or "") <= 100
        counts[row["reason"], row["kept"]] = counts.get((row["reason"], row["kept"]), 0) + 1
    assert max(counts.values()) == 2
    assert len(words) == 5


def test_no_examples_may_be_wanted(small: Small) -> None:
    rows, words = shown(small, per_rule=0, words=0)
    assert rows == words == []


def test_a_sample_of_shards_is_enough(small: Small) -> None:
    rows, _ = shown(small, shards=1)
    assert {row["reason"] for row in rows if not row["kept"]} < {
        row["reason"] for row in small.corpus.examples.documents.to_pylist() if not row["kept"]
    }


def test_words_are_those_of_kept_documents(small: Small) -> None:
    words = small.corpus.examples.words.to_pylist()
    assert {row["language"] for row in words} == {"en"}
    assert words[0]["word"] == "the"
    counts = [row["count"] for row in words]
    assert counts == sorted(counts, reverse=True)


def test_words_are_lower_case_letters_and_added_up() -> None:
    one = documents([{"id": "1", "text": "Mill mill 42 a_b Ölmühle x", "language": "de"}])
    two = documents(
        [{"id": "2", "text": "mill river", "language": "en"}, {"id": "3", "text": "MILL", "language": "de"}]
    )
    tables = [count_words(each, 10) for each in (one, two)]
    found = {(row["language"], row["word"]): row["count"] for row in most_frequent(tables, 10).to_pylist()}
    assert found == {("de", "mill"): 3, ("de", "ölmühle"): 1, ("en", "mill"): 1, ("en", "river"): 1}
    assert all(re.fullmatch(r"[^\W\d_]{2,}", word) for _, word in found)


def test_scripts_without_spaces_are_counted_by_character() -> None:
    table = documents([{"id": "1", "text": "的水的 Linux 2", "language": "zh"}])
    found = {row["word"]: row["count"] for row in count_words(table, 10).to_pylist()}
    assert found == {"的": 2, "水": 1, "linux": 1}


def test_the_choice_does_not_depend_on_the_order_of_shards() -> None:
    rows = [
        {"reason": reason, "kept": False, "order": order, "id": f"{reason}{order}"}
        for reason in ("b", "a")
        for order in (0.3, 0.1, 0.2)
    ]
    table = pa.Table.from_pylist(rows, schema=EXAMPLES_SCHEMA)
    back = pa.Table.from_pylist(rows[::-1], schema=EXAMPLES_SCHEMA)
    assert first_of_each(table, 2).equals(first_of_each(back, 2))
    assert first_of_each(table, 2)["id"].to_pylist() == ["a0.1", "a0.2", "b0.1", "b0.2"]
