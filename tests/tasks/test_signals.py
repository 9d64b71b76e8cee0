"""Signals: everything is measured, nothing is dropped, and only C4's line rules touch the text."""

import pyarrow as pa
import pytest

from infra.errors import BadInput
from infra.store import Store
from tasks.inputs import UserFile
from tasks.phrases.word_lists import WordList, WordListSettings
from tasks.quality.families import QualitySignalSettings
from tasks.quality.language import LanguageSignalSettings
from tasks.signals import SignalSettings, pinned_signals, signals, signals_schema
from tests.tasks.documents import documents

TEXTS = (
    "The mill stands by the river, and the miller has worked there for many years with his son.\nMenu\nHome",
    "Die Mühle steht am Fluss, und der Müller arbeitet dort seit vielen Jahren mit seinem Sohn zusammen.",
    "1234 5678",
    "x",
)


def table() -> pa.Table:
    return documents([{"id": f"{number:032x}", "text": text} for number, text in enumerate(TEXTS)])


def test_nothing_is_dropped_and_rows_stay_in_order() -> None:
    split = signals(table(), SignalSettings())
    assert split.dropped.num_rows == 0
    assert split.kept["id"].equals(split.others["signals"]["id"])
    assert split.others["signals"].schema.equals(signals_schema(SignalSettings()))


def test_documents_get_their_language_and_the_edited_text() -> None:
    kept = signals(table(), SignalSettings()).kept
    assert kept["language"].to_pylist()[:2] == ["en", "de"]
    assert kept["text"][0].as_py() == TEXTS[0].partition("\n")[0]
    measured = signals(table(), SignalSettings()).others["signals"]
    assert kept["language_score"].to_pylist() == measured["language_score"].to_pylist()


def test_signals_do_not_depend_on_the_batch() -> None:
    whole = signals(table(), SignalSettings()).others["signals"]
    parts = [signals(table().slice(row, 1), SignalSettings()).others["signals"] for row in range(len(TEXTS))]
    assert pa.concat_tables(parts).combine_chunks().equals(whole.combine_chunks())


def test_an_empty_batch_has_no_rows() -> None:
    split = signals(table().slice(0, 0), SignalSettings())
    assert split.kept.num_rows == split.others["signals"].num_rows == 0


def test_all_may_be_measured_by_the_rules_of_one_language() -> None:
    settings = SignalSettings(quality=QualitySignalSettings(rules_language="en"))
    measured = signals(table(), settings).others["signals"]
    assert measured["rules_language"].to_pylist() == ["en"] * len(TEXTS)
    assert measured["language"][1].as_py() == "de"


def test_a_word_list_adds_columns(tmp_path) -> None:
    (tmp_path / "words").write_text("miller\n")
    given = SignalSettings(word_lists=WordListSettings(lists=(WordList(name="mills", path=str(tmp_path / "words")),)))
    settings = pinned_signals(given, Store(str(tmp_path)))
    assert settings.word_lists.lists[0].sha256 is not None
    measured = signals(table(), settings).others["signals"]
    assert measured["words_mills"].to_pylist() == [1, 0, 0, 0]


def test_a_missing_model_is_refused_before_anything_is_read(tmp_path) -> None:
    missing = SignalSettings(language=LanguageSignalSettings(model=UserFile(path=str(tmp_path / "lid.bin"))))
    with pytest.raises(BadInput):
        pinned_signals(missing, Store(str(tmp_path)))
