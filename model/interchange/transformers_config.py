"""config.json of transformers from our settings and back: which models have a form in both.

    LlamaForCausalLM      RMSNorm, SwiGLU, rotary positions, grouped queries
    MistralForCausalLM    the same, every layer with a sliding window
    Qwen3ForCausalLM      the same with norms of queries and keys, windows in some layers or none

Nothing here imports torch.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from infra.errors import BadInput
from model.settings.architecture import ModelSettings, check_model

_FORMS = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_WINDOWED, _FULL = "sliding_attention", "full_attention"


def to_config(
    model: ModelSettings, vocabulary_size: int, end_of_document: int, pad: int | None, dtype: str
) -> dict[str, Any]:
    """The config.json of a model. BadInput for what transformers has none of the three forms for.

    Every document begins after an end of document, which therefore is the token of the beginning too.
    """
    kind = _kind(model)
    config = {
        "architectures": [_FORMS[kind]],
        "model_type": kind,
        "vocab_size": vocabulary_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.ffn_hidden_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_query_groups,
        "head_dim": model.kv_channels,
        "hidden_act": "silu",
        "max_position_embeddings": model.sequence_length,
        "initializer_range": model.init_std,
        "rms_norm_eps": model.norm_epsilon,
        "rope_theta": float(model.rope_base),
        "rope_scaling": _scaling_to_config(model),
        "tie_word_embeddings": model.tied_embeddings,
        "attention_bias": False,
        "attention_dropout": model.attention_dropout,
        "bos_token_id": end_of_document,
        "eos_token_id": end_of_document,
        "pad_token_id": end_of_document if pad is None else pad,
        "use_cache": True,
        "torch_dtype": dtype,
    }
    if kind == "llama":
        config["mlp_bias"] = False
    if kind == "mistral":
        config["sliding_window"] = model.sliding_window
    if kind == "qwen3":
        config |= _qwen_windows(model)
    return config


def _kind(model: ModelSettings) -> str:
    needed = {"architecture": "gpt", "normalization": "RMSNorm", "activation": "swiglu", "biases": False}
    for name, value in (needed | {"positions": "rope", "mixture": None}).items():
        if getattr(model, name) != value:
            given = "settings" if name == "mixture" else getattr(model, name)
            raise _no_form(f"model.{name} = {given}")
    if model.qk_norm:
        return "qwen3"
    if model.full_attention_every is not None:
        raise _no_form(f"model.full_attention_every = {model.full_attention_every} without model.qk_norm")
    return "llama" if model.sliding_window is None else "mistral"


def _no_form(value: str) -> BadInput:
    return BadInput(
        value,
        f"only models that {', '.join(_FORMS.values())} describe can be written for transformers: gpt with RMSNorm, "
        "swiglu and rope, without biases or experts; a window in some layers only needs qk_norm",
        "Train such a model to export it; `gristmill evaluate` measures every other",
    )


def _qwen_windows(model: ModelSettings) -> dict[str, Any]:
    every = model.full_attention_every
    seen = [
        _WINDOWED if model.sliding_window is not None and (every is None or (layer + 1) % every) else _FULL
        for layer in range(model.num_layers)
    ]
    windowed = model.sliding_window is not None
    # transformers drops layers below max_window_layers from the window unless layer_types says otherwise.
    return {
        "use_sliding_window": windowed,
        "sliding_window": model.sliding_window,
        "max_window_layers": 0 if windowed else model.num_layers,
        "layer_types": seen,
    }


def _scaling_to_config(model: ModelSettings) -> dict[str, Any] | None:
    scaling = model.rope_scaling
    if scaling is None:
        return None
    common: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "linear":
        return common
    return common | {
        "low_freq_factor": scaling.low_frequency_factor,
        "high_freq_factor": scaling.high_frequency_factor,
        "original_max_position_embeddings": scaling.original_length,
    }


def from_config(config: Mapping[str, Any], sequence_length: int | None = None) -> ModelSettings:
    """The settings that a config.json describes; BadInput for what our models cannot be.

    Samples have `sequence_length` tokens; unset takes the most that the file allows.
    """
    kind = config.get("model_type")
    if kind not in _FORMS or config.get("quantization_config"):
        raise _unusable(
            f"model_type {kind!r}{' with quantization_config' if config.get('quantization_config') else ''}"
        )
    for name, value in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        if config.get(name, value) != value:
            raise _unusable(f"{name} {config[name]!r}")
    try:
        settings = ModelSettings.model_validate(_settings(kind, config, sequence_length))
    except KeyError as error:
        raise _unusable(f"no {error.args[0]}") from error
    except (ValidationError, TypeError, ValueError, ArithmeticError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        raise _unusable(f"{'.'.join(map(str, first['loc']))} ({first['msg']})") from error
    check_model(settings)
    return settings


def _settings(kind: str, config: Mapping[str, Any], sequence_length: int | None) -> dict[str, Any]:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    width = config.get("head_dim") or hidden // heads
    base, scaling = _positions(config)
    return {
        "num_layers": config["num_hidden_layers"],
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_query_groups": config.get("num_key_value_heads") or heads,
        "head_width": None if width * heads == hidden else width,
        "ffn_hidden_size": config["intermediate_size"],
        "sequence_length": sequence_length or config["max_position_embeddings"],
        "rope_base": base,
        "rope_scaling": scaling,
        "norm_epsilon": config["rms_norm_eps"],
        "tied_embeddings": config.get("tie_word_embeddings", False),
        "init_std": config.get("initializer_range", 0.02),
        "qk_norm": kind == "qwen3",
        **_windows(kind, config),
    }


def _windows(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The window of all layers, of all but every n-th, or none."""
    window, layers = config.get("sliding_window"), config["num_hidden_layers"]
    if kind == "llama" or window is None or (kind == "qwen3" and not config.get("use_sliding_window")):
        return {}
    if kind == "mistral":
        return {"sliding_window": window}
    first = config.get("max_window_layers", layers)
    seen = config.get("layer_types") or [_WINDOWED if layer >= first else _FULL for layer in range(layers)]
    full = [layer + 1 for layer, each in enumerate(seen) if each == _FULL]
    if len(full) == layers:
        return {}
    every = full[0] if full else None
    if every is not None and full != list(range(every, layers + 1, every)):
        raise _unusable(f"layer_types with full attention in layers {full}")
    return {"sliding_window": window, "full_attention_every": every}


def _positions(config: Mapping[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    """Base and scaling of the rotary positions, as transformers 5 or as earlier ones spell them."""
    spelled = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    base = spelled.get("rope_theta", config.get("rope_theta", 10_000.0))
    kind = spelled.get("rope_type", spelled.get("type", "default"))
    if kind == "default":
        return base, None
    if kind not in ("linear", "llama3"):
        raise _unusable(f"rope scaling {kind!r}")
    scaling = {"kind": kind, "factor": spelled["factor"]}
    if kind == "llama3":
        scaling["low_frequency_factor"] = spelled["low_freq_factor"]
        scaling["high_frequency_factor"] = spelled["high_freq_factor"]
        scaling["original_length"] = spelled["original_max_position_embeddings"]
    return base, scaling


def _unusable(what: str) -> BadInput:
    return BadInput(
        f"config.json says {what}",
        f"training goes on from models that {', '.join(_FORMS.values())} describe, without biases, in plain weights, "
        "with a whole rope_theta and default, linear or llama3 scaling",
        "Choose another checkpoint",
    )
