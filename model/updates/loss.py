"""The loss of each token: cross entropy over a vocabulary that tensor-parallel ranks share, and what is added to it.

With logits x, their log-sum-exp Z = log sum_i exp x_i and a label y, the cross entropy is Z - x_y. Label smoothing by e
makes the label a mixture of y and all V rows of the (padded) vocabulary: (1 - e) (Z - x_y) + e (Z - mean_i x_i). The
z-loss adds w Z^2 (PaLM, arXiv:2204.02311). All of it needs of each rank's logits two reductions of a number for each
token, whatever the number of ranks. Sums are in float32. Nothing of the size of the logits is kept but the logits: the
way back works out their gradient in their own memory.
"""

from typing import Any

import torch
import torch.distributed as dist

from model.config import LossSettings

_PIECE = {"cpu": 1 << 18, "cuda": 1 << 26}
"""Logits that are worked on at once, by device: what fits in a core's cache, or what a GPU takes long enough over."""


def use_loss(model: Any, settings: LossSettings) -> None:
    """Make a Megatron-Core language model compute its losses here.

    In training, with anything added to the cross entropy, it returns [3, sequences, positions]: what is to be made
    small, the cross entropy and the z-loss, the latter two without gradients. Otherwise, as for every evaluation, it
    returns the cross entropy [sequences, positions].
    """
    added = settings.z_loss > 0 or settings.label_smoothing > 0

    def compute_language_model_loss(labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        group, by_position = model.pg_collection.tp, labels.transpose(0, 1)
        if added and model.training:
            losses = token_losses(logits, by_position, group, settings)
            return losses.transpose(1, 2).contiguous()
        return token_losses(logits, by_position, group).transpose(0, 1).contiguous()

    model.compute_language_model_loss = compute_language_model_loss


def token_losses(
    logits: torch.Tensor, labels: torch.Tensor, group: Any | None = None, settings: LossSettings | None = None
) -> torch.Tensor:
    """Losses in nats of logits [..., own part of the vocabulary] for labels [...], which are rows of the whole.

    Without settings the cross entropy [...], with settings [3, ...]; see `use_loss`. The ranks of the group hold equal
    parts of the vocabulary in order and get the same losses. Taking gradients overwrites the logits.
    """
    z_weight, smoothing = (settings.z_loss, settings.label_smoothing) if settings else (0.0, 0.0)
    arguments = (logits.flatten(0, -2), labels.flatten(), group, z_weight, smoothing, settings is not None)
    losses: Any = _VocabularyLoss.apply(*arguments)
    return losses.unflatten(-1, labels.shape)


class _VocabularyLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, labels: torch.Tensor, group: Any, z_weight: float, smoothing: float, parts: bool
    ) -> torch.Tensor:
        own = labels - (dist.get_rank(group) if _ranks(group) > 1 else 0) * logits.shape[-1]
        vocabulary = logits.shape[-1] * _ranks(group)
        own_sum, label_logit, total = _own_statistics(logits, own, smoothing > 0)
        log_sum, label_logit, mean = _over_ranks(own_sum, label_logit, total / vocabulary, group=group)
        ctx.save_for_backward(logits, own, own_sum, log_sum)
        ctx.z_weight, ctx.smoothing, ctx.vocabulary, ctx.parts = z_weight, smoothing, vocabulary, parts
        entropy = log_sum - label_logit
        if not parts:
            return entropy
        z_loss = z_weight * log_sum**2
        target = (1 - smoothing) * entropy + smoothing * (log_sum - mean) + z_loss
        return torch.stack([target, entropy, z_loss])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        logits, own, own_sum, log_sum = ctx.saved_tensors
        given = gradients[0][0] if ctx.parts else gradients[0]
        weight = given * (1 + 2 * ctx.z_weight * log_sum) * (own_sum - log_sum).exp()
        at_label = _in_part(own, logits.shape[-1]) * given * (ctx.smoothing - 1)
        if logits.is_cuda:
            from model.gpu.kernels import loss_gradients

            loss_gradients(logits, own, own_sum, weight, at_label, given * (-ctx.smoothing / ctx.vocabulary))
            return logits, None, None, None, None, None
        for rows in _pieces(logits):
            gradient = torch.softmax(logits[rows], -1, dtype=torch.float32).mul_(weight[rows, None])
            if ctx.smoothing:
                gradient.sub_(given[rows, None] * (ctx.smoothing / ctx.vocabulary))
            column = own[rows, None].clamp(0, logits.shape[-1] - 1)
            gradient.scatter_add_(1, column, at_label[rows, None])
            logits[rows] = gradient
        return logits, None, None, None, None, None


def _own_statistics(
    logits: torch.Tensor, own: torch.Tensor, with_total: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-sum-exp, the label's logit (0 where it is another rank's) and the sum of the own logits, [tokens] each."""
    if logits.is_cuda:
        from model.gpu.kernels import statistics

        return statistics(logits, own)
    log_sum, label_logit, total = (logits.new_zeros(len(logits), dtype=torch.float32) for _ in range(3))
    columns = own.clamp(0, logits.shape[-1] - 1)[:, None]
    for rows in _pieces(logits):
        # The fastest kernel that finds a log-sum-exp is that of log_softmax, which is a logit less it.
        at_column = torch.log_softmax(logits[rows], -1, dtype=torch.float32).gather(-1, columns[rows])[:, 0]
        label_logit[rows] = logits[rows].gather(-1, columns[rows])[:, 0].float()
        log_sum[rows] = label_logit[rows] - at_column
        if with_total:
            total[rows] = logits[rows].sum(-1, dtype=torch.float32)
    return log_sum, label_logit.mul_(_in_part(own, logits.shape[-1])), total


def _over_ranks(log_sum: torch.Tensor, *sums: torch.Tensor, group: Any) -> list[torch.Tensor]:
    """The same of the whole vocabulary."""
    if _ranks(group) == 1:
        return [log_sum, *sums]
    largest = log_sum.clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=group)
    whole = torch.stack([(log_sum - largest).exp(), *sums])
    dist.all_reduce(whole, group=group)
    return [whole[0].log() + largest, *whole[1:]]


def _pieces(logits: torch.Tensor) -> list[slice]:
    rows = max(1, _PIECE.get(logits.device.type, 1 << 26) // logits.shape[-1])
    return [slice(start, start + rows) for start in range(0, len(logits), rows)]


def _in_part(own: torch.Tensor, width: int) -> torch.Tensor:
    return ((own >= 0) & (own < width)).float()


def _ranks(group: Any) -> int:
    return dist.get_world_size(group) if group is not None else 1
