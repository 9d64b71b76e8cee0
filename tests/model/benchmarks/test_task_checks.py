"""What is wrong with a task is said before a model is asked, by task and item."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInput
from model.benchmarks.task_checks import check_lengths, new_tokens
from model.settings.benchmarks import BenchmarkSettings
from tests.model.benchmarks.quiz import ROW, load, offline, write_task

__all__ = ["offline"]


class Letters:
    """Encodes each letter as a token, after one that begins the text."""

    def encode_contexts(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        return [(0, *text.encode()) for text in texts]

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        return [((0, *context.encode()), tuple(end.encode())) for context, end in pairs]


LONG = {**ROW, "question": "Who, of all the millers of the valley?"}


def test_questions_that_do_not_fit_are_refused_or_counted(tmp_path: Path) -> None:
    quiz = load(write_task(tmp_path / "tasks", [ROW, LONG]), "quiz", few_shot=1)
    most = max(len("".join(each.args).encode()) for each in quiz.tasks["quiz"].instances)
    refused, allowed = BenchmarkSettings(), BenchmarkSettings(truncate_long_prompts=True)
    assert check_lengths(quiz, Letters(), most, refused) == {}
    with pytest.raises(BadInput, match=r"task quiz with 1 examples: 2 items are longer .*benchmarks\.few_shot lower"):
        check_lengths(quiz, Letters(), most - 2, refused)
    assert check_lengths(quiz, Letters(), most - 2, allowed) == {"quiz": 2}
    with pytest.raises(BadInput, match="task quiz with 2 examples: 1 are there"):
        load(tmp_path / "tasks", "quiz", few_shot=2)  # an item is not its own example


def test_prompts_leave_room_for_the_answer(tmp_path: Path) -> None:
    written = {"output_type": "generate_until", "doc_to_choice": None, "generation_kwargs": {"until": ["."]}}
    quiz = load(write_task(tmp_path / "tasks", [ROW, LONG], metric_list=None, **written), "quiz")
    settings = BenchmarkSettings(max_new_tokens=10)
    room = len(LONG["question"]) + 1 + 10
    assert check_lengths(quiz, Letters(), room, settings) == {}
    with pytest.raises(BadInput, match=r"task quiz with 0 examples: 1 items .* such as item 1 with 49 tokens"):
        check_lengths(quiz, Letters(), room - 1, settings)
    assert new_tokens({"max_gen_toks": 1024, "until": []}, BenchmarkSettings(), 512) == 256
    rolling = {"output_type": "loglikelihood_rolling", "doc_to_choice": None, "metric_list": None}
    whole = load(write_task(tmp_path / "tasks", [LONG], **rolling), "quiz")
    assert check_lengths(whole, Letters(), 8, settings) == {}


@pytest.mark.parametrize(
    ("rows", "config", "message"),
    [
        ([ROW, {**ROW, "answer": 2}], {}, r"task quiz, item 1: the right choice is 2 of 2 choices"),
        ([ROW, {**ROW, "answer": -1}], {}, r"task quiz, item 1: the right choice is .-1. of 2"),
        ([ROW, {**ROW, "label": -1}], {}, r"task quiz, item 1: the right choice is -1 of 2"),
        ([ROW, {**ROW, "choices": []}], {}, r"task quiz, item 1 has no choices"),
        ([ROW], {"doc_to_target": "they"}, r"task quiz, item 0: the right choice is 'they'"),
        ([ROW, {**ROW, "choices": None}], {}, r"quiz, item 1"),
        ([ROW], {"doc_to_text": "{{query}}"}, r"task quiz: its data have other columns .*query.*question, choices"),
        ([ROW], {"doc_to_target": "{{answer.index(7)}}"}, r"task quiz"),
        ([ROW], {"dataset_kwargs": {"data_files": {"test": "gone.jsonl"}}}, r"data file gone\.jsonl of task quiz"),
        ([ROW], {"dataset_path": "nobody/nothing", "dataset_kwargs": {}}, r"task quiz: nobody/nothing .*tasks_dir"),
        ([ROW], {"test_split": "validation"}, r"task quiz"),
        ([ROW], {"unsafe_code": True}, r"run_generated_code = false"),
    ],
)
def test_what_is_wrong_with_a_task_is_named(
    rows: Sequence[Any], config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        load(write_task(tmp_path / "tasks", rows, **config), "quiz")
