"""Benchmarks whose answers are text, in the columns of the hub."""

import pytest

from infra.errors import BadInput
from tasks.benchmarks import texts
from tests.tasks.benchmarks.test_choices import only


def test_wikitext_is_cut_at_headings_of_the_first_level() -> None:
    text = " \n = One = \n \n Text . \n = = Part = = \n More . \n = Two = \n = = = Deep = = = \n"
    pages = [row["page"] for row in only(texts.wikitext, text, name="wiki.test.tokens").rows]
    assert [page.split("\n")[0] for page in pages] == [" = One = ", " = Two = "]
    assert "".join(pages).count("Part") == 1


def test_lambada_by_its_form() -> None:
    assert only(texts.lambada, {"text": "one two three"}).yaml == "lambada/lambada_openai.yaml"
    plain = only(texts.lambada, "one two\n\nthree four\n", name="lambada_test_plain_text.txt")
    assert (plain.yaml, len(plain.rows)) == ("lambada/lambada_standard.yaml", 2)
    with pytest.raises(BadInput, match="two words"):
        only(texts.lambada, {"text": "one"})


def test_math_goes_by_subject_and_has_its_answer_in_a_box() -> None:
    own = {"problem": "1+1", "solution": "$\\boxed{2}$", "type": "Counting & Probability", "level": "Level 1"}
    assert only(texts.math, own).yaml == "hendrycks_math/hendrycks_math_counting_and_prob.yaml"
    foundry = {"context": "1+1", "chain_of_thought": "Two.", "answer": "2", "category": "number_theory"}
    made = only(texts.math, foundry)
    assert (made.yaml, made.rows[0]["solution"]) == (
        "hendrycks_math/hendrycks_math_num_theory.yaml",
        "Two. $\\boxed{2}$",
    )
    chosen = {**own, "subject": own["type"], "unique_id": "test/1", "answer": "2"}
    assert only(texts.math, chosen).yaml == "hendrycks_math/hendrycks_math500.yaml"
    with pytest.raises(BadInput, match="not in a box"):
        only(texts.math, {**own, "solution": "2"})


def test_triviaqa_and_squad_need_an_answer() -> None:
    prompt = {"context": "Question: Who?\nAnswer:", "answer": "He", "aliases": ["He", "him"]}
    assert only(texts.triviaqa, prompt).rows == [
        {"question": "Who?", "answer": {"value": "He", "aliases": ["He", "him"]}}
    ]
    with pytest.raises(BadInput, match="an answer is needed"):
        only(texts.triviaqa, {**prompt, "aliases": []})
    asked = {"id": 7, "question": "Who?", "answers": []}
    with pytest.raises(BadInput, match="question 7 has no answer"):
        only(texts.squad, {"title": "T", "paragraphs": [{"context": "C", "qas": [asked]}]})
