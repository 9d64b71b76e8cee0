"""Preparation: what a model is shown of a text."""

import pytest

from tasks.models.preparation import prepare


def words(text: str) -> str:
    return prepare([text], "words").text(0)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("The Mill, 1823.", "the mill , 0000 ."),
        ("  a\t b\u00a0c  ", "a b c"),
        ("one\n\n two \r\nthree\n", "one\ntwo\nthree"),
        ("don't (stop)!", "don ' t ( stop ) !"),
        ("水車小屋は", "水 車 小 屋 は"),
        ("mill水mill", "mill 水 mill"),
        ("ไทย", "ไ ท ย"),
        ("방앗간 강", "방앗간 강"),
        ("МЕЛЬНИЦА Ünï", "мельница ünï"),
        ("co\u00adop zero\u200bwidth", "coop zerowidth"),
        ("x😀y", "x 😀 y"),
        ("𠀀𠀁", "𠀀 𠀁"),
        ("ȺȾ ẞ", "ⱥⱦ ß"),
        ("٣ ३", "0 0"),
        ("a\0b", "a b"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_words_are_lower_case_and_apart(text: str, seen: str) -> None:
    assert words(text) == seen


def test_preparing_twice_changes_nothing() -> None:
    text = words("Über 3 Mühlen: „Wer zuerst kommt“ — 水車小屋.\n\nZweite Zeile…")
    assert words(text) == text


def test_plain_and_lower_leave_the_rest_as_it_is() -> None:
    text = "The  MILL,\n 水車 \t"
    assert prepare([text], "plain").text(0) == text
    assert prepare([text], "lower").text(0) == text.lower()


def test_texts_are_cut_in_characters_before_anything_else() -> None:
    prepared = prepare(["äöüß", "ab", ""], "plain", 3)
    assert [prepared.text(index) for index in range(len(prepared))] == ["äöü", "ab", ""]


def test_lone_surrogates_are_no_reason_to_stop() -> None:
    assert prepare(["a \ud800 b", "c"], "words").text(0) == "a ? b"


def test_nothing_is_prepared_as_nothing() -> None:
    assert len(prepare([], "words")) == len(prepare([], "plain")) == 0


def test_a_long_line_is_read_in_one_pass() -> None:
    assert words("," * 2_000_000).count(",") == 2_000_000
