"""Layers of Transformer Engine, as far as they can be tried without it: the choice, refusals, names and values.

In the place of its modules stand modules of the same names of weights and the same state besides, in plain PyTorch.
"""

import warnings
from typing import Any

import pytest
import torch

from infra.errors import BadInput
from model.config import ModelSettings, TrainingSettings
from model.parallel import Place
from model.settings.precision import check_fp8
from tests.model.small_runs import layout, small_training

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from megatron.core.dist_checkpointing.mapping import ShardedObject
    from megatron.core.models.gpt import gpt_layer_specs
    from megatron.core.optimizer import distrib_optimizer
    from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
    from megatron.core.transformer.identity_op import IdentityOp
    from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint

    from model.architectures.build import build_model
    from model.architectures.engine import engine_layer, use_fp8, uses_engine
    from model.architectures.gpt import build_gpt, transformer_config
    from model.architectures.layers import set_rotary_frequencies
    from model.architectures.weights import initialise, sharded_tensors
    from model.megatron import fixes
    from model.settings.architecture import MixtureSettings

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
SHAPE = ModelSettings(
    num_layers=2,
    hidden_size=64,
    ffn_hidden_size=128,
    num_attention_heads=4,
    num_query_groups=2,
    sequence_length=32,
    qk_norm=True,
)


def training(**changes: Any) -> TrainingSettings:
    return small_training(model=SHAPE, micro_batch_size=2, dtype="bfloat16").model_copy(update=changes)


def test_taken_where_it_is_and_suits() -> None:
    assert uses_engine(training(), CUDA, installed=True)
    assert uses_engine(
        training(model=training().model.model_copy(update={"architecture": "bert"})), CUDA, installed=True
    )
    assert not uses_engine(training(), CUDA, installed=False)
    assert not uses_engine(training(), CPU, installed=True)
    mixture = training().model.model_copy(update={"mixture": MixtureSettings(experts=4)})
    for change in ({"transformer_engine": "never"}, {"dtype": "float32"}, {"model": mixture}):
        assert not uses_engine(training(**change), CUDA, installed=True)


def refuse(settings: TrainingSettings, *, installed: bool = True) -> None:
    check_fp8(
        settings.fp8,
        settings.transformer_engine,
        settings.model,
        settings.parallel,
        dtype=settings.dtype,
        micro_batch_size=settings.micro_batch_size,
        installed=installed,
    )


@pytest.mark.parametrize(
    ("changes", "installed", "value", "remedy"),
    [
        ({}, False, "fp8 = hybrid without Transformer Engine", r"install transformer-engine\[pytorch\]"),
        ({"transformer_engine": "never"}, True, "with transformer_engine = never", "transformer_engine to auto"),
        ({"dtype": "float32"}, True, "no mixture and dtype = float32", "dtype to bfloat16"),
        (
            {"model": SHAPE.model_copy(update={"ffn_hidden_size": 80}), "parallel": layout(tensor=2)},
            True,
            "ffn_hidden_size / tensor = 40",
            "multiple of 16",
        ),
    ],
)
def test_refuses_fp8_that_cannot_work(changes, installed, value, remedy) -> None:
    settings = training(fp8="hybrid", **changes)
    with pytest.raises(BadInput, match=value) as refusal:
        refuse(settings, installed=installed)
    assert refusal.match(remedy)


def test_accepts_fp8_that_works() -> None:
    refuse(training(fp8="e4m3"))
    refuse(training(fp8="hybrid", parallel=layout(tensor=2, sequence_parallel=True)))
    refuse(training(dtype="float32"), installed=False)


