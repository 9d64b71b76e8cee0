"""config.json of transformers: which models have one, and what comes back of it."""

from typing import Any

import pytest

from infra.errors import BadInput
from model.interchange.shapes import megatron_shapes, transformers_shapes
from model.interchange.transformers_config import from_config, to_config
from model.settings.architecture import MixtureSettings, ModelSettings, RopeScaling

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
}
BASE: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 4, "num_query_groups": 2, "ffn_hidden_size": 96}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "qwen3"),
        ({"sliding_window": 32}, "qwen3"),
        ({"sliding_window": 32, "full_attention_every": 3}, "qwen3"),
        ({"qk_norm": False, "head_width": 32, "tied_embeddings": False}, "llama"),
        ({"qk_norm": False, "rope_scaling": RopeScaling(), "rope_base": 500_000}, "llama"),
        ({"qk_norm": False, "rope_scaling": RopeScaling(kind="linear", factor=2.0)}, "llama"),
        ({"qk_norm": False, "sliding_window": 32}, "mistral"),
    ],
)
def test_settings_come_back_as_they_were(changes: dict[str, Any], kind: str) -> None:
    model = ModelSettings(**{**BASE, **changes})
    config = to_config(model, 1000, 2, None, "bfloat16")
    assert (config["model_type"], config["pad_token_id"]) == (kind, 2)
    back = from_config(config)
    if model.rope_scaling and model.rope_scaling.kind == "linear":  # which has no bounds, whatever they are set to
        back = back.model_copy(update={"rope_scaling": model.rope_scaling})
    assert back == model
    assert from_config(config, 64).sequence_length == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "bert"},
        {"normalization": "LayerNorm"},
        {"activation": "gelu"},
        {"biases": True},
        {"positions": "learned"},
        {"mixture": MixtureSettings()},
        {"qk_norm": False, "sliding_window": 8, "full_attention_every": 2},
    ],
)
def test_models_without_a_form_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="LlamaForCausalLM"):
        to_config(ModelSettings(**changes), 1000, 2, 3, "float32")


def test_files_of_others() -> None:
    plain = from_config(LLAMA)
    assert (plain.num_query_groups, plain.tied_embeddings, plain.qk_norm, plain.rope_base) == (4, False, False, 10_000)
    new = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "sliding_window": 9}
    assert from_config(LLAMA | new) == plain.model_copy(update={"rope_base": 1_000_000})
    qwen = LLAMA | {"model_type": "qwen3", "sliding_window": 9, "use_sliding_window": False}
    assert from_config(qwen) == plain.model_copy(update={"qk_norm": True})
    windowed = qwen | {"use_sliding_window": True, "max_window_layers": 0}
    assert from_config(windowed).sliding_window == 9
    assert from_config(LLAMA | {"head_dim": 32}).kv_channels == 32


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "gpt2"},
        {"model_type": None},
        {"quantization_config": {"quant_method": "fp8"}},
        {"attention_bias": True},
        {"hidden_act": "gelu"},
        {"rope_scaling": {"type": "yarn", "factor": 4.0}},
        {"rope_scaling": {"type": "llama3", "factor": 4.0}},
        {"rope_scaling": "linear"},
        {"rope_theta": 10_000.5},
        {"rms_norm_eps": "small"},
        {"hidden_size": "64"},
        {"num_hidden_layers": 0},
        {"num_attention_heads": 0},
        {"num_key_value_heads": 3},
        {"head_dim": 15},
        {
            "model_type": "qwen3",
            "use_sliding_window": True,
            "sliding_window": 4,
            "layer_types": ["full_attention", "sliding_attention"],
        },
    ],
)
def test_files_that_cannot_be_trained_on(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        from_config(LLAMA | changes)
    with pytest.raises(BadInput, match="no hidden_size"):
        from_config({key: value for key, value in LLAMA.items() if key != "hidden_size"})


def test_both_forms_hold_the_same_weights() -> None:
    model = ModelSettings(**BASE, tied_embeddings=False)

    def weights(shapes: dict[str, tuple[int, ...]]) -> int:
        total = 0
        for shape in shapes.values():
            size = 1
            for axis in shape:
                size *= axis
            total += size
        return total

    assert weights(transformers_shapes(model, 1024)) == weights(megatron_shapes(model, 1024))
