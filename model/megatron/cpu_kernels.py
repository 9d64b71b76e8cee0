"""What stands between matrix products, with a way back in fewer passes than autograd's; for small models on CPUs.

    RmsNorm     x / rms(x) * weight
    SwiGlu      silu(gate) * up of the two halves of a row, and its gradient into one row
    Rotation    rotary positions, whose cosines and sines are worked out once for each set of frequencies

On GPUs `model.gpu` has kernels for these.
"""

from importlib import import_module
from typing import Any

import torch


class RmsNorm(torch.nn.RMSNorm):
    """PyTorch's module; only the gradient is worked out here."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise the last axis; other types than float32 go PyTorch's way."""
        if x.dtype != torch.float32 or self.eps is None:
            return super().forward(x)
        return _RmsNorm.apply(x, self.weight, self.eps)  # pyright: ignore[reportReturnType]


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        scale = x.pow(2).mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x, weight, scale = ctx.saved_tensors
        unit, given = x * scale, gradients[0]
        of_weight = (given * unit).flatten(0, -2).sum(0)
        given = given * weight
        along = (given * unit).mean(-1, keepdim=True)
        return given.addcmul_(unit, along, value=-1).mul_(scale), of_weight, None


class SwiGlu(torch.autograd.Function):
    """silu(gate) * up of rows [..., 2 width] = gate, up; the result is [..., width]."""

    @staticmethod
    def forward(ctx: Any, both: torch.Tensor) -> torch.Tensor:  # noqa: D102
        gate, up = both.chunk(2, -1)
        active = torch.nn.functional.silu(gate)
        ctx.save_for_backward(both, active)
        return active * up

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:  # noqa: D102
        both, active = ctx.saved_tensors
        gradient = torch.empty_like(both)
        (gate, up), (of_gate, of_up) = both.chunk(2, -1), gradient.chunk(2, -1)
        torch.mul(gradients[0], active, out=of_up)
        torch.ops.aten.silu_backward.grad_input(gradients[0] * up, gate, grad_input=of_gate)
        return gradient


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cosines, sines)
        return (x * cosines).addcmul_(_swapped(x), sines)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        cosines, sines = ctx.saved_tensors
        return (gradients[0] * cosines).addcmul_(_swapped(gradients[0]), sines, value=-1), None, None


def _swapped(x: torch.Tensor) -> torch.Tensor:
    left, right = x.chunk(2, -1)
    return torch.cat((right, left), -1)


class Rotary:
    """Megatron-Core's rotation of all of a head's numbers; what else it is asked for is left to the released one."""

    def __init__(self, released: Any) -> None:
        self._released = released
        self._frequencies: torch.Tensor | None = None
        self._tables: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(
        self,
        t: torch.Tensor,
        freqs: torch.Tensor,
        rotary_interleaved: bool = False,
        multi_latent_attention: bool = False,
        mscale: float = 1.0,
    ) -> Any:
        """Positions [positions, batch, heads, width], frequencies [positions, 1, 1, width] whose halves are equal."""
        whole = t.dtype == torch.float32 and t.shape[-1] == freqs.shape[-1]
        if not whole or rotary_interleaved or multi_latent_attention or mscale != 1.0:
            return self._released(t, freqs, rotary_interleaved, multi_latent_attention, mscale)
        if self._frequencies is not freqs or self._tables is None:
            left, right = freqs.sin().chunk(2, -1)
            self._frequencies, self._tables = freqs, (freqs.cos(), torch.cat((-left, right), -1))
        return _Rotation.apply(t, *self._tables)


def shorten_rotation(names: dict[str, Any]) -> None:
    """Put `Rotary` in the place of the rotation in the namespace of Megatron-Core's rotary positions."""
    names["_apply_rotary_pos_emb_bshd"] = Rotary(names["_apply_rotary_pos_emb_bshd"])


def shorten_activation(model: Any) -> None:
    """Have the feed-forward layers of a model on a CPU use `SwiGlu` where it is their activation."""
    config, feed_forward = model.config, import_module("megatron.core.transformer.mlp")
    if not (config.gated_linear_unit and config.activation_func is torch.nn.functional.silu):
        return
    config.use_te_activation_func = True  # whatever it is, it gets both halves
    for module in model.modules():
        if isinstance(module, feed_forward.MLP):
            module.activation_func = SwiGlu.apply
