"""GLUE and SuperGLUE as published are in test_convert; here are the forms of llm-foundry."""

import pytest

from infra.errors import BadInput
from tasks.benchmarks import glue
from tests.tasks.benchmarks.test_choices import only


def test_copa_s_prompt_gives_its_premise_and_question() -> None:
    item = {"query": "The mill stood still, therefore", "gold": 1, "choices": ["the wind blew.", "no flour came."]}
    assert only(glue.copa, item).rows == [
        {
            **{"premise": "The mill stood still.", "choice1": "The wind blew.", "choice2": "No flour came."},
            **{"question": "effect", "label": 1},
        }
    ]
    with pytest.raises(BadInput, match="item 0"):
        only(glue.copa, {**item, "query": "The mill stood still"})


def test_boolq_in_three_forms() -> None:
    want = {"question": "is it old", "passage": "It is.", "label": 1}
    prompt = {"query": "Passage: It is.\nQuestion: is it old?", "choices": ["no", "yes"], "gold": 1}
    own = {"question": "is it old", "title": "Mill", "passage": "It is.", "answer": True}
    super_glue = {"question": "is it old", "passage": "It is.", "idx": 0, "label": True}
    for item in (prompt, own, super_glue):
        assert only(glue.boolq, item).rows == [want]
    with pytest.raises(BadInput, match="no and yes"):
        only(glue.boolq, {**prompt, "choices": ["yes", "no"]})
