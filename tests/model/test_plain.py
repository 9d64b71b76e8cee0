"""Every architecture computes what the same weights compute in plain PyTorch."""

from typing import Any

import pytest
import torch
from megatron.core.inference.contexts import StaticInferenceContext

from model.architectures.build import build_model
from model.architectures.weights import count_parameters
from model.config import TrainingSettings
from model.parallel import Place
from model.settings.architecture import ModelSettings, check_model, lengths
from model.settings.layout import ParallelSettings
from tests.model.plain import Plain

SMALL = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "num_query_groups": 2, "ffn_hidden_size": 48}
CLASSIC = {"normalization": "LayerNorm", "activation": "gelu", "biases": True, "positions": "learned", "qk_norm": False}
MODELS: dict[str, dict[str, Any]] = {
    "gpt": {},
    "gpt-classic": {**CLASSIC, "tied_embeddings": False},
    "gpt-windows": {"sliding_window": 5, "full_attention_every": 2, "head_width": 12, "activation": "squared-relu"},
    "gpt-llama3": {"rope_scaling": {"factor": 4.0, "original_length": 64}, "rope_base": 500, "positions": "rope"},
    "gpt-linear": {"rope_scaling": {"kind": "linear", "factor": 3.0}},
    "gpt-nowhere": {"positions": "none"},
    "gpt-mixture": {"mixture": {"experts": 4, "shared_ffn_hidden_size": 24, "expert_ffn_hidden_size": 40}},
    "bert": {"architecture": "bert", **CLASSIC},
    "bert-modern": {"architecture": "bert", "tied_embeddings": False, "rope_base": 1000},
    "t5": {"architecture": "t5", "num_query_groups": 4},
    "t5-classic": {"architecture": "t5", **CLASSIC, "num_query_groups": 4, "tied_embeddings": False},
}


@pytest.mark.parametrize("name", MODELS)
def test_same_logits(name: str, place: Place) -> None:
    model = ModelSettings.model_validate({**SMALL, "sequence_length": 32, "init_std": 0.2, **MODELS[name]})
    check_model(model)
    settings = TrainingSettings(model=model, dtype="float32", seed=3)
    (chunk,) = build_model(settings, ParallelSettings(), place, 100)
    chunk.eval()
    weights = {key: value for key, value in chunk.state_dict().items() if torch.is_tensor(value)}
    assert count_parameters([chunk], place) == sum(each.numel() for each in chunk.parameters())
    positions = sum(lengths(model))
    tokens = torch.randint(0, 100, (2, positions), generator=torch.Generator().manual_seed(1))
    for documents in (None, _documents(model, positions)):
        with torch.no_grad():
            ours = chunk(tokens, torch.arange(positions).expand(2, -1), documents)
            plain = Plain(model, weights).logits(tokens, documents)
        counted = slice(None) if documents is None else documents[:, -plain.shape[1] :] >= 0
        torch.testing.assert_close(ours[counted], plain[counted], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [*(name for name in MODELS if name.startswith("gpt")), "lstm"])
def test_a_text_is_continued_as_it_is_read(name: str, place: Place) -> None:
    """Token by token, with what was kept of those before, the logits are those of the whole text."""
    given = MODELS.get(name, {"architecture": "lstm", "tied_embeddings": False})
    model = ModelSettings.model_validate({**SMALL, "sequence_length": 32, "init_std": 0.2, **given})
    (chunk,) = build_model(TrainingSettings(model=model, dtype="float32"), ParallelSettings(), place, 100)
    chunk.eval()
    tokens = torch.randint(0, 100, (1, 20), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(20)[None]
    cache, parts = StaticInferenceContext(max_batch_size=1, max_sequence_length=20), []
    with torch.no_grad():
        whole = chunk(tokens, positions, None)
        for part in (slice(0, 12), *(slice(place, place + 1) for place in range(12, 20))):
            options = {"inference_context": cache, "runtime_gather_output": True}
            parts.append(chunk(tokens[:, part], positions[:, part], None, **options)[:, -1:])
            cache.sequence_len_offset += part.stop - part.start
            cache.enable_decode_mode()
    torch.testing.assert_close(torch.cat(parts, 1), whole[:, 11:], atol=2e-5, rtol=1e-5)


def _documents(model: ModelSettings, positions: int) -> torch.Tensor:
    """Two documents on each side, and padding."""
    parts = []
    for length in filter(None, lengths(model)):
        places = torch.arange(length, dtype=torch.int32)
        parts.append(torch.where(places < length - 3, places * 2 // length, -1))
    assert sum(map(len, parts)) == positions
    return torch.cat(parts).expand(2, -1).contiguous()


def test_gradients_of_a_mixture(place: Place) -> None:
    """The cross entropy's, and those of the two losses of the router, summed over tokens."""
    given = {"experts": 4, "shared_ffn_hidden_size": 24, "load_balancing": 0.3, "router_z_loss": 0.1}
    model = ModelSettings.model_validate({**SMALL, "sequence_length": 16, "init_std": 0.2, "mixture": given})
    (chunk,) = build_model(TrainingSettings(model=model, dtype="float32", seed=3), ParallelSettings(), place, 100)
    weights = {key: value.clone().requires_grad_() for key, value in chunk.state_dict().items() if value is not None}
    tokens = torch.randint(0, 100, (3, 16), generator=torch.Generator().manual_seed(1))
    chunk(tokens, torch.arange(16).expand(3, -1), None, labels=tokens.roll(-1, 1)).sum().backward()

    plain = Plain(model, weights)
    logits = plain.logits(tokens, None)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.roll(-1, 1).flatten(), reduction="sum")
    for router in plain.routers:
        chances = router.softmax(-1)
        chosen = torch.zeros_like(chances).scatter(-1, chances.topk(2, -1).indices, 1.0)
        part = chosen.sum(1) / (2 * 16)  # of the choices of each sequence
        loss = loss + 0.3 * 4 * (part * chances.sum(1)).sum() + 0.1 * router.logsumexp(-1).square().sum()
    loss.backward()
    for name, parameter in chunk.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad, atol=1e-4, rtol=1e-4, msg=name)
