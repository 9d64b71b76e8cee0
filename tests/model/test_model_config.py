"""Refusals of what cannot work, before anything starts."""

import pytest
from pydantic import ValidationError

from infra.errors import BadInput
from model.config import Duration, EvaluationSettings, validate_evaluation, validate_layout
from model.settings.architecture import ModelSettings, padded_vocabulary
from model.settings.evaluation import EvaluationDuringTraining
from model.settings.layout import ParallelSettings
from tests.model.small_runs import layout, small_training


@pytest.mark.parametrize(
    ("changes", "value", "remedy"),
    [
        (
            {"parallel": layout(tensor=3)},
            "num_attention_heads = 4 with parallel.tensor = 3",
            "3 or 6, or the latter to 2",
        ),
        ({"parallel": layout(tensor=4)}, "num_query_groups = 2 with parallel.tensor = 4", "to 4, or the latter to 2"),
        ({"parallel": layout(pipeline=3)}, "num_layers = 2 with parallel.pipeline = 3", "to 3, or the latter to 2"),
        ({"global_batch_size": 9}, "global_batch_size = 9 with micro_batch_size x data processes = 2 x 1", "8 or 10"),
        (
            {"parallel": layout(tensor=2).model_copy(update={"processes": 3})},
            "parallel.processes = 3 with tensor x pipeline x context = 2 x 1 x 1",
            "2 or 4",
        ),
        (
            {"parallel": layout(sequence_parallel=True, tensor_overlap=True)},
            "tensor_overlap = true with tensor = 1 and sequence_parallel = true",
            "tensor to 2 or more",
        ),
        (
            {"parallel": layout(tensor=2, tensor_overlap=True)},
            "tensor_overlap = true with tensor = 2 and sequence_parallel = false",
            "sequence_parallel to true",
        ),
    ],
)
def test_refuses_a_layout_that_cannot_work(changes, value, remedy) -> None:
    with pytest.raises(BadInput) as refusal:
        validate_layout(small_training(**changes), vocabulary_size=400)
    assert value in refusal.value.value
    assert remedy in refusal.value.remedy


def test_refuses_heads_of_odd_width() -> None:
    odd = small_training().model.model_copy(update={"hidden_size": 36})
    with pytest.raises(BadInput, match="Set hidden_size to 40"):
        validate_layout(small_training(model=odd), 400)


def test_accepts_layouts_that_work() -> None:
    shared = layout(tensor=2, sequence_parallel=True)
    overlapped = shared.model_copy(update={"tensor_overlap": True})
    for parallel in (layout(), layout(tensor=2, pipeline=2, data=2), shared, overlapped):
        validate_layout(small_training(parallel=parallel), 400)


def test_refuses_prompts_with_context_parallelism() -> None:
    settings = EvaluationSettings(parallel=ParallelSettings(processes=2, context=2), prompts=("Once",))
    with pytest.raises(BadInput, match=r"Set parallel\.context to 1"):
        validate_evaluation(settings, small_training().model, 400)


def test_training_is_evaluated_by_steps_or_by_tokens() -> None:
    with pytest.raises(ValidationError, match="one of every_steps and every_tokens"):
        EvaluationDuringTraining()
    by_tokens = EvaluationDuringTraining(every_tokens=1000)
    assert [by_tokens.due(1, *each) for each in ((0, 999), (999, 1000), (1000, 1999), (500, 3100))] == [
        *(False, True, False, True)
    ]
    own = EvaluationDuringTraining(every_steps=5, of=EvaluationSettings(prompts=("Once",)))
    bert = small_training(evaluation=own).model_copy(update={"model": ModelSettings(architecture="bert")})
    with pytest.raises(BadInput, match="predicts the next token"):
        validate_layout(bert, 400)


def test_duration_is_exactly_one_of_steps_and_tokens() -> None:
    for wrong in ({}, {"steps": 1, "tokens": 1}):
        with pytest.raises(ValidationError, match="exactly one"):
            Duration(**wrong)
    assert small_training(duration=Duration(tokens=8 * 64 * 3 + 1)).planned_steps(0) == 4


def test_vocabulary_is_padded_alike_for_every_layout() -> None:
    assert [padded_vocabulary(size) for size in (1, 128, 129, 32_000)] == [128, 128, 256, 32_000]


def test_layout_stays_out_of_the_identity() -> None:
    one, two = small_training(), small_training(parallel=layout(tensor=2), micro_batch_size=4, log_every=7)
    assert one.identity() == two.identity()
    assert one.identity() != small_training(seed=2).identity()
