"""What a training will need, against what tensors on this machine take."""

from typing import Any

import pytest
import torch

from model.config import TrainingSettings
from model.estimates.memory import GIB, Memory, device_memory, estimate_memory, usable
from model.parallel import Place
from model.settings.architecture import embedding_rows
from tests.model.small_runs import layout

VOCABULARY = 256
SMALL: dict[str, Any] = {
    "num_layers": 3,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_query_groups": 2,
    "ffn_hidden_size": 208,
    "sequence_length": 64,
    "qk_norm": False,
}


def training(parallel: Any = None, **model: Any) -> TrainingSettings:
    return TrainingSettings.model_validate(
        {
            "model": {**SMALL, **model},
            "dtype": "float32",
            "micro_batch_size": 4,
            "parallel": (parallel or layout()).model_dump(),
        }
    )


def large(size: str, **settings: Any) -> Memory:
    model = {"size": size, "sequence_length": 4096}
    return estimate_memory(TrainingSettings.model_validate({"model": model, **settings}), 128_256)


def kept_bytes(chunk: Any, settings: TrainingSettings) -> int:
    """Bytes that a forward pass leaves for the backward pass, weights aside, each storage counted once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in chunk.parameters()}
    seen: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            seen.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    shape = (settings.micro_batch_size, settings.model.sequence_length)
    tokens = torch.randint(VOCABULARY, shape)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        chunk(tokens, torch.arange(shape[1]).expand(shape), None, labels=tokens)
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"qk_norm": True},
        {"activation": "gelu", "normalization": "LayerNorm", "positions": "learned", "biases": True},
        {"hidden_dropout": 0.1, "num_query_groups": 4},
        {"tied_embeddings": False, "mixture": {"experts": 4, "top_k": 2, "shared_ffn_hidden_size": 80}},
        {"architecture": "lstm"},
        {"architecture": "bert", "num_query_groups": 4},
    ],
    ids=["llama", "qk-norm", "gpt-2", "dropout", "mixture", "lstm", "bert"],
)
def test_estimates_what_is_really_there(changes: dict[str, Any], place: Place) -> None:
    from model.architectures.build import build_model
    from model.updates.distribution import distribute
    from model.updates.optimizer import build_optimizer

    settings = training(**changes)
    chunk = distribute(build_model(settings, settings.parallel, place, VOCABULARY), settings.parallel)[0]
    optimizer = build_optimizer([chunk], settings)
    estimate = estimate_memory(settings, VOCABULARY, fused=False)
    weights = sum(parameter.nbytes for parameter in chunk.parameters())
    gradients = sum(parameter.main_grad.nbytes for parameter in chunk.parameters())
    assert estimate.weights == pytest.approx(weights, rel=5e-3)
    assert estimate.gradients == pytest.approx(gradients, rel=5e-3)
    optimizer.step()
    states = optimizer.chained_optimizers if hasattr(optimizer, "chained_optimizers") else [optimizer]
    moments = sum(
        state[name].nbytes
        for each in states
        for state in each.optimizer.state.values()
        for name in ("exp_avg", "exp_avg_sq")
    )
    assert estimate.optimizer == pytest.approx(moments, rel=5e-3)
    logits = 4 * settings.micro_batch_size * settings.model.sequence_length * embedding_rows(settings.model, VOCABULARY)
    assert estimate.activations == pytest.approx(kept_bytes(chunk, settings) - logits, rel=0.05)


def test_what_layouts_save() -> None:
    whole = large("8b")
    tensor = large("8b", parallel=layout(tensor=2, sequence_parallel=True).model_dump())
    data = large("8b", parallel=layout(data=8).model_dump())
    pipeline = large("8b", micro_batch_size=1, parallel=layout(pipeline=4).model_dump())
    interleaved = large("8b", micro_batch_size=1, parallel=layout(pipeline=4, virtual_pipeline=2).model_dump())
    assert tensor.activations == whole.activations / 2
    assert tensor.weights == pytest.approx(whole.weights / 2)
    assert data.optimizer == whole.optimizer / 8
    assert data.weights == whole.weights
    assert pipeline.stage == 0
    assert pipeline.activations == pytest.approx(large("8b", micro_batch_size=1).activations, rel=0.01)
    assert interleaved.activations == pytest.approx(pipeline.activations * (1 + 3 / 8))  # 1 + (p - 1) / (p v)


def test_what_recomputation_saves() -> None:
    none, selective, full = (large("1b", recompute=each).activations for each in ("none", "selective", "full"))
    assert none > 2 * selective > 4 * full


def test_memory_of_a_device_can_be_given() -> None:
    assert device_memory(layout(device_memory_gib=80)) == 80 * GIB
    assert usable(80 * GIB) == 75 * GIB
