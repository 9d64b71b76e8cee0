"""Every architecture learns, and under every layout that it allows it is the same model."""

from typing import Any

import pytest

from infra.errors import BadInput
from model.config import EvaluationSettings, validate_evaluation
from model.evaluate import evaluate
from model.loop import train
from model.run import prepare_run, read_metrics
from model.settings.architecture import ModelSettings
from tests.benchmarks.layout_cases import Case, case
from tests.model.small_runs import small_training

BERT: dict[str, Any] = {
    "architecture": "bert",
    "positions": "learned",
    "normalization": "LayerNorm",
    "activation": "gelu",
    "biases": True,
}
T5: dict[str, Any] = {"architecture": "t5", "num_query_groups": 8, "num_layers": 2}
LSTM: dict[str, Any] = {"architecture": "lstm", "num_layers": 2}
MIXTURE: dict[str, Any] = {"mixture": {"experts": 4, "top_k": 2, "shared_ffn_hidden_size": 64}}
STRETCHED: dict[str, Any] = {
    "rope_scaling": {"factor": 4, "original_length": 32},
    "sliding_window": 16,
    "full_attention_every": 2,
    "head_width": 16,
    "activation": "squared-relu",
    "tied_embeddings": False,
}


def of(model: dict[str, Any], name: str, **layout: Any) -> Case:
    return case(name, training={"model": model}, **layout)


CASES = [  # test_layouts tries them; mixtures are there already
    of(BERT, "bert: tensor 2, sequence", tensor=2, sequence_parallel=True),
    of(BERT, "bert: pipeline 2 x 2 interleaved", pipeline=2, virtual_pipeline=2),
    of(BERT, "bert: context 2", context=2),
    of(T5, "t5: data 2, overlap", data=2, overlap=True, bucket_size=20_000),
    of(T5, "t5: tensor 2, sequence", tensor=2, sequence_parallel=True),
    of(LSTM, "lstm: data 2", data=2),
    of(STRETCHED, "stretched: pipeline 2", pipeline=2),
    of(STRETCHED, "stretched: context 2", context=2),
]


@pytest.mark.parametrize("model", [BERT, T5, LSTM, MIXTURE], ids=["bert", "t5", "lstm", "mixture"])
def test_trains_and_is_measured(model, store, dataset, alone, request) -> None:
    name = f"architecture-{request.node.callspec.id}"
    settings = small_training(steps=30)
    shape = {**settings.model.model_dump(exclude_unset=True), **model, "num_layers": 2, "num_query_groups": 4}
    settings = settings.model_copy(update={"model": ModelSettings.model_validate(shape)})
    run = prepare_run(store, dataset, name, settings)
    assert train(store, run, dataset) == 0
    rows = read_metrics(store.local_path(run.folder))
    assert len(rows) == 30
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.2
    prompts = ("def ",) if settings.model.predicts_next_token else ()
    measured = EvaluationSettings(max_tokens=4000, prompts=prompts, sample_tokens=4, temperature=0)
    validate_evaluation(measured, settings.model, run.vocabulary_size)
    record = evaluate(store, run, dataset, measured)
    assert record.untrained_loss is not None
    assert record.loss < record.untrained_loss - 0.2
    assert (record.bits_per_byte is not None) == settings.model.predicts_next_token
    assert len(record.samples) == len(prompts)


def test_only_what_predicts_the_next_token_continues_a_text() -> None:
    with pytest.raises(BadInput, match=r"Give neither, or train a gpt"):
        validate_evaluation(EvaluationSettings(prompts=("Once",)), ModelSettings(architecture="bert"), 400)
