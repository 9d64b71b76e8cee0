"""Quality: every rule at its boundary and switched off, languages, and judging again from the signals."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from tasks.quality.families import (
    QUALITY_SIGNALS,
    RULES,
    QualitySettings,
    QualitySignalSettings,
    measure,
    rules,
    verdicts,
)
from tasks.quality.word_rules import UNSPACED
from tasks.rules import Rule

PROSE = (
    "The miller and his son went to the market with a sack of flour that they had ground at home.\n"
    "On their way they met many people, and each of them gave some other advice about the donkey.\n"
    "One said that the boy ought to ride, while another found the old man too weak to be on foot.\n"
    "So they changed places again and again until neither knew who should walk.\n"
    "In the end they carried the animal on a pole over a bridge, where it fell into the water.\n"
)
GERMAN = (
    "Der M\u00fcller ging mit seinem Sohn auf den Markt, weil sie dort das Mehl verkaufen wollten, das sie hatten.\n"
    "Unterwegs trafen sie viele Leute, und jeder gab ihnen einen anderen Rat zu ihrem Esel.\n"
    "Die einen meinten, der Junge solle reiten, die anderen fanden, der Vater sei zu alt zum Gehen.\n"
    "So wechselten sie immer wieder die Pl\u00e4tze.\n"
    "Am Ende trugen sie das Tier auf einer Stange \u00fcber die Br\u00fccke, und es fiel ins Wasser.\n"
)
JAPANESE = (
    "\u5409\u91ce\u5bb6\u306e\u5e97\u3067\u306f\u6bce\u671d\u65b0\u3057\u3044\u30d1\u30f3\u304c\u713c\u304b\u308c\u307e\u3059\u3002\n"
    "\u8fd1\u6240\u306e\u4eba\u305f\u3061\u306f\u305d\u306e\u9999\u308a\u306b\u8a98\u308f\u308c\u3066\u5217\u3092\u4f5c\u308b\u3002\n"
    "\u5b50\u4f9b\u306b\u306f\u751c\u3044\u8c46\u5165\u308a\u306e\u7269\u304c\u4e00\u756a\u4eba\u6c17\u3060\u3068\u3044\u3046\u3002\n"
    "\u5915\u65b9\u306b\u306a\u308b\u3068\u68da\u306f\u307b\u3068\u3093\u3069\u7a7a\u306b\u306a\u3063\u3066\u3057\u307e\u3044\u307e\u3059\u3002\n"
    "\u5e97\u4e3b\u306f\u660e\u65e5\u3082\u65e9\u304f\u8d77\u304d\u308b\u3064\u3082\u308a\u3067\u7709\u3092\u64e6\u3063\u305f\u3002\n"
)


def judged(text: str, language: str | None = "en", **thresholds: Any) -> tuple[str | None, float | None]:
    _, signals = measure([text], [language], QualitySignalSettings())
    verdict = verdicts(signals, QualitySettings(**thresholds))
    return verdict.reasons[0], verdict.values[0]


def signals_with(**values: float | None) -> pa.Table:
    """One row of signals, null but for some."""
    row = dict.fromkeys(QUALITY_SIGNALS.names) | {"rules_language": "en"} | values
    return pa.Table.from_pylist([row], schema=QUALITY_SIGNALS)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.reason}-{rule.signal}")
def test_a_rule_fires_beyond_its_threshold_and_not_on_it_nor_when_off(rule: Rule) -> None:
    settings = QualitySettings()
    threshold = settings.threshold(rule.setting, "en")
    assert threshold is not None
    whole = QUALITY_SIGNALS.field(rule.signal).type == pa.int64()
    beyond = threshold + (1 if whole else 1e-9) * (-1 if rule.bound == "min" else 1)
    assert verdicts(signals_with(**{rule.signal: threshold}), settings).reasons == [None]
    assert verdicts(signals_with(**{rule.signal: beyond}), settings).reasons == [rule.reason]
    family, _, name = rule.setting.partition(".")
    off = QualitySettings.model_validate({family: {name: None}})
    assert verdicts(signals_with(**{rule.signal: beyond}), off).reasons == [None]


def test_every_threshold_has_a_rule_that_its_help_names() -> None:
    known = {rule.setting: rule for rule in RULES}
    for family in ("gopher_repetition", "gopher_quality", "c4", "fineweb"):
        fields = type(getattr(QualitySettings(), family)).model_fields
        assert {f"{family}.{name}" for name in fields} == {name for name in known if name.startswith(f"{family}.")}
        for name, field in fields.items():
            assert (field.description or "").endswith(f"{known[f'{family}.{name}'].reason}.")


def test_reasons_are_unique_but_for_lorem_ipsum_which_is_asked_twice() -> None:
    reasons = [rule.reason for rule in RULES]
    assert len(reasons) == len(set(reasons)) + 1
    assert reasons.count("lorem_ipsum") == 2
    assert {rule.signal for rule in RULES} <= set(QUALITY_SIGNALS.names)


def test_the_published_defaults_part_good_text_from_bad() -> None:
    assert judged(PROSE) == (None, None)
    assert judged("") == ("empty_text", 0)
    assert judged("\n".join(PROSE.split("\n")[:2]))[0] == "too_few_words"
    assert judged(PROSE * 3)[0] == "duplicate_lines"
    assert judged(PROSE + "A { is here too.")[0] == "curly_bracket"
    assert judged(PROSE + "A { is here too.", c4={"max_curly_bracket_lines": None})[0] is None


def test_the_first_condemning_line_gives_the_reason_as_in_datatrove() -> None:
    lorem, curly = "Here is lorem ipsum too.\n", "Here is { a bracket.\n"
    assert judged(PROSE + lorem + curly)[0] == "lorem_ipsum"
    assert judged(PROSE + curly + lorem)[0] == "curly_bracket"
    assert judged(PROSE + curly + lorem, c4={"max_curly_bracket_lines": None})[0] == "lorem_ipsum"


def test_every_language_is_judged_by_its_own_rules() -> None:
    assert judged(GERMAN, "de") == (None, None)
    assert judged(GERMAN, "en")[0] == "too_few_stop_words"
    assert judged(JAPANESE, "ja") == (None, None)
    assert judged(JAPANESE, "en")[0] is not None
    assert judged(GERMAN, None) == (None, None)


def test_one_language_can_be_set_for_all() -> None:
    _, signals = measure([GERMAN, PROSE], ["de", None], QualitySignalSettings(rules_language="en"))
    assert signals["rules_language"].to_pylist() == ["en", "en"]
    assert verdicts(signals, QualitySettings()).reasons == ["too_few_stop_words", None]


def test_thresholds_by_language_have_those_of_other_languages_as_their_base() -> None:
    settings = QualitySettings(
        by_language={"*": {"c4.min_sentences": 3}, "de": {"gopher_quality.min_words": 7, "fineweb.min_lines": None}}
    )
    assert [settings.threshold("c4.min_sentences", language) for language in ("en", "de", None)] == [5, 3, 3]
    assert [settings.threshold("gopher_quality.min_words", language) for language in ("en", "de", "fr")] == [50, 7, 50]
    by_reason = {rule.reason: threshold for rule, threshold in rules(settings, ["en", "de", None])}
    np.testing.assert_array_equal(by_reason["no_lines"], [1, np.nan, 1])
    np.testing.assert_array_equal(by_reason["too_few_words"], [50, 7, 50])
    assert by_reason["too_many_words"] == 100_000
    assert QualitySettings(by_language={}).threshold("fineweb.max_short_lines", "de") == 0.67


def test_the_word_length_of_scripts_without_spaces_is_never_asked_for() -> None:
    _, signals = measure([JAPANESE] * len(UNSPACED), sorted(UNSPACED), QualitySignalSettings())
    assert signals["mean_word_length"].null_count == signals["stop_words"].null_count == len(UNSPACED)


def test_an_unknown_threshold_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValidationError, match=r"de.gopher_quality.min_wrods is no threshold; known are c4\.max_curly"):
        QualitySettings(by_language={"de": {"gopher_quality.min_wrods": 1}})


def test_signals_judged_from_a_file_give_the_same_verdicts(tmp_path: Any) -> None:
    texts = [PROSE, PROSE * 2, GERMAN, "", "Too short.", JAPANESE, "# " * 80, "the of\n" * 60]
    languages = ["en", "en", "de", None, "en", "ja", "en", "en"]
    _, signals = measure(texts, languages, QualitySignalSettings())
    assert signals.schema == QUALITY_SIGNALS
    pq.write_table(signals, tmp_path / "signals.parquet")
    again = pq.read_table(tmp_path / "signals.parquet")
    for settings in (QualitySettings(), QualitySettings.model_validate({"gopher_quality": {"min_words": 2}})):
        assert verdicts(again, settings) == verdicts(signals, settings)


def test_signals_do_not_depend_on_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, languages = [PROSE, GERMAN, JAPANESE, "", PROSE + "x [1] y z", GERMAN], ["en", "de", "ja", None, "en", "de"]
    whole = measure(texts, languages, QualitySignalSettings())
    monkeypatch.setattr("tasks.quality.families._AT_ONCE", 10)
    assert measure(texts, languages, QualitySignalSettings()) == whole
    order = [5, 3, 4, 1, 0, 2]
    edits, signals = measure([texts[n] for n in order], [languages[n] for n in order], QualitySignalSettings())
    assert edits == [whole[0][n] for n in order]
    assert signals.equals(whole[1].take(order))


def test_no_texts_have_no_signals() -> None:
    edited, signals = measure([], [], QualitySignalSettings())
    assert edited == []
    assert verdicts(signals, QualitySettings()).reasons == []


def test_only_the_named_languages_have_rules_of_their_own() -> None:
    texts = ["Der Müller mahlt das Korn.", "The miller grinds.", "粉屋は穀物を挽く。"]
    some = QualitySignalSettings(languages_with_rules=("en",))
    _, signals = measure(texts, ["de", "en", "ja"], some)
    assert signals["rules_language"].to_pylist() == [None, "en", "ja"]
    assert signals["words"].to_pylist()[:2] == [6, 4]
