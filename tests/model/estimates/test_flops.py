"""Parameters, operations, peaks and durations from settings alone."""

from typing import Any

import pytest
from pydantic import ValidationError

from infra.errors import BadInput
from model.architectures.build import build_model
from model.architectures.weights import count_parameters
from model.config import validate_layout
from model.estimates.devices import peak_flops
from model.estimates.flops import body_parameters, flops_per_token, parameters
from model.estimates.speed import SpeedOf, progress_line
from model.settings.architecture import MixtureSettings, ModelSettings
from model.settings.duration import BatchRamp, BatchSizes, Duration
from tests.model.small_runs import small_training

SMALL = small_training().model
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"tied_embeddings": False, "qk_norm": False},
    "tied": {"head_width": 12},
    "gpt2": {
        "normalization": "LayerNorm",
        "activation": "gelu",
        "biases": True,
        "positions": "learned",
        "qk_norm": False,
    },
    "mixture": {"mixture": MixtureSettings(experts=4, top_k=2, expert_ffn_hidden_size=48, shared_ffn_hidden_size=40)},
    "bert": {"architecture": "bert", "normalization": "LayerNorm", "activation": "gelu", "biases": True},
    "t5": {"architecture": "t5", "num_query_groups": 4},
    "lstm": {"architecture": "lstm"},
}


@pytest.mark.parametrize("name", MODELS)
def test_formula_counts_the_weights_of_the_model(name, place) -> None:
    model = ModelSettings.model_validate({**SMALL.model_dump(), **MODELS[name]})
    training = small_training(model=model)
    chunks = build_model(training, training.parallel, place, 400)
    assert parameters(model, 400) == count_parameters(chunks, place)


def test_flops_of_the_baselines() -> None:
    """Of `tests/benchmarks/gpu_speed.py`: 63,815 tokens/s were 450 TFLOP/s."""
    one_billion = ModelSettings(
        num_layers=16,
        hidden_size=2048,
        num_attention_heads=32,
        num_query_groups=8,
        ffn_hidden_size=8192,
        sequence_length=4096,
        tied_embeddings=False,
        qk_norm=False,
    )
    matrices = 16 * (2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192) + 2048 * 32768
    causal = 6 * 16 * 4096 * 2048
    assert flops_per_token(one_billion, 32768) == pytest.approx(6 * matrices + causal, rel=1e-4)
    assert 63_815 * flops_per_token(one_billion, 32768) == pytest.approx(450e12, rel=1e-3)


def test_windows_and_masks_change_attention_alone() -> None:
    long = SMALL.model_copy(update={"sequence_length": 4096})
    full, width = flops_per_token(long, 400), SMALL.hidden_size
    windowed = flops_per_token(long.model_copy(update={"sliding_window": 1024}), 400)
    alternating = flops_per_token(long.model_copy(update={"sliding_window": 1024, "full_attention_every": 2}), 400)
    one_layer = 12 * width * (2048 - (1024 - 1024**2 / 8192))
    assert full - windowed == pytest.approx(2 * one_layer)
    assert full - alternating == pytest.approx(one_layer)


def test_only_experts_that_a_token_meets_are_active() -> None:
    sparse = SMALL.model_copy(update={"mixture": MixtureSettings(experts=8, top_k=2)})
    router = SMALL.num_layers * 8 * SMALL.hidden_size
    feed_forward = SMALL.num_layers * 3 * SMALL.hidden_size * SMALL.ffn_hidden_size
    assert body_parameters(sparse, active=True) == body_parameters(SMALL) + router + feed_forward
    assert body_parameters(sparse) == body_parameters(SMALL) + router + 7 * feed_forward


def test_peaks_by_name() -> None:
    assert peak_flops("NVIDIA H200", "bfloat16") == 989e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "bfloat16") == 312e12
    assert peak_flops("NVIDIA B200", "bfloat16") == 2250e12
    assert peak_flops("CPU (x86_64)", "float32") is None
    assert peak_flops("CPU (x86_64)", "float32", 0.5) == 5e11


def test_speed_knows_mfu_where_it_knows_the_peak() -> None:
    unknown = SpeedOf.run(small_training(), 400, "CPU (x86_64)").metrics(1000, 4.0)
    assert unknown["tokens_per_second_per_device"] == 250
    assert "mfu" not in unknown
    known = SpeedOf(flops_per_token=2e9, peak=1e12).metrics(1000, 4.0)
    assert known == {"tokens_per_second_per_device": 250, "tflops_per_device": 0.5, "mfu": 0.5}
    row = {"step": 5, "loss": 1.0, "learning_rate": 1e-3, "gradient_norm": 0.5, "memory_gib": 1.25, **known}
    assert progress_line(row, 10, 3700.4).split("  ") == [
        "step 5/10", "loss 1.0000", "lr 1.00e-03", "norm 0.50", "250 tokens/s/device", "0.5 TFLOP/s", "MFU 50.0%",
        "1.2 GiB", "1:01:40 left",
    ]  # fmt: skip


def test_durations() -> None:
    wrongs: list[dict[str, Any]] = [{}, {"steps": 1, "tokens": 1}, {"epochs": 1.0, "chinchilla": 1.0}]
    for wrong in wrongs:
        with pytest.raises(ValidationError, match="exactly one"):
            Duration(**wrong)
    sequences = 8 * SMALL.sequence_length
    assert small_training(duration=Duration(epochs=2.5)).planned_steps(train_tokens=10 * sequences) == 25
    assert small_training(duration=Duration(tokens=3 * sequences + 1)).planned_steps(0) == 4
    tokens = 20 * body_parameters(SMALL)
    assert small_training(duration=Duration(chinchilla=1)).planned_steps(0) == -(-tokens // sequences)


def test_batches_grow_over_a_ramp() -> None:
    sizes = BatchSizes(8, BatchRamp(start=2, increment=2, samples=30))
    expected = [2] * 5 + [4] * 3 + [6] * 2 + [8] * 3
    assert [sizes.at(step) for step in range(1, 14)] == expected
    assert [sizes.samples(steps) for steps in range(14)] == [sum(expected[:steps]) for steps in range(14)]
    for samples in range(1, 60):
        steps = sizes.steps(samples)
        assert sizes.samples(steps) >= samples > sizes.samples(steps - 1)
    assert BatchSizes(8).at(1) == 8
    assert sizes.sizes() == [2, 4, 6, 8]


@pytest.mark.parametrize(
    ("ramp", "value"),
    [
        (BatchRamp(start=3, increment=2, samples=9), "batch_ramp.start = 3"),
        (BatchRamp(start=2, increment=3, samples=9), "batch_ramp.increment = 3"),
        (BatchRamp(start=8, increment=2, samples=9), "batch_ramp.start = 8"),
    ],
)
def test_ramps_that_cannot_work_are_refused(ramp, value) -> None:
    with pytest.raises(BadInput) as refusal:
        validate_layout(small_training(batch_ramp=ramp), 400)
    assert value in refusal.value.value
