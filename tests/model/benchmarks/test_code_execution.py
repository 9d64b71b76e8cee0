"""HumanEval's programs and tests: right ones pass, wrong ones do not, and the figures made of that."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from model.benchmarks.code_execution import (
    build_predictions,
    build_predictions_instruct,
    estimate_pass_at_k,
    pass_at_k,
    run_tests,
)


@pytest.fixture
def items(shared_data: Path) -> list[dict[str, Any]]:
    file = shared_data / "benchmarks/humaneval/HumanEval.jsonl.gz"
    if not file.exists():
        pytest.skip(f"{file} is absent")
    with gzip.open(file, "rt") as lines:
        return [json.loads(line) for line in lines]


def _tests(item: dict[str, Any]) -> str:
    return f"{item['test']}\ncheck({item['entry_point']})"


def test_the_authors_solutions_pass_and_others_do_not(items: list[dict[str, Any]]) -> None:
    items = items[::8]
    answers = [[item["canonical_solution"], "    return None\n", "    return (\n"] for item in items]
    programs = build_predictions(answers, items)
    verdicts = run_tests(list(zip(map(_tests, items), programs, strict=True)))
    assert [[verdict.passed for verdict in own] for own in verdicts] == [[True, False, False]] * len(items)
    assert {own[2].reason for own in verdicts} <= {
        "raised SyntaxError: '(' was never closed",
        "raised SyntaxError: invalid syntax",
    }


def test_the_metric_has_the_form_that_the_harness_calls() -> None:
    tests = ["assert twice(3) == 6", "assert twice('a') == 'aa'"]
    right, wrong = "def twice(x):\n    return 2 * x", "def twice(x):\n    return x + 2"
    found = pass_at_k(references=tests, predictions=[[right, wrong], [wrong, wrong]], k=[1, 2, 3])
    assert found == {"pass@1": 0.25, "pass@2": 0.5}
    assert pass_at_k(references=tests[:1], predictions=[[wrong]], k=1) == {"pass@1": 0.0}


def test_a_chat_is_left_out_after_the_code() -> None:
    answers = [["    return 1\n```\nThis returns 1.", "    return 2\n"]]
    found = build_predictions_instruct(answers, [{"prompt": "def f():\n"}])
    assert found == [["def f():\n    return 1\n", "def f():\n    return 2\n"]]


def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_one() -> None:
    assert estimate_pass_at_k(5, 0, 2) == 0.0
    assert estimate_pass_at_k(5, 5, 2) == 1.0
    assert estimate_pass_at_k(5, 2, 2) == pytest.approx(7 / 10)  # 3 of the 10 pairs hold wrong ones only
    assert estimate_pass_at_k(3, 2, 3) == 1.0
