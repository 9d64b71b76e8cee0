"""Quality: each rule at its boundary, alone, and switched off."""

from typing import Any

import pyarrow as pa
import pytest

from infra.schema import DOCUMENTS
from tasks.quality import RULES, QualitySettings, Rule, is_symbol, judge, measure, quality

OFF: dict[str, Any] = {rule.setting: None for rule in RULES}
STOP_WORDS = frozenset(QualitySettings().stop_words)
SIGNALS = {
    "words": ("one two three -- !!", 3),
    "mean_word_length": ("aa bbbb !!", 3.0),
    "hash_ratio": ("#a b # d", 0.5),
    "ellipsis_ratio": ("a... b\u2026 c d", 0.5),
    "bullet_lines": ("- a\n* b\n\n\u2022 c\nd", 0.75),
    "ellipsis_lines": ("a...\nb \u2026\nc\nd", 0.5),
    "alphabetic_words": ("a1 2 -- b", 0.5),
    "stop_words": ("the the of The x", 2),
}
"""For each signal a text and the signal's value in it, counted by hand."""


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_signal_is_what_one_would_count(signal: str) -> None:
    text, expected = SIGNALS[signal]
    assert getattr(measure(text, STOP_WORDS), signal) == expected


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.reason)
def test_a_rule_fires_beyond_its_threshold_and_not_on_it(rule: Rule) -> None:
    text, value = SIGNALS[rule.signal]
    assert judge(text, QualitySettings.model_validate(OFF | {rule.setting: value})) == (None, None)
    step = (1 if isinstance(value, int) else 0.01) * (1 if rule.bound == "min" else -1)
    assert judge(text, QualitySettings.model_validate(OFF | {rule.setting: value + step})) == (rule.reason, value)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.reason)
def test_a_rule_that_is_unset_never_fires(rule: Rule) -> None:
    text, value = SIGNALS[rule.signal]
    step = (1 if isinstance(value, int) else 0.01) * (1 if rule.bound == "min" else -1)
    alone = OFF | {rule.setting: value + step}
    assert judge(text, QualitySettings.model_validate(alone))[0] == rule.reason
    assert judge(text, QualitySettings.model_validate(alone | {rule.setting: None})) == (None, None)


@pytest.mark.parametrize("name", [name for name in QualitySettings.model_fields if name != "stop_words"])
def test_every_threshold_has_a_rule(name: str) -> None:
    assert [rule.setting for rule in RULES if rule.setting == name] == [name]
    assert name.startswith(next(rule.bound for rule in RULES if rule.setting == name))


def test_reason_codes_are_unique_and_documented() -> None:
    assert len({rule.reason for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.reason in (QualitySettings.model_fields[rule.setting].description or "")


def test_the_published_defaults_part_good_text_from_bad() -> None:
    good = "The miller and his son went to the market with a sack of flour that they had ground. " * 4
    assert judge(good, QualitySettings()) == (None, None)
    assert judge("Too short.", QualitySettings())[0] == "too_few_words"
    assert judge("- " + good.replace(". ", "\n- "), QualitySettings())[0] == "too_many_bullet_lines"
    assert judge("12 34 56 78 " * 20, QualitySettings())[0] == "words_too_short"
    assert judge("", QualitySettings()) == ("too_few_words", 0)


def test_the_first_rule_that_fails_gives_the_reason() -> None:
    assert judge("x", QualitySettings.model_validate(OFF | {"min_stop_words": 2, "min_words": 2})) == (
        "too_few_words",
        1,
    )


def test_documents_are_split_with_reason_and_value() -> None:
    rows = [{"id": t, "source": "c", "file": "w", "offset": 0, "text": t} for t in ("a b", "a")]
    split = quality(
        pa.Table.from_pylist(rows, schema=DOCUMENTS), QualitySettings.model_validate(OFF | {"min_words": 2})
    )
    assert split.kept["id"].to_pylist() == ["a b"]
    assert [(r["id"], r["reason"], r["value"]) for r in split.dropped.to_pylist()] == [("a", "too_few_words", 1.0)]


@pytest.mark.parametrize(("token", "expected"), [("--", True), ("…", True), ("€", True), ("a-", False), ("1", False)])
def test_a_symbol_holds_punctuation_alone(token: str, expected: bool) -> None:
    assert is_symbol(token) is expected
