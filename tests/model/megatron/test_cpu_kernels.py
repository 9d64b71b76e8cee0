"""Kernels for CPUs beside autograd: the same values, and gradients to rounding."""

from collections.abc import Callable

import pytest
import torch

from model.megatron.cpu_kernels import RmsNorm, Rotary, SwiGlu


def values_and_gradients(function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> list[torch.Tensor]:
    """What a function makes of its inputs, and the gradients of a weighted sum of that."""
    value = function(*inputs)
    weights = torch.linspace(-1, 1, value.numel()).view_as(value)
    return [value, *torch.autograd.grad(value, inputs, weights)]


def test_norm() -> None:
    x, weight = torch.randn(5, 2, 3, 16, requires_grad=True), torch.rand(16, requires_grad=True)
    norm = RmsNorm(16, eps=1e-5)

    def own(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(norm, {"weight": weight}, (x,))

    found = values_and_gradients(own, x, weight)
    wanted = values_and_gradients(lambda x, w: torch.nn.functional.rms_norm(x, (16,), w, 1e-5), x, weight)
    torch.testing.assert_close(found, wanted)
    half = x.detach().bfloat16()
    assert torch.equal(norm.bfloat16()(half), torch.nn.functional.rms_norm(half, (16,), norm.weight, 1e-5))


def test_activation() -> None:
    both = torch.randn(7, 2, 24, requires_grad=True)
    found = values_and_gradients(SwiGlu.apply, both)
    wanted = values_and_gradients(lambda x: torch.nn.functional.silu(x[..., :12]) * x[..., 12:], both)
    assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


def turned(t: torch.Tensor, freqs: torch.Tensor, *_: object) -> torch.Tensor:
    """The definition, for as many numbers as there are frequencies; the rest of a head stays."""
    width = freqs.shape[-1]
    left, right = t[..., :width].chunk(2, -1)
    both = t[..., :width] * freqs.cos() + torch.cat((-right, left), -1) * freqs.sin()
    return torch.cat((both, t[..., width:]), -1)


@pytest.mark.parametrize("width", [16, 20])
def test_rotation(width) -> None:
    rotary = Rotary(turned)
    for scale in (1.0, 0.5):  # other frequencies than those whose tables are there
        freqs = (torch.arange(6.0)[:, None] * scale ** torch.arange(8)).repeat(1, 2)[:, None, None]
        heads = torch.randn(6, 2, 3, width, requires_grad=True)
        found = values_and_gradients(lambda t, freqs=freqs: rotary(t, freqs), heads)
        torch.testing.assert_close(found, values_and_gradients(lambda t, freqs=freqs: turned(t, freqs), heads))
