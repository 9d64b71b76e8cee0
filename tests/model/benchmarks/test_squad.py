"""Answers are compared as SQuAD's own script compares them."""

import pytest

from model.benchmarks.squad import SquadFiles, normalized


def score(answer: str, *right: str) -> tuple[float, float]:
    found = SquadFiles.process_results(object.__new__(SquadFiles), {"answers": {"text": list(right)}}, [answer, None])
    return found["exact"], found["f1"]


def test_articles_points_and_capitals_do_not_count() -> None:
    assert normalized("The  Mill, a mill!") == "mill mill"
    assert score(" the mill.", "Mill", "river") == (100.0, 100.0)


def test_words_in_common_count_for_f1() -> None:
    assert score("the old mill", "mill by the river") == (0.0, pytest.approx(100 * 2 / (2 + 3)))
    assert score("river", "mill") == (0.0, 0.0)


def test_a_question_without_an_answer_wants_silence() -> None:
    assert score(" ") == (100.0, 100.0)
    assert score("mill") == (0.0, 0.0)
