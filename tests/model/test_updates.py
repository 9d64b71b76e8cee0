"""Updates: what is made small, which weights decay, Muon, recomputed activations; one process and two."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from infra.launching.launch import JobSpec, LocalLauncher
from model.architectures.build import build_model
from model.config import LossSettings, OptimizerSettings, TrainingSettings
from model.data.loader import training_loader
from model.data.sources import open_order
from model.rank import StopRequest
from model.recovery.checkpoint import Checkpoints
from model.recovery.health import Health
from model.run import prepare_run
from model.settings.duration import BatchRamp
from model.updates.distribution import distribute
from model.updates.loss import token_losses
from model.updates.muon import orthogonalised
from model.updates.optimizer import build_optimizer, build_schedule
from model.updates.step import Training, make_step
from tests.model.small_runs import layout, small_training
from tests.model.updates_rank import VOCABULARY, make_updates

ADDED = LossSettings(z_loss=1e-2, label_smoothing=0.1)
MUON = OptimizerSettings(kind="muon", learning_rate=3e-3, warmup_steps=2)
VARIANTS: dict[str, dict[str, Any]] = {
    "adamw with z-loss and smoothing": {"loss": ADDED},
    "muon": {"optimizer": MUON},
    "muon in bfloat16": {"optimizer": MUON, "dtype": "bfloat16"},
}
LAYOUTS = [layout(tensor=2, sequence_parallel=True), layout(pipeline=2), layout(data=2, overlap=True)]


def test_losses_and_gradients_are_those_of_torch() -> None:
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(6, 3, 40, dtype=torch.float64, generator=random) * 5
    labels, weights = torch.randint(0, 40, (6, 3), generator=random), torch.rand(6, 3, generator=random)
    wanted = logits.clone().requires_grad_()
    entropy = cross_entropy(wanted.flatten(0, 1), labels.flatten(), reduction="none").view(6, 3)
    smoothed = cross_entropy(wanted.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=0.1).view(6, 3)
    z_loss = 1e-2 * wanted.logsumexp(-1) ** 2
    ((smoothed + z_loss) * weights).sum().backward()
    ours = logits.float().requires_grad_()
    objective, ours_entropy, ours_z = token_losses(ours * 1.0, labels, None, ADDED)
    (objective * weights).sum().backward()
    assert torch.allclose(ours_entropy.double(), entropy, atol=1e-5)
    assert torch.allclose(token_losses(logits.float(), labels).double(), entropy, atol=1e-5)
    assert torch.allclose(ours_z.double(), z_loss, atol=1e-5)
    assert torch.allclose(objective.double(), smoothed + z_loss, atol=1e-5)
    assert ours.grad is not None
    assert wanted.grad is not None
    assert torch.allclose(ours.grad.double(), wanted.grad, atol=1e-6)


def test_orthogonalised_keeps_directions_and_evens_out_sizes() -> None:
    matrix = torch.randn(24, 10, generator=torch.Generator().manual_seed(0))
    left, sizes, right = torch.linalg.svd(orthogonalised(matrix), full_matrices=False)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert sizes.min() > 0.65
    assert sizes.max() < 1.25
    assert torch.allclose(left @ right, u @ v, atol=1e-3)
    assert torch.allclose(orthogonalised(matrix.T), orthogonalised(matrix).T)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], list[list[float]]]:
    """Numbers by variant and layout, of one start of two processes."""
    folder = tmp_path_factory.mktemp("updates")
    keys = [(name, index) for name in VARIANTS for index in range(len(LAYOUTS))]
    cases = [small_training(parallel=LAYOUTS[index], **VARIANTS[name]) for name, index in keys]
    (folder / "cases.json").write_text(json.dumps([each.model_dump(mode="json") for each in cases]))
    arguments = (str(folder / "cases.json"), str(folder / "results.json"))
    LocalLauncher().run(JobSpec(module="tests.model.updates_rank", arguments=arguments, processes=2), lambda line: None)
    return dict(zip(keys, json.loads(Path(arguments[1]).read_text()), strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_layouts_update_alike(variant, two_processes, place) -> None:
    expected = torch.tensor(make_updates(small_training(**VARIANTS[variant]), place)[0])
    tolerance = 1e-5 if "bfloat16" not in variant else 0.02
    for index, parallel in enumerate(LAYOUTS):
        found = torch.tensor(two_processes[variant, index])
        assert (found[:, :3] - expected[:, :3]).abs().max() < tolerance, (variant, parallel)
        assert (found[:, 3] / expected[:, 3] - 1).abs().max() < 100 * tolerance, (variant, parallel)
    if variant == "adamw with z-loss and smoothing":
        assert (expected[:, 1] > expected[:, 0] + expected[:, 2]).all()  # smoothing costs something
        assert (expected[:, 2] > 0.01).all()


def test_evaluation_measures_the_cross_entropy_alone(place) -> None:
    from model.updates.forward import sum_micro_batches
    from tests.model.updates_rank import random_batches

    sums = []
    for added in (LossSettings(), ADDED):
        settings = small_training(loss=added)
        chunks = build_model(settings, settings.parallel, place, VOCABULARY)
        with torch.no_grad():
            sums.append(sum_micro_batches(chunks, random_batches(settings, place, 0), place, backward=False))
    assert torch.equal(sums[0], sums[1])
    assert sums[0][0] == sums[0][1]


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputed_activations_change_nothing(recompute, place) -> None:
    for dropout in (0.0, 0.1):
        model = small_training().model.model_copy(update={"hidden_dropout": dropout})
        found = []
        for how in ("none", recompute):
            torch.manual_seed(1)
            found.append(make_updates(small_training(model=model, recompute=how), place, steps=2)[0])
        assert found[0] == found[1]


@pytest.fixture
def new_training(store, dataset, place) -> Callable[[], Training]:
    """Makes the same run at its start: Muon, batches that grow, something added to the loss."""
    ramp = BatchRamp(start=4, increment=2, samples=12)
    settings = small_training(optimizer=MUON, loss=ADDED, batch_ramp=ramp, dtype="bfloat16")
    run = prepare_run(store, dataset, "updates", settings)

    def new() -> Training:
        loader = training_loader(open_order(store, [dataset], settings.data, 64, 1), settings, place, dataset.tokenizer)
        chunks = distribute(
            build_model(settings, settings.parallel, place, 400), settings.parallel, whole_optimizer=True
        )
        optimizer = build_optimizer(chunks, settings)
        schedule = build_schedule(optimizer, settings.optimizer, 8, done=0)
        checkpoints, health = Checkpoints(store, run, place), Health(settings.health)
        return Training(run, place, loader, chunks, optimizer, schedule, checkpoints, health)

    return new


def test_muon_and_ramp_go_on_from_a_checkpoint_as_they_were(new_training) -> None:
    first = new_training()
    with StopRequest() as stop:
        before = [make_step(first, stop)[0] for _ in range(3)]
        first.save(0.0, wait=True)
        following = [make_step(first, stop)[0] for _ in range(3)]
        assert [row["batch_size"] for row in before + following] == [4, 4, 6, 8, 8, 8]
        assert [row["tokens"] / 64 for row in before] == [4, 8, 14]
        assert before[0]["objective"] > before[0]["loss"] + before[0]["z_loss"]
        second = new_training()
        record = second.checkpoints.latest()
        second.checkpoints.load(record, [chunk.module for chunk in second.chunks], second.optimizer)
        second.step, second.consumed_samples, second.schedule.num_steps = record.step, record.consumed_samples, 3
        resumed = [make_step(second, stop)[0] for _ in range(3)]
    for training in (first, second):
        training.loader.close()
    for key in ("loss", "objective", "z_loss", "gradient_norm", "learning_rate", "tokens"):
        assert [row[key] for row in resumed] == [row[key] for row in following], key


def decayed(settings: TrainingSettings, place: Any) -> dict[str, set[bool]]:
    """Names of weights, and whether the group that a weight is in decays."""
    built = build_model(settings, settings.parallel, place, VOCABULARY)
    chunks = distribute(built, settings.parallel, whole_optimizer=True)
    config = settings.model_copy(update={"optimizer": MUON})
    optimizer = build_optimizer(chunks, config)
    names = {id(weight): name for chunk in chunks for name, weight in chunk.module.named_parameters()}
    found: dict[str, set[bool]] = {}
    for group in optimizer.param_groups:
        for weight in group["params"]:
            found.setdefault(names[id(weight)], set()).add(group["wd_mult"] > 0)
    return found


def test_only_matrices_decay_and_each_weight_has_one_optimizer(place) -> None:
    settings = small_training()
    found = decayed(settings, place)
    (chunk,) = build_model(settings, settings.parallel, place, VOCABULARY)
    assert found == {name: {weight.ndim > 1} for name, weight in chunk.named_parameters()}


def test_muon_updates_a_matrix_as_torch_does(place) -> None:
    from model.updates.muon import Muon

    random = torch.Generator().manual_seed(3)
    start, gradients = torch.randn(12, 20, generator=random), torch.randn(3, 12, 20, generator=random)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    muon = Muon([{"params": [ours]}], momentum=0.95, group=None, dtype=torch.bfloat16)
    torchs = torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.param_groups[0].update(lr=0.02, weight_decay=0.1)
        muon.step()
        torchs.step()
    assert (ours - theirs).norm() < 0.05 * (ours - start).norm()  # products in bfloat16, in another order
    assert (ours - start).abs().mean() > 5e-3
