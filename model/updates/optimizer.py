"""AdamW or Muon over float32 master weights, clipping, and the schedule of the learning rate."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from megatron.core.optimizer import OptimizerConfig, _get_param_groups, get_megatron_optimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.optimizer.optimizer import ChainedOptimizer, Float16OptimizerWithFloat16Params, FP32Optimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

from model.config import OptimizerSettings, TrainingSettings
from model.megatron import fixes
from model.parallel import tensor_group
from model.updates.muon import Muon, is_hidden_matrix, mark_parts

_DECAY_STYLES = {"warmup-stable-decay": "WSD"}
_DECAY_SHAPES = {"square-root": "minus_sqrt"}


def has_whole_optimizer(settings: OptimizerSettings) -> bool:
    """Whether each data-parallel rank holds the whole optimizer state, which Muon's whole matrices need."""
    return settings.kind == "muon"


def build_optimizer(chunks: list[Any], training: TrainingSettings) -> Any:
    """Megatron-Core's optimizer for chunks from `distribution.distribute`; a chain of those for parts of the weights.

    All updates are made to float32 master weights. AdamW's state is spread over the data-parallel ranks.
    """
    fixes.install()
    config, muon = _config(training), training.optimizer.kind == "muon"
    optimizer: Any = _muon_and_adamw(chunks, config, training) if muon else get_megatron_optimizer(config, chunks)
    chunks[0].config.grad_scale_func = optimizer.scale_loss
    for each in optimizer.chained_optimizers:
        for group in each.param_groups if isinstance(each.optimizer, torch.optim.AdamW) else ():
            group["fused"], group["foreach"] = True, False
    return optimizer


def _config(training: TrainingSettings) -> OptimizerConfig:
    settings, whole = training.optimizer, has_whole_optimizer(training.optimizer)
    return OptimizerConfig(
        optimizer="adam",
        lr=settings.learning_rate,
        min_lr=min(settings.min_learning_rate, settings.learning_rate),
        weight_decay=settings.weight_decay,
        adam_beta1=settings.beta1,
        adam_beta2=settings.beta2,
        adam_eps=settings.epsilon,
        # An infinite limit never clips but still has the norm computed.
        clip_grad=math.inf if settings.clip_gradient_norm is None else settings.clip_gradient_norm,
        bf16=training.dtype == "bfloat16",
        params_dtype=torch.bfloat16 if training.dtype == "bfloat16" else torch.float32,
        use_distributed_optimizer=not whole,
        overlap_param_gather=training.parallel.overlap and not whole,
    )


def _muon_and_adamw(chunks: list[Any], config: OptimizerConfig, training: TrainingSettings) -> Any:
    """A chain of Muon for the matrices of the layers and AdamW for the rest, as Megatron-Core chains its own."""
    mark_parts(chunks)
    weights = [each for chunk in chunks for each in chunk.named_parameters()]
    hidden = [weight for name, weight in weights if is_hidden_matrix(name, weight)]
    others = [weight for name, weight in weights if not is_hidden_matrix(name, weight)]
    with _passed_over(hidden):
        adamw: Any = get_megatron_optimizer(config, chunks)
    with _passed_over(others):
        groups = _get_param_groups(chunks, config, None)
    muon = Muon(groups, momentum=training.optimizer.muon_momentum, group=tensor_group(), dtype=config.params_dtype)
    prepare = partial(_prepare_state, muon)
    if config.bf16:
        wrapped = Float16OptimizerWithFloat16Params(muon, config, cast("Any", None), prepare)
        for weight in hidden:
            if hasattr(weight, "muon_parts"):
                weight.main_param.muon_parts = weight.muon_parts
    else:
        wrapped = FP32Optimizer(muon, config, prepare)
    return ChainedOptimizer([wrapped, *adamw.chained_optimizers])


def _prepare_state(muon: Muon, *_: Any) -> None:
    muon.prepare_state()


@contextmanager
def _passed_over(weights: list[Any]) -> Iterator[None]:
    """Have Megatron-Core leave these weights out of its parameter groups: it takes those that need gradients."""
    for weight in weights:
        weight.requires_grad_(False)
    yield
    for weight in weights:
        weight.requires_grad_(True)


def clip_gradients(optimizer: Any, norm: float) -> None:
    """Scale the gradients, whose norm is known, down to the largest norm that the settings allow."""
    for each in optimizer.chained_optimizers:
        if weights := each.get_parameters():
            clip_grad_by_total_norm_fp32(weights, max_norm=each.config.clip_grad, total_norm=norm)


def build_schedule(optimizer: Any, settings: OptimizerSettings, steps: int, done: int) -> OptimizerParamScheduler:
    """Megatron-Core's scheduler of learning rate and weight decay for a run of `steps` updates, `done` of them made.

    Its `step(1)` belongs before an update: the n-th update, counted from 1, has the rate of step n, so that a warm-up
    begins above zero and the last update has the lowest rate.
    """
    decay_steps = max(steps, settings.warmup_steps + 1)
    schedule = OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=settings.learning_rate,
        min_lr=min(settings.min_learning_rate, settings.learning_rate),
        lr_warmup_steps=settings.warmup_steps,
        lr_decay_steps=decay_steps,
        lr_decay_style=_DECAY_STYLES.get(settings.schedule, settings.schedule),
        wsd_decay_steps=max(1, min(round(settings.decay_fraction * steps), decay_steps - settings.warmup_steps)),
        lr_wsd_decay_style=_DECAY_SHAPES.get(settings.decay_shape, settings.decay_shape),
        start_wd=settings.weight_decay,
        end_wd=settings.weight_decay,
        wd_incr_steps=0,
        wd_incr_style="constant",
    )
    schedule.step(done)
    return schedule
