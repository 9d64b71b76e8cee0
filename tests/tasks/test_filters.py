"""The filter: verdicts from signals alone, in the order of the rules."""

from typing import Any

import pyarrow as pa
import pytest

from infra.errors import BadInput
from tasks.filters import (
    FilterInputs,
    FilterSettings,
    comparisons,
    filtered,
    judge_documents,
    require_signals,
    setting_path,
    thresholds,
)
from tasks.models.buckets import Bucket, BucketSettings
from tasks.phrases.word_lists import WordList, WordListRules, WordListSettings
from tasks.quality.families import QualitySettings, QualitySignalSettings
from tasks.quality.gopher import GopherQualitySettings
from tasks.quality.language import LanguageSettings
from tasks.signals import SignalSettings, signals, signals_schema
from tests.tasks.chains import only_long_documents
from tests.tasks.documents import documents, prose
from tests.tasks.small_corpus import GERMAN, Small

SIGNALS = SignalSettings()


def inputs(signals: SignalSettings = SIGNALS, **chosen: Any) -> FilterInputs:
    return FilterInputs(filter=FilterSettings(**chosen), signals=signals)


def measured(*texts: str, settings: SignalSettings = SIGNALS) -> pa.Table:
    rows = [{"id": f"{number:032x}", "text": text} for number, text in enumerate(texts)]
    return signals(documents(rows), settings).others["signals"]


def test_language_comes_before_quality() -> None:
    settings = FilterInputs(filter=only_long_documents(), signals=SIGNALS)
    verdicts = judge_documents(measured("Die Mühle steht am Fluss.", "The mill and the river."), settings)
    assert verdicts.reasons == ["language_unwanted", "too_few_words"]
    assert verdicts.details == ["de", None]
    assert verdicts.values[1] == 5


def test_a_document_that_passes_has_no_reason() -> None:
    long_only = FilterInputs(filter=only_long_documents(), signals=SIGNALS)
    assert judge_documents(measured(prose()[0]), long_only).reasons == [None]


def test_every_language_may_be_kept() -> None:
    every = only_long_documents().model_copy(update={"language": LanguageSettings(languages=None)})
    assert judge_documents(measured(GERMAN), FilterInputs(filter=every, signals=SIGNALS)).reasons == [None]


def test_text_that_was_edited_away_is_dropped() -> None:
    table = measured(prose()[0])
    position = table.schema.get_field_index("characters")
    empty = table.set_column(position, table.schema.field(position), pa.array([0], pa.int64()))
    assert judge_documents(empty, FilterInputs(filter=only_long_documents(), signals=SIGNALS)).reasons == [
        "nothing_left"
    ]


def test_thresholds_are_those_of_the_language_that_documents_were_measured_by() -> None:
    rule, own = next(each for each in thresholds(inputs(), measured(GERMAN)) if each[0].reason == "words_too_long")
    assert own == 15
    english = SignalSettings(quality=QualitySignalSettings(rules_language="en"))
    forced = thresholds(inputs(english), measured(GERMAN, settings=english))
    assert next(limit for each, limit in forced if each == rule) == 10


def test_a_score_may_be_bounded() -> None:
    table = measured(prose()[0])
    long_only = only_long_documents()
    low = long_only.model_copy(update={"min_score": {"top_2_gram": 1.0}})
    high = long_only.model_copy(update={"max_perplexity": {"characters": 10.0}})
    assert judge_documents(table, FilterInputs(filter=low, signals=SIGNALS)).reasons == ["low_top_2_gram"]
    assert judge_documents(table, FilterInputs(filter=high, signals=SIGNALS)).reasons == ["high_characters"]


@pytest.mark.parametrize("setting", ["min_score", "max_perplexity"])
def test_a_signal_that_is_not_measured_is_refused(setting: str) -> None:
    with pytest.raises(BadInput, match="no_such_model"):
        thresholds(inputs(SIGNALS, **{setting: {"no_such_model": 0.5}}), measured(prose()[0]))


@pytest.mark.parametrize(
    "chosen",
    [{"score": "absent"}, {"buckets": BucketSettings(score="absent", buckets=(Bucket(name="all"),))}],
)
def test_what_quality_and_buckets_are_taken_from_must_be_measured(chosen: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="absent"):
        require_signals(FilterSettings(**chosen), SIGNALS)


def test_comparisons_name_every_rule_with_its_setting() -> None:
    lists = WordListSettings(lists=(WordList(name="bad", path="bad.txt"),))
    chosen = inputs(
        SignalSettings(word_lists=lists),
        language=LanguageSettings(min_score_by_language={"de": 0.9}),
        word_lists=WordListRules(max_ratio={"bad": 0.1}),
        min_score={"words": 1.0},
    )
    found = comparisons(chosen, measured(GERMAN, prose()[0]))
    paths = {rule.reason: setting_path(rule) for rule, _ in found}
    assert paths["language_uncertain"] == "corpus.filter.language.min_score"
    assert paths["too_few_words"] == "corpus.filter.quality.gopher_quality.min_words"
    assert paths["word_list_bad"] == "corpus.filter.word_lists.max_ratio.bad"
    assert paths["low_words"] == "corpus.filter.min_score.words"
    assert paths["nothing_left"] == ""
    assert found[0][1].tolist() == [0.9, 0.65]


def test_quality_and_bucket_are_filled_in() -> None:
    table = documents([{"id": f"{number:032x}", "text": text} for number, text in enumerate(prose()[:2])])
    measures = signals(table, SIGNALS)
    buckets = BucketSettings(score="words", buckets=(Bucket(name="long", bound=50.0), Bucket(name="short")))
    settings = only_long_documents().model_copy(update={"score": "words", "buckets": buckets})
    split = filtered(measures.kept, measures.others["signals"], FilterInputs(filter=settings, signals=SIGNALS))
    assert split.kept["quality"].to_pylist() == measures.others["signals"]["words"].to_pylist()
    assert split.kept["bucket"].to_pylist() == ["long", "long"]


def test_the_stage_judges_as_the_function_does(small: Small) -> None:
    settings = FilterInputs(filter=small.settings.filter, signals=small.corpus.build.signals)
    ledger = small.ledger()
    table = ledger.filter(ledger["words"].is_valid())
    verdicts = judge_documents(table, settings)
    stages, reasons = table["stage"].to_pylist(), table["reason"].to_pylist()
    expected = [reason if stage == "filter" else None for stage, reason in zip(stages, reasons, strict=True)]
    assert verdicts.reasons == expected
    assert sum(reason is None for reason in verdicts.reasons) == small.stage("filter").kept


def test_unset_thresholds_drop_nothing() -> None:
    off = QualitySettings(gopher_quality=GopherQualitySettings(min_words=None), by_language={})
    reasons = judge_documents(measured("The mill and the river."), inputs(quality=off)).reasons
    assert reasons != ["too_few_words"]
    assert "id" in signals_schema(SIGNALS).names
