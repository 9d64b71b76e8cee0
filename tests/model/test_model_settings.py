"""Settings of the model: what is refused, what a name stands for, and how many rows an embedding has."""

from typing import Any

import pytest
from pydantic import ValidationError

from infra.configuration import assignment, load_settings
from infra.errors import BadInput
from model.config import TrainingSettings, validate_layout
from model.estimates.flops import parameters
from model.settings.architecture import ModelSettings, check_model, embedding_rows, gaps, lengths
from model.settings.layout import ParallelSettings, check_parallel
from model.settings.sizes import SIZES

T5 = {"architecture": "t5", "num_query_groups": 8}


@pytest.mark.parametrize(
    ("given", "value", "remedy"),
    [
        ({"hidden_size": 100}, "hidden_size = 100 with num_attention_heads = 8", "96 or 104"),
        ({"num_query_groups": 3}, "num_attention_heads = 8 with num_query_groups = 3", "6 or 9"),
        ({"head_width": 33}, "head_width = 33", "head_width to 34"),
        ({"positions": "none", "architecture": "bert"}, "positions = none", "learned or rope"),
        ({"positions": "learned", "rope_scaling": {}}, "rope_scaling with positions = learned", "unset"),
        (
            {"rope_scaling": {"low_frequency_factor": 4.0}},
            "rope_scaling.low_frequency_factor = 4.0",
            "below 4.0",
        ),
        ({"full_attention_every": 2}, "full_attention_every = 2 without sliding_window", "Set sliding_window"),
        ({"mixture": {}, "architecture": "bert"}, "mixture with architecture = bert", "architecture to gpt"),
        ({"mixture": {"experts": 2, "top_k": 3}}, "mixture.top_k = 3 with mixture.experts = 2", "at most 2"),
        ({"mixture": {}, "biases": True}, "biases = true with a mixture", "biases to false"),
        ({"mixture": {}, "architecture": "lstm"}, "mixture with architecture = lstm", "architecture to gpt"),
        ({"architecture": "t5"}, "num_query_groups = 4 with num_attention_heads = 8", "num_query_groups to 8"),
        ({**T5, "sliding_window": 8}, "sliding_window = 8 with architecture = t5", "unset"),
    ],
)
def test_refuses_a_model_that_cannot_be_built(given: dict[str, Any], value: str, remedy: str) -> None:
    with pytest.raises(BadInput) as refusal:
        check_model(ModelSettings.model_validate(given))
    assert value in refusal.value.value
    assert remedy in refusal.value.remedy


@pytest.mark.parametrize("given", [{}, {"head_width": 80}, {"positions": "learned", "head_width": 33}, T5])
def test_accepts_a_model_that_can(given: dict[str, Any]) -> None:
    check_model(ModelSettings.model_validate(given))


def test_an_lstm_and_a_t5_are_not_shared_out() -> None:
    for name, given in ({"tensor": {"architecture": "lstm"}, "pipeline": T5, "context": T5}).items():
        layout = ParallelSettings.model_validate({"processes": 2, name: 2})
        with pytest.raises(BadInput, match=f"parallel.{name} = 2"):
            check_parallel(ModelSettings.model_validate(given), layout, 400)


@pytest.mark.parametrize("size", SIZES)
def test_sizes_can_be_built_and_shared_by_two(size: str) -> None:
    training = TrainingSettings.model_validate({"model": size})
    check_model(training.model)
    check_parallel(training.model, ParallelSettings(processes=4, tensor=2, pipeline=2), 32_000)
    assert training == TrainingSettings.model_validate(training.model_dump())


@pytest.mark.parametrize(
    ("size", "vocabulary", "billions"),
    [
        ("150m", 32_768, 0.175),
        ("1b", 32_768, 1.107),
        ("3.6b", 128_256, 3.607),
        ("8b", 128_256, 8.03),
        ("70b", 128_256, 70.55),
    ],
)
def test_sizes_have_the_weights_that_are_said(size: str, vocabulary: int, billions: float) -> None:
    model = ModelSettings.model_validate(size)
    assert parameters(model, vocabulary) == pytest.approx(1e9 * billions, rel=2e-3)


def test_a_size_may_be_changed() -> None:
    changed = ModelSettings.model_validate({"size": "150M", "hidden_dropout": 0.1})
    assert changed == ModelSettings.model_validate("150m").model_copy(update={"hidden_dropout": 0.1})
    assert ModelSettings.model_validate({"size": "1b"}).identity() == ModelSettings.model_validate("1b").identity()


def test_sizes_on_the_command_line() -> None:
    def chosen(*assignments: str) -> ModelSettings:
        values = [assignment(f"model{each}") for each in assignments]
        return load_settings(TrainingSettings, TrainingSettings(model=ModelSettings(num_layers=3)), None, values).model

    assert chosen(".hidden_dropout=0.1").num_layers == 3
    expected = ModelSettings.model_validate({"size": "350m", "hidden_dropout": 0.1})
    assert chosen("=350m", ".hidden_dropout=0.1") == expected
    assert chosen(".size=350m", ".hidden_dropout=0.1") == expected
    assert chosen("={size: 350m, hidden_dropout: 0.1}") == expected
    assert chosen("=15m", "=350m") == ModelSettings.model_validate("350m")


def test_a_recurrent_network_does_not_keep_documents_apart() -> None:
    apart = {"model": {"architecture": "lstm"}, "data": {"attend_across_documents": False}}
    with pytest.raises(BadInput, match=r"Set data\.attend_across_documents to true"):
        validate_layout(TrainingSettings.model_validate(apart), 400)


def test_an_unknown_size_is_named() -> None:
    with pytest.raises(ValidationError, match=r"size 9b is not one of 1m, 4m"):
        TrainingSettings.model_validate({"model": "9b"})


@pytest.mark.parametrize("tokens", [2, 3, 8, 100, 512, 4096])
def test_gaps_leave_a_text_between_them(tokens: int) -> None:
    missing, count = gaps(ModelSettings.model_validate(T5), tokens)
    assert 1 <= count <= missing < tokens
    assert count <= tokens - missing
    if tokens >= 100:
        assert missing / tokens == pytest.approx(0.15, abs=0.01)
        assert missing / count == pytest.approx(3, abs=0.15)


def test_special_tokens_have_rows_of_their_own() -> None:
    bert, t5 = (ModelSettings.model_validate({**T5, "architecture": name}) for name in ("bert", "t5"))
    assert [embedding_rows(ModelSettings(), size) for size in (1, 128, 129)] == [128, 128, 256]
    assert embedding_rows(bert, 128) == 256
    assert embedding_rows(t5, 32_000) == 32_128
    assert lengths(t5) == (928, 208)
    assert lengths(bert) == (1024, 0)
