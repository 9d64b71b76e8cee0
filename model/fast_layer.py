"""A decoder layer in its plain form, for GPUs: what follows a sum of the residual stream is one kernel with it."""

from typing import Any

import torch
from megatron.core.transformer.transformer_layer import TransformerLayer


class FastLayer(TransformerLayer):
    """Megatron-Core's layer where there is no dropout, mixture or second attention; names and checkpoints are its."""

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
            return super().forward(
                hidden_states,
                attention_mask,
                context,
                rotary_pos_emb=rotary_pos_emb,
                inference_context=inference_context,
                **options,
            )
        attended, _ = self.self_attention(
            _normalised(self.input_layernorm, hidden_states),
            attention_mask=attention_mask,
            rotary_pos_emb=rotary_pos_emb,
        )
        hidden_states, normalised = _added_and_normalised(self.pre_mlp_layernorm, hidden_states, attended)
        output, _ = self.mlp(normalised)
        return _added(hidden_states, output), None


@torch.compile(dynamic=False)
def _rms_norm(hidden: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    return torch.nn.functional.rms_norm(hidden, weight.shape, weight, epsilon)


@torch.compile(dynamic=False)
def _add_rms_norm(
    hidden: torch.Tensor, added: torch.Tensor, weight: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    total = hidden + added
    return total, torch.nn.functional.rms_norm(total, weight.shape, weight, epsilon)


def _normalised(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    return _rms_norm(hidden, norm.weight, norm.eps)


def _added_and_normalised(norm: Any, hidden: torch.Tensor, added: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return _add_rms_norm(hidden, added, norm.weight, norm.eps)


def _added(hidden: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    return hidden + added
