"""What each correction of Megatron-Core's optimizer checkpoints corrects; see model.megatron.fixes for the letters.

`test_resume.test_resume_is_bitwise_on_the_same_layout` trains on what these tests look at.
"""

from types import SimpleNamespace

import pytest
import torch
from megatron.core import optimizer as megatron_optimizer

from model.architectures.build import build_model
from model.data.loader import training_loader
from model.data.sources import open_order
from model.megatron.fixes import _pad
from model.rank import StopRequest
from model.recovery.checkpoint import Checkpoints
from model.recovery.health import Health
from model.run import prepare_run
from model.updates.distribution import distribute
from model.updates.optimizer import build_optimizer, build_schedule
from model.updates.step import Training, make_step
from tests.model.small_runs import layout, small_training


@pytest.fixture
def training(store, dataset, place, request) -> Training:
    settings = small_training(parallel=layout(overlap=True, bucket_size=3000), seed=len(request.node.name))
    run = prepare_run(store, dataset, "fixes", settings)
    loader = training_loader(open_order(store, [dataset], settings.data, 64, 1), settings, place, dataset.tokenizer)
    chunks = distribute(build_model(settings, settings.parallel, place, 400), settings.parallel)
    optimizer = build_optimizer(chunks, settings)
    schedule = build_schedule(optimizer, settings.optimizer, settings.duration.steps or 1, done=0)
    checkpoints, health = Checkpoints(store, run, place), Health(settings.health)
    return Training(run, place, loader, chunks, optimizer, schedule, checkpoints, health)


def adam_states(training: Training) -> list[dict]:
    return [state for _, _, state in training.optimizer.chained_optimizers[0]._states()]


def make_steps(training: Training, count: int) -> list[float]:
    return [make_step(training, StopRequest())[0]["loss"] for _ in range(count)]


def test_a1_state_can_be_described_before_the_first_step(training) -> None:
    (ours,) = training.optimizer.chained_optimizers
    released = type(ours).__mro__[1]
    with pytest.raises(AssertionError):
        released.state_dict(ours)
    assert ours.state_dict()
    assert all(set(state) == {"step", "exp_avg", "exp_avg_sq"} for state in adam_states(training))


def test_a2_a5_b_moments_and_steps_come_back_as_they_were(training) -> None:
    make_steps(training, 3)
    training.save(0.0)
    saved = [{key: value.clone() for key, value in state.items()} for state in adam_states(training)]
    following = make_steps(training, 2)
    record = training.checkpoints.latest()
    assert record is not None
    training.checkpoints.load(record, [chunk.module for chunk in training.chunks], training.optimizer)
    states = adam_states(training)
    for state, before in zip(states, saved, strict=True):
        assert all(torch.equal(state[key], before[key]) for key in ("step", "exp_avg", "exp_avg_sq"))
    assert len({state["step"].data_ptr() for state in states}) == len(states)
    training.step, training.consumed_samples = record.step, record.consumed_samples
    training.schedule.num_steps = record.step
    assert make_steps(training, 2) == following


def test_b_each_bucket_goes_to_its_padded_place() -> None:
    buckets = [SimpleNamespace(offset=0, numel_unpadded=3), SimpleNamespace(offset=4, numel_unpadded=2)]
    tensors = {"exp_avg": torch.tensor([1.0, 2, 3, 4, 5]), "numel_unpadded": 5}
    _pad(SimpleNamespace(numel=8, buckets=buckets), tensors)
    assert tensors["exp_avg"].tolist() == [1, 2, 3, 0, 4, 5, 0, 0]


def test_a3_a4_states_are_set_without_the_step_and_without_gradients(training) -> None:
    make_steps(training, 3)
    (ours,) = training.optimizer.chained_optimizers
    released = type(ours).__mro__[1]
    parameter, (group, order) = next(iter(ours.model_param_group_index_map.items()))
    main = ours.optimizer.param_groups[group]["params"][order]
    described = ours._get_main_param_and_optimizer_states(parameter)
    before = {key: tensor.detach().clone() for key, tensor in described.items()}
    steps = ours.optimizer.state[main]["step"]
    steps.fill_(7)  # as load_state_dict leaves it
    with pytest.raises(RuntimeError, match="in-place operation"):
        released._set_main_param_and_optimizer_states(ours, parameter, before)
    with torch.no_grad():
        released._set_main_param_and_optimizer_states(ours, parameter, before)
    assert float(steps) == 3
    steps.fill_(7)
    main.data.zero_()
    ours._set_main_param_and_optimizer_states(parameter, before)
    assert steps == 7
    assert torch.equal(main, before["param"])


def test_a5_the_released_load_shares_one_step(training) -> None:
    make_steps(training, 2)
    (ours,) = training.optimizer.chained_optimizers
    released = type(ours).__mro__[1]
    state = ours.state_dict()
    released.load_state_dict(ours, state)
    assert len({each["step"].data_ptr() for each in adam_states(training)}) == 1
    ours.load_state_dict(state)
    assert len({each["step"].data_ptr() for each in adam_states(training)}) == len(adam_states(training))


def test_c_routers_of_experts_work_without_transformer_engine(training, monkeypatch) -> None:
    from megatron.core.transformer import multi_latent_attention
    from megatron.core.transformer.moe import moe_utils

    inputs, weights = torch.ones(2, 1, 4), torch.ones(3, 4)
    assert moe_utils.router_gating_linear(inputs, weights, None, torch.float32).tolist() == [[[4.0] * 3]] * 2
    monkeypatch.delattr(moe_utils, "te_general_gemm")
    with pytest.raises(NameError, match="te_general_gemm"):
        moe_utils.router_gating_linear(inputs, weights, None, torch.float32)

    assert vars(multi_latent_attention)["HAVE_TE"] is False
    with pytest.raises(TypeError):  # what is asked where HAVE_TE is left as it was
        isinstance(inputs, vars(multi_latent_attention)["TELinear"])
    assert "corrected" in vars(megatron_optimizer.DistributedOptimizer)
