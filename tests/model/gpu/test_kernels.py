"""The kernels for CUDA against PyTorch; without CUDA there is nothing to test."""

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("these kernels are for CUDA", allow_module_level=True)

from model.gpu.kernels import Rotate, SwiGLU, loss_gradients, statistics


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, device="cuda").to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1000, 1408, 8192])
def test_swiglu(dtype: torch.dtype, width: int):
    both, given = random(5, 3, 2 * width, dtype=dtype), random(5, 3, width, dtype=dtype)
    both.requires_grad_()
    product = SwiGLU.apply(both)
    (gradient,) = torch.autograd.grad(product, both, given)
    exact = both.detach().double().requires_grad_()
    gate, up = exact.chunk(2, -1)
    wanted = torch.nn.functional.silu(gate) * up
    (wanted_gradient,) = torch.autograd.grad(wanted, exact, given.double())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(product.double(), wanted, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradient.double(), wanted_gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("groups", "heads", "width"), [(8, 6, 64), (2, 3, 32), (4, 5, 48), (3, 3, 128)])
def test_rotate(groups: int, heads: int, width: int):
    positions, batch = 7, 3
    mixed = random(positions, batch, groups, heads * width).requires_grad_()
    angle = torch.arange(positions, device="cuda")[:, None] * 0.3 ** torch.arange(width // 2, device="cuda")
    rotated = Rotate.apply(mixed, angle.cos(), angle.sin(), width)
    given = [random(*each.shape) for each in rotated]
    (gradient,) = torch.autograd.grad(rotated, mixed, given)
    parts = mixed.unflatten(-1, (heads, width)).split([heads - 2, 1, 1], 3)
    query, key, value = (part.flatten(2, 3) for part in parts)

    def turned(each: torch.Tensor) -> torch.Tensor:
        cos, sin = (torch.cat([part, part], -1)[:, None, None] for part in (angle.cos(), angle.sin()))
        first, second = each.chunk(2, -1)
        return each * cos + torch.cat([-second, first], -1) * sin

    wanted = (turned(query), turned(key), value)
    (wanted_gradient,) = torch.autograd.grad(wanted, mixed, given)
    for one, other in zip(rotated, wanted, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(gradient, wanted_gradient)


@pytest.mark.parametrize("width", [400, 4096, 32_768, 128_256])
def test_statistics_and_gradients_of_logits(width: int):
    logits = random(6, width)
    column = torch.tensor([0, 5, width - 1, -3, width, 7], device="cuda")
    known = (column >= 0) & (column < width)
    log_sum, at_column, total = statistics(logits, column)
    torch.testing.assert_close(log_sum, logits.logsumexp(-1))
    picked = logits.gather(1, column.clamp(0, width - 1)[:, None])[:, 0]
    torch.testing.assert_close(at_column, picked * known)
    torch.testing.assert_close(total, logits.sum(-1), rtol=1e-4, atol=1e-2)
    weight, at, everywhere = random(6), random(6).abs(), random(6) / width
    wanted = logits.softmax(-1) * weight[:, None] + everywhere[:, None]
    wanted.scatter_add_(1, column.clamp(0, width - 1)[:, None], (at * known)[:, None])
    loss_gradients(logits, column, log_sum, weight, at, everywhere)
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-7)
