"""Word lists: whole words, phrases, scripts without spaces, lists by language, and what the signals count."""

import gzip
import json
import time
from pathlib import Path

import pyarrow as pa
import pytest

from infra.errors import BadInput
from tasks.phrases.word_lists import (
    WordList,
    WordListRules,
    WordListSettings,
    measure_word_lists,
    pinned_lists,
    word_list_rules,
    word_list_schema,
)
from tasks.rules import judge


def settings(tmp_path: Path, *terms: str, name: str = "bad") -> WordListSettings:
    path = tmp_path / f"{name}.txt"
    path.write_text("# a list\n\n" + "\n".join(terms) + "\n")
    return pinned_lists(WordListSettings(lists=(WordList(name=name, path=str(path)),)))


def measured(
    given: WordListSettings, *texts: str, languages: list[str | None] | None = None
) -> list[tuple[object, ...]]:
    codes = pa.chunked_array([pa.array(languages or ["en"] * len(texts), pa.string())])
    table = measure_word_lists(pa.chunked_array([pa.array(texts, pa.large_string())]), codes, given)
    assert table.schema == word_list_schema(given)
    return [
        tuple(round(value, 4) if value is not None else None for value in row.values()) for row in table.to_pylist()
    ]


def test_whole_words_and_phrases_match_in_any_case_and_across_punctuation(tmp_path: Path) -> None:
    given = settings(tmp_path, "darn", "heck of a")
    assert measured(given, "Darn! What a HECK-OF-A darned thing.", "A fine day.", "", "darn's heck\nof\ta darn") == [
        (2, 2, round(4 / 8, 4)),
        (0, 0, 0.0),
        (0, 0, 0.0),
        (3, 2, round(5 / 6, 4)),
    ]


def test_words_in_two_terms_are_counted_once_in_the_share(tmp_path: Path) -> None:
    assert measured(settings(tmp_path, "old darn", "darn", "darn mill"), "the old darn mill stands") == [(3, 3, 0.6)]


def test_terms_match_anywhere_in_scripts_without_spaces(tmp_path: Path) -> None:
    given = settings(tmp_path, "水車", "🖕")
    assert measured(given, "古い水車小屋", "水と車", "you 🖕🖕") == [
        (1, 1, round(2 / 6, 4)),
        (0, 0, 0.0),
        (2, 1, 0.6667),
    ]


def test_signs_in_a_term_have_to_be_there(tmp_path: Path) -> None:
    given = settings(tmp_path, "$hit", "a.b.c", "c++", "it's")
    assert [
        row[0] for row in measured(given, "a hit", "no $HIT!", "a b c", "see A.B.C.", "c", "C++", "its it\u2019s")
    ] == [*(0, 1, 0, 1, 0, 1, 1)]


def test_a_folder_has_a_list_for_each_language(tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "en").write_text("gift")
    (folder / "de.txt.gz").write_bytes(gzip.compress(b"gift\nschlange\n"))
    (folder / "README.md").write_text("gift")
    given = pinned_lists(WordListSettings(lists=(WordList(name="bad", path=str(folder)),)))
    rows = measured(given, "a gift", "Gift der Schlange", "un gift", "gift", languages=["en", "de", "fr", None])
    assert rows == [(1, 1, 0.5), (2, 2, 0.6667), (None, None, None), (None, None, None)]


def test_rules_bound_the_share_and_are_off_by_default(tmp_path: Path) -> None:
    given = settings(tmp_path, "darn")
    table = measure_word_lists(
        pa.chunked_array([pa.array(["darn it", "a darn long text"], pa.large_string())]),
        pa.chunked_array([pa.array(["en", "en"])]),
        given,
    )
    assert word_list_rules(given, WordListRules()) == []
    verdicts = judge(table, word_list_rules(given, WordListRules(max_ratio={"bad": 0.25})))
    assert (verdicts.reasons, verdicts.values) == (["word_list_bad", None], [0.5, None])
    with pytest.raises(BadInput, match="other"):
        word_list_rules(given, WordListRules(max_ratio={"other": 0.1}))


def test_the_content_of_the_lists_is_their_identity(tmp_path: Path) -> None:
    one = settings(tmp_path, "darn")
    moved = tmp_path / "moved.txt"
    (tmp_path / "bad.txt").rename(moved)
    assert pinned_lists(WordListSettings(lists=(WordList(name="bad", path=str(moved)),))).identity() == one.identity()
    assert settings(tmp_path, "heck").identity() != one.identity()
    assert measured(settings(tmp_path, "heck"), "heck") == [(1, 1, 1.0)]
    with pytest.raises(BadInput, match="must be there"):
        pinned_lists(WordListSettings(lists=(WordList(name="bad", path=str(tmp_path / "absent")),)))
    with pytest.raises(BadInput, match="name of its own"):
        pinned_lists(WordListSettings(lists=(one.lists[0].model_copy(update={"path": str(moved)}),) * 2))


def test_no_lists_and_no_documents_are_no_trouble(tmp_path: Path) -> None:
    assert (
        measure_word_lists(pa.chunked_array([["a"]]), pa.chunked_array([["en"]]), WordListSettings()).num_columns == 0
    )
    assert measured(settings(tmp_path, "darn")) == []
    assert measured(settings(tmp_path, "..."), "a ... b") == [(0, 0, 0.0)]


@pytest.mark.parametrize("piece", ["hit ", "$hit", "$", "水", "a"])
def test_hostile_text_takes_linear_time(tmp_path: Path, piece: str) -> None:
    given = settings(tmp_path, "$hit", "hit hit hit hit", "水水", "a a a")
    measured(given, "warm")
    started = time.process_time()
    measured(given, piece * 1_000_000)
    assert time.process_time() - started < 5


def test_batches_do_not_matter(tmp_path: Path, shared_data: Path) -> None:
    given = settings(tmp_path, "ship", "the captain", "whale oil")
    with gzip.open(shared_data / "text/books.jsonl.gz", "rt") as lines:
        texts = [json.loads(next(lines))["text"][:100_000] for _ in range(4)]
    rows = measured(given, *texts)
    assert rows == [measured(given, text)[0] for text in texts]
    assert any(row[0] for row in rows)