class NormedLinear(ColumnParallelLinear):
    """A norm and a linear layer in one, by Transformer Engine's names."""

    def __init__(self, input_size: int, output_size: int, *, config: Any, **options: Any) -> None:
        super().__init__(input_size, output_size, config=config, **options)
        self.epsilon = config.layernorm_epsilon
        self.layer_norm_weight = torch.nn.Parameter(torch.ones(input_size))

    def forward(self, input_: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        weight = self.layer_norm_weight
        return super().forward(torch.nn.functional.rms_norm(input_, weight.shape, weight, self.epsilon))

    def get_extra_state(self) -> Any:
        return torch.zeros(3, dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None: ...

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: tuple = (), metadata: Any = None) -> Any:
        own, axes = self.state_dict(prefix="", keep_vars=True), {"weight": 0, "bias": 0}
        groups: dict[str, Any] = {"tp_group": self.tp_group, "dp_cp_group": metadata["dp_cp_group"]}
        return make_sharded_tensors_for_checkpoint(own, prefix, axes, sharded_offsets, **groups)


def stand_in(qk_layernorm: bool = False) -> Any:
    layer: Any = gpt_layer_specs.get_gpt_layer_local_spec(qk_layernorm=qk_layernorm, normalization="RMSNorm")
    parts = layer.submodules
    parts.input_layernorm = parts.pre_mlp_layernorm = IdentityOp
    parts.self_attention.submodules.linear_qkv = parts.mlp.submodules.linear_fc1 = NormedLinear
    parts.self_attention.submodules.linear_proj = parts.mlp.submodules.linear_fc2 = RowParallelLinear
    parts.sharded_state_dict_keys_map = {}
    return layer


def objects(state: dict[str, Any]) -> set[str]:
    """Names in a checkpoint of what is no tensor."""
    return {each.key for each in state.values() if isinstance(each, ShardedObject)}


def test_a_run_begun_without_goes_on_with_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = training(dtype="float32")
    (plain,) = build_model(settings, settings.parallel, place, 400)
    monkeypatch.setattr(gpt_layer_specs, "get_gpt_layer_with_transformer_engine_spec", stand_in)
    config = transformer_config(settings, settings.parallel, place.device)
    assert not config.engine
    config.engine = True
    assert engine_layer(config).submodules.input_layernorm is IdentityOp
    chunk = build_gpt(config, settings, place, 400)
    set_rotary_frequencies(chunk, settings.model)
    initialise(chunk, place, settings.model, settings.seed)

    metadata = {"dp_cp_group": place.data_group()}
    ours, theirs = (each.sharded_state_dict(metadata=metadata) for each in (plain, chunk))
    named = [{each.key: each for each in sharded_tensors(state)} for state in (ours, theirs)]
    assert named[0].keys() == named[1].keys()
    assert "decoder.layers.self_attention.linear_qkv.layer_norm_weight" in named[1]
    assert theirs.keys() - ours.keys() == {name for name in theirs if name.endswith("layer_norm_weight")}
    assert {key for state in (ours, theirs) for key in objects(state)} == objects(ours) != set()
    for key, tensor in named[0].items():
        assert tensor.global_shape == named[1][key].global_shape
        assert torch.equal(tensor.data, named[1][key].data), key
    tokens = torch.arange(64).view(2, 32)
    with torch.no_grad():
        logits = [each.eval()(tokens, torch.arange(32).expand(2, -1), None) for each in (plain, chunk)]
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-6)


def test_fp8_is_refused_where_a_process_cannot(place: Place) -> None:
    settings = training(dtype="float32")
    chunks = build_model(settings, settings.parallel, place, 400)
    use_fp8(chunks, settings, place.device)
    assert not chunks[0].config.fp8
    with pytest.raises(BadInput, match="on a CPU without Transformer Engine"):
        use_fp8(chunks, settings.model_copy(update={"fp8": "hybrid"}), CPU)


def test_the_optimizer_is_torchs_whatever_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import megatron.core.optimizer as optimizers

    monkeypatch.setattr(optimizers, "USING_PYTORCH_OPTIMIZER", False)
    monkeypatch.setattr(distrib_optimizer, "HAVE_APEX_OR_TE", True)
    fixes.install()
    assert optimizers.USING_PYTORCH_OPTIMIZER
    assert not distrib_optimizer.HAVE_APEX_OR_TE
