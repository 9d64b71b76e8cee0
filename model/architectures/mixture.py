"""The router of a mixture of experts, whose auxiliary losses are the same in every layout.

Megatron-Core's own depend on the layout when losses are summed over tokens: it takes what a rank has of a sequence for
the whole, so that with n ranks that share sequences (sequence or context parallelism) both losses weigh 1/n of what
they should, and the load-balancing loss of single sequences is divided by the number of sequences in a micro-batch once
too often. Here each rank adds its own tokens' part of two sums, the same whatever the ranks and micro-batches:

    load balancing   weight * experts * sum over sequences and experts of (part of the sequence's choices that fell on
                     the expert) * (sum over the sequence's tokens of the expert's probability)
    router z         weight * sum over tokens of (log of the sum of the exponentials of its logits)^2

Both are per token, as the cross entropy is: the sum over the global batch is divided by its number of tokens. The
balance is kept within each sequence, because a micro-batch is not the same in all layouts.
"""

from typing import Any

import torch
import torch.distributed as dist
from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler
from megatron.core.transformer.moe.router import TopKRouter


class SequenceBalancedRouter(TopKRouter):
    """Sends each token to its top-k experts; see the module docstring."""

    def _apply_seq_aux_loss(
        self,
        probs: torch.Tensor,
        scores_for_aux_loss: torch.Tensor,
        routing_map: torch.Tensor,
        seq_length: int,
        bsz: int,
        with_padding_mask: bool = False,
    ) -> Any:
        """Add the gradient of the load-balancing loss; all but `probs` are [positions * sequences, experts]."""
        weight = self.get_aux_loss_coeff("seq_aux_loss")
        if weight == 0:
            return probs
        scores = scores_for_aux_loss.view(seq_length, bsz, -1).sum(0)
        choices = routing_map.view(seq_length, bsz, -1).sum(0).float()
        if self.tp_cp_group.size() > 1:
            dist.all_reduce(choices, group=self.tp_cp_group)
        part = choices / choices.sum(-1, keepdim=True)
        loss = weight * choices.shape[-1] * (part * scores).sum()
        return MoEAuxLossAutoScaler.apply(probs, loss)

    def apply_z_loss(self, logits: torch.Tensor, padding_mask: torch.Tensor | None = None) -> Any:
        """Add the gradient of the z-loss of logits [tokens, experts]."""
        weight = self.config.moe_z_loss_coeff
        if weight is None or not self.training or not torch.is_grad_enabled():
            return logits
        return MoEAuxLossAutoScaler.apply(logits, weight * torch.logsumexp(logits.float(), -1).square().sum())


def keep_experts_apart(model: Any) -> None:
    """Have the experts' weights reduced and updated apart from the others, as Megatron-Core does with expert > 1.

    Optimizers are then the same two in every layout, so that a checkpoint of one can be read in another.
    """
    for name, parameter in model.named_parameters():
        if ".experts." in name:
            parameter.allreduce = False


def mixture_options(settings: Any, ffn_hidden_size: int) -> dict[str, Any]:
    """Fields of Megatron-Core's TransformerConfig for `architecture.MixtureSettings`, none without a mixture."""
    if settings is None:
        return {}
    return {
        "num_moe_experts": settings.experts,
        "moe_router_topk": settings.top_k,
        "moe_ffn_hidden_size": settings.expert_ffn_hidden_size or ffn_hidden_size,
        "moe_shared_expert_intermediate_size": settings.shared_ffn_hidden_size,
        "moe_router_load_balancing_type": "seq_aux_loss",
        "moe_aux_loss_coeff": settings.load_balancing,
        "moe_z_loss_coeff": settings.router_z_loss or None,
        "moe_router_dtype": "fp32",
        "moe_token_dispatcher_type": "alltoall",
    }
