"""Whatever form a question was published in, the columns are those of the hub's data set."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from infra.errors import BadInput
from tasks.benchmarks import choices
from tasks.benchmarks.source import Converted, Source

LETTERED = "Question: Where?\nChoices:\nA. the mill\nB. the river: A. or B.\nAnswer:"


def only(
    convert: Callable[[Source], Iterable[Converted]], *records: Any, name: str = "x.jsonl", beside: bytes | None = None
) -> Converted:
    data = "".join(json.dumps(each) + "\n" for each in records) if name.endswith("jsonl") else "".join(records)
    found = list(convert(Source(name, data.encode(), None, lambda _: beside)))
    return found[0]


def test_a_question_is_taken_out_of_its_prompt() -> None:
    arc = only(choices.arc, {"query": "Question: Why?", "choices": ["a", "b", "c"], "gold": 2})
    assert arc.rows == [
        {"question": "Why?", "choices": {"text": ["a", "b", "c"], "label": ["A", "B", "C"]}, "answerKey": "C"}
    ]
    lettered = only(choices.commonsense_qa, {"query": LETTERED, "choices": ["A", "B"], "gold": 1})
    assert lettered.rows[0]["choices"]["text"] == ["the mill", "the river: A. or B."]
    assert lettered.changes["doc_to_choice"] == ["A", "B"]
    assert "2 of 5" in lettered.note
    hub = only(
        choices.arc, {"question": "Why?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"}
    )
    assert hub.rows == [{"question": "Why?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"}]


def test_social_iqa_with_two_and_with_three_choices() -> None:
    text = LETTERED.replace("Question: Where?", "Context: A miller came.\nQuestion: Where?")
    two = only(choices.social_iqa, {"query": text, "choices": ["A", "B"], "gold": 0})
    assert (two.rows[0]["context"], two.rows[0]["question"], two.rows[0]["label"]) == ("A miller came.", "Where?", "1")
    assert two.changes == {"doc_to_choice": "{{[answerA, answerB]}}"}
    own = {"context": "c", "question": "q", "answerA": "a", "answerB": "b", "answerC": "d"}
    assert only(choices.social_iqa, own, beside=b"2\n").rows == [{**own, "label": "2"}]
    with pytest.raises(BadInput, match=r"1 items and x-labels\.lst 2 labels"):
        only(choices.social_iqa, own, beside=b"2\n3\n")


def test_truthfulqa_has_the_best_answer_first() -> None:
    csv = "Question,Best Answer,Correct Answers,Incorrect Answers\nWhy?,So,Thus; So,No; Never; \n"
    row = only(choices.truthfulqa, csv, name="TruthfulQA.csv").rows[0]
    assert row["mc1_targets"] == {"choices": ["So", "No", "Never"], "labels": [1, 0, 0]}
    assert row["mc2_targets"] == {"choices": ["Thus", "So", "No", "Never"], "labels": [1, 1, 0, 0]}
    own = {"question": "Why?", "mc1_targets": {"No": 0, "So": 1}, "mc2_targets": {"No": 0, "So": 1}}
    assert only(choices.truthfulqa, own).rows[0]["mc1_targets"] == {"choices": ["So", "No"], "labels": [1, 0]}


def test_mmlu_with_and_without_names_of_columns() -> None:
    want = {"question": "Why?", "choices": ["a", "b", "c", "d"], "answer": 2, "subject": "anatomy"}
    named = "question,choice0,choice1,choice2,choice3,answer\nWhy?,a,b,c,d,2\n"
    for text in (named, "Why?,a,b,c,d,C\n"):
        made = only(choices.mmlu, text, name="mmlu/test/anatomy_test.csv")
        assert (made.yaml, made.rows) == ("mmlu/default/mmlu_anatomy.yaml", [want])
