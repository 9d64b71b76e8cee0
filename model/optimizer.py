"""AdamW over float32 master weights that are spread over the data-parallel ranks, and its learning rate."""

import math
from typing import Any

import torch
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer

from model import megatron_fixes
from model.config import OptimizerSettings, TrainingSettings


def build_optimizer(model: Any, training: TrainingSettings) -> Any:
    """Megatron-Core's distributed optimizer for a model from `gpt.distribute`."""
    megatron_fixes.install()
    settings = training.optimizer
    config = OptimizerConfig(
        optimizer="adam",
        lr=settings.learning_rate,
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
    optimizer = get_megatron_optimizer(config, [model])
    model.config.grad_scale_func = optimizer.scale_loss
    if torch.cuda.is_available():
        for group in optimizer.param_groups:
            group["fused"], group["foreach"] = True, False
    return optimizer


def set_learning_rate(optimizer: Any, rate: float, weight_decay: float) -> None:
    """Set what the next update uses; Megatron-Core's own scheduler would be state to save, and ours is a function."""
    for group in optimizer.param_groups:
        group["lr"] = rate
        group["weight_decay"] = weight_decay * group["wd_mult"]  # wd_mult is 0 for one-dimensional weights


def learning_rate(settings: OptimizerSettings, step: int, steps: int) -> float:
    """Learning rate of update `step`, counted from 1, of a run of `steps` updates."""
    highest, lowest = settings.learning_rate, min(settings.min_learning_rate, settings.learning_rate)
    if step <= settings.warmup_steps:
        return highest * step / settings.warmup_steps
    if settings.schedule == "constant":
        return highest
    start = settings.warmup_steps
    if settings.schedule == "warmup-stable-decay":
        start = max(start, steps - round(settings.decay_fraction * steps))
    progress = min(max((step - start) / max(steps - start, 1), 0.0), 1.0)
    remaining = 0.5 * (1 + math.cos(math.pi * progress)) if settings.schedule == "cosine" else 1 - progress
    return lowest + (highest - lowest) * remaining
