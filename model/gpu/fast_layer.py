"""A decoder layer in its plain form, for GPUs: what follows a sum of the residual stream is one kernel with it."""

from typing import Any

import torch
from megatron.core.transformer.transformer_layer import TransformerLayer


class FastLayer(TransformerLayer):
    """Megatron-Core's layer where there is no dropout, mixture or second attention; names and checkpoints are its.

    What a layer adds to the residual stream it hands to the next one unadded, as `context`, which nothing else uses in
    such models; the last one adds it itself.
    """

    is_last = False

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        context: torch.Tensor | None = None,
        rotary_pos_emb: Any = None,
        inference_context: Any = None,
        **options: Any,
    ) -> Any:
        """Megatron-Core's interface: hidden states [positions, batch, width] to the same."""
        if inference_context is not None:
            options.update(rotary_pos_emb=rotary_pos_emb, inference_context=inference_context)
            return super().forward(hidden_states, attention_mask, context, **options)
        hidden_states, normalised = _added_and_normalised(self.input_layernorm, hidden_states, context)
        attended, _ = self.self_attention(normalised, attention_mask=attention_mask, rotary_pos_emb=rotary_pos_emb)
        hidden_states, normalised = _added_and_normalised(self.pre_mlp_layernorm, hidden_states, attended)
        output, _ = self.mlp(normalised)
        return (hidden_states + output, None) if self.is_last else (hidden_states, output)


@torch.compile(dynamic=False)
def _rms_norm(hidden: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    return torch.nn.functional.rms_norm(hidden, weight.shape, weight, epsilon)


@torch.compile(dynamic=False)
def _add_rms_norm(
    hidden: torch.Tensor, added: torch.Tensor, weight: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    total = hidden + added
    return total, torch.nn.functional.rms_norm(total, weight.shape, weight, epsilon)


def _added_and_normalised(
    norm: Any, hidden: torch.Tensor, added: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    if added is None:
        return hidden, _rms_norm(hidden, norm.weight, norm.eps)
    return _add_rms_norm(hidden, added, norm.weight, norm.eps)
