"""C4's line rules: each alone, in their order, and what they leave of the text."""

from typing import Any

import pytest

from tasks.quality.c4 import RULES, SIGNALS, C4Editing, C4Settings, measure
from tasks.quality.words import word_splitter


def edited(text: str, language: str = "en", **settings: Any) -> tuple[str, int, dict[str, int]]:
    """The text, its words, and the signals without their prefix."""
    splitter = word_splitter(language)
    texts = ["Two. Other words here.", text]  # never alone, so that places in the batch matter
    found, words, signals = measure(texts, splitter.split(texts), splitter, C4Editing(**settings))
    assert list(signals) == [signal.name for signal in SIGNALS]
    return found[1], int(words[1]), {name.removeprefix("c4_"): int(values[1]) for name, values in signals.items()}


LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "long_word_lines": ("one two " + "x" * 1001, {"max_word_length": None}),
    "unterminated_lines": ("one two three", {"require_terminal_mark": False}),
    "short_lines": ("one two.", {"min_words": None}),
    "javascript_lines": ("Please turn JavaScript on.", {"remove_javascript": False}),
    "policy_lines": ("We have a Privacy Policy here.", {"policy_phrases": ()}),
}


@pytest.mark.parametrize("rule", LINES)
def test_a_line_rule_drops_its_line_and_can_be_switched_off(rule: str) -> None:
    line, off = LINES[rule]
    on: dict[str, Any] = {"require_terminal_mark": True} if rule == "unterminated_lines" else {}
    kept = "This line stays as it is."
    text, words, signals = edited(f"{kept}\n{line}\n\n  {kept}  ", **on)
    assert text == f"{kept}\n{kept}"
    assert words == 14
    assert signals[rule] == 1
    assert signals["kept_lines"] == 2
    assert signals["sentences"] == 2
    text, _, signals = edited(f"{kept}\n{line}", **(on | off))
    assert text == f"{kept}\n{line}"
    assert signals[rule] == 0


def test_citations_are_cut_out_before_words_are_looked_for_but_after_they_are_counted() -> None:
    text, words, signals = edited(
        "One[1] two [edit] three[citation needed].\n[1] [2] [3]\nJava[3]script is needed here."
    )
    assert text == "One two  three."
    assert words == 4
    assert signals["kept_lines"] == 2  # three citations are three words, then an empty line
    assert signals["javascript_lines"] == 1
    assert signals["sentences"] == 2


def test_condemning_lines_stay_and_are_counted_in_order() -> None:
    lines = [
        "A lorem ipsum line.",
        "A { brace line.",
        "Second Lorem Ipsum line.",
        "JavaScript { line here.",
        "A lorem { ipsum.",
    ]
    text, _, signals = edited("\n".join(lines))
    assert text.split("\n") == [lines[0], lines[1], lines[2], lines[4]]
    assert [signals[name] for name in ("lorem_ipsum_first", "lorem_ipsum_lines", "curly_bracket_lines")] == [1, 2, 2]
    both = edited("A lorem ipsum { line.")[2]
    assert [both[name] for name in ("lorem_ipsum_first", "curly_bracket_lines")] == [1, 1]
    later = edited("A { brace line.\nA lorem ipsum line.")[2]
    assert [later[name] for name in ("lorem_ipsum_first", "lorem_ipsum_lines")] == [0, 1]


def test_the_text_stays_whole_if_it_is_not_to_be_edited() -> None:
    given = "One two.\n\nThis line stays [1] here.  "
    text, words, signals = edited(given, edit=False)
    assert text == given
    assert words == 11
    assert signals["short_lines"] == signals["kept_lines"] == 1


def test_lines_without_spaces_are_not_short() -> None:
    line = "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3002"
    assert edited(line, "ja")[0] == line
    assert edited(line, "en")[0] == ""


def test_rules_name_their_settings() -> None:
    assert {rule.setting for rule in RULES} == {f"c4.{name}" for name in C4Settings.model_fields}
    assert {rule.signal for rule in RULES} <= {signal.name for signal in SIGNALS}
