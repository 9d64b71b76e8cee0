"""Texts and their endings, in whatever form they were published."""

import pytest

from infra.errors import BadInput
from tasks.benchmarks import completions
from tests.tasks.benchmarks.test_choices import only


def test_hellaswag_s_text_form_gets_the_capital_that_the_harness_gives() -> None:
    def query(context: str) -> str:
        return only(completions.hellaswag, f"{context}\n1\na\nb\nc\nd\n", name="hellaswag.txt").rows[0]["query"]

    assert query("Milling: A man fills a sack. he") == "Milling: A man fills a sack. He"
    assert query("Milling: He sits. the Miller and Co") == "Milling: He sits. The miller and co"
    assert query("How to mill: Take grain. Grind it.") == "How to mill: Take grain. Grind it."
    assert query('Milling: He says "go." he') == 'Milling: He says "go." He'
    assert query("Milling: a man") == "Milling: a man"
    assert len(query(f"Milling: {'. a: ' * 100_000}.x")) > 400_000
    made = only(completions.hellaswag, "Milling: He\n3\na\nb\nc\nd\n", name="hellaswag.txt")
    assert (made.rows[0]["gold"], made.rows[0]["label"], made.changes) == (3, "3", {"process_docs": None})


def test_winograd_sentences_are_put_together_again() -> None:
    item = {"context_options": ["Ann met Bea so Ann", "Ann met Bea so Bea"], "continuation": "left.", "gold": 1}
    assert only(completions.winogrande, item).rows == [
        {"sentence": "Ann met Bea so _ left.", "option1": "Ann", "option2": "Bea", "answer": "2"}
    ]
    assert only(completions.wsc273, item).rows[0] == {
        **{"text": "Ann met Bea so _ left.", "pronoun": "_", "pronoun_loc": 15},
        **{"options": ["Ann", "Bea"], "label": 1},
    }
    alike = {**item, "context_options": ["He is their man", "He is them"]}
    assert only(completions.winogrande, alike).rows[0]["option1"] == "their man"


def test_labels_beside_the_items() -> None:
    item = {"goal": "g", "sol1": "a", "sol2": "b"}
    assert [row["label"] for row in only(completions.piqa, item, item, beside=b"1\n0\n").rows] == [1, 0]
    with pytest.raises(BadInput, match="item 1"):
        only(completions.piqa, item, item, beside=b"1\n2\n")
