"""AdamW over float32 master weights that are spread over the data-parallel ranks, and its learning rate."""

import math
from typing import Any

import torch
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

from model import megatron_fixes
from model.config import OptimizerSettings, TrainingSettings

_DECAY_STYLES = {"warmup-stable-decay": "WSD"}
_DECAY_SHAPES = {"square-root": "minus_sqrt"}


def build_optimizer(chunks: list[Any], training: TrainingSettings) -> Any:
    """Megatron-Core's distributed optimizer for chunks from `distribution.distribute`."""
    megatron_fixes.install()
    settings = training.optimizer
    config = OptimizerConfig(
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
        use_distributed_optimizer=True,
        overlap_param_gather=training.parallel.overlap,
    )
    optimizer = get_megatron_optimizer(config, chunks)
    chunks[0].config.grad_scale_func = optimizer.scale_loss
    if torch.cuda.is_available():
        for group in optimizer.param_groups:
            group["fused"], group["foreach"] = True, False
    return optimizer


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
