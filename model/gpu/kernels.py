"""Triton kernels for what stands between matrix products and is slow otherwise; imported only where there is CUDA.

Each does in one pass over memory what PyTorch, compiled or not, does in several:

    swiglu          silu(gate) * up of the two halves of a row, and its gradient into one row
    rotate          queries, keys and values cut out of one row and the first two turned by their positions, and back
    statistics      log-sum-exp and label's logit of each row of logits
    loss_gradients  the gradient of the cross entropy in the logits' own memory

Sums are in float32; tests/model/test_kernels.py compares them with PyTorch.
"""

# Triton comes with PyTorch for CUDA; elsewhere this module is not imported.
# pyright: reportMissingImports=false, reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false

from typing import Any

import torch
import triton
import triton.language as tl


class SwiGLU(torch.autograd.Function):
    """silu(gate) * up of rows [..., 2 width] = gate, up; the result is [..., width]."""

    @staticmethod
    def forward(ctx: Any, both: torch.Tensor) -> torch.Tensor:  # noqa: D102
        both = both.contiguous()
        width = both.shape[-1] // 2
        product = both.new_empty((*both.shape[:-1], width))
        _swiglu_forward[_row_blocks(both, width)](both, product, width, BLOCK=1024)
        ctx.save_for_backward(both)
        return product

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:  # noqa: D102
        (both,) = ctx.saved_tensors
        width = both.shape[-1] // 2
        gradient = torch.empty_like(both)
        _swiglu_backward[_row_blocks(both, width)](gradients[0].contiguous(), both, gradient, width, BLOCK=1024)
        return gradient


def _row_blocks(both: torch.Tensor, width: int) -> tuple[int, int]:
    return both.numel() // (2 * width), triton.cdiv(width, 1024)


@triton.jit
def _swiglu_forward(both, product, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    gate = tl.load(both + row * 2 * width + columns, mask=inside).to(tl.float32)
    up = tl.load(both + row * 2 * width + width + columns, mask=inside).to(tl.float32)
    tl.store(product + row * width + columns, gate * tl.sigmoid(gate) * up, mask=inside)


@triton.jit
def _swiglu_backward(gradients, both, gradient, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    given = tl.load(gradients + row * width + columns, mask=inside).to(tl.float32)
    gate = tl.load(both + row * 2 * width + columns, mask=inside).to(tl.float32)
    up = tl.load(both + row * 2 * width + width + columns, mask=inside).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    silu = gate * sigmoid
    tl.store(gradient + row * 2 * width + columns, given * up * (sigmoid + silu * (1 - sigmoid)), mask=inside)
    tl.store(gradient + row * 2 * width + width + columns, given * silu, mask=inside)


class Rotate(torch.autograd.Function):
    """Cut [positions, batch, groups, (r + 2) width] into r queries, a key and a value for each group, and turn them.

    cosine and sine are float32 [positions, width / 2]; the results are [positions, batch, heads, width]. The halves of
    a head are turned against each other (as in GPT-NeoX, Llama and Megatron-Core), values are not turned.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, mixed: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, width: int
    ) -> tuple[torch.Tensor, ...]:
        mixed = mixed.contiguous()
        positions, batch, groups, heads = *mixed.shape[:3], mixed.shape[3] // width
        query = mixed.new_empty(positions, batch, groups * (heads - 2), width)
        key, value = (mixed.new_empty(positions, batch, groups, width) for _ in range(2))
        ctx.save_for_backward(cosine, sine)
        ctx.shape = (groups, heads, width)
        _launch_rotate(mixed, query, key, value, cosine, sine, ctx.shape, back=False)
        return query, key, value

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:  # noqa: D102
        cosine, sine = ctx.saved_tensors
        groups, heads, width = ctx.shape
        given = [gradient.contiguous() for gradient in gradients]
        mixed = given[0].new_empty(*given[0].shape[:2], groups, heads * width)
        _launch_rotate(mixed, *given, cosine, sine, ctx.shape, back=True)
        return mixed, None, None, None


def _launch_rotate(
    mixed: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cosine: torch.Tensor,
    sine: torch.Tensor,
    shape: tuple[int, int, int],
    *,
    back: bool,
) -> None:
    groups, heads, width = shape
    _rotate[(mixed.shape[0] * mixed.shape[1],)](
        mixed,
        query,
        key,
        value,
        cosine,
        sine,
        mixed.shape[1],
        groups * heads,
        HEADS=heads,
        HALF=width // 2,
        ROWS=triton.next_power_of_2(groups * heads),
        COLUMNS=triton.next_power_of_2(width // 2),
        BACK=back,
    )


@triton.jit
def _rotate(
    mixed,
    query,
    key,
    value,
    cosine,
    sine,
    batch,
    rows,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BACK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < rows) & (column < HALF)
    group, place = row // HEADS, row % HEADS
    groups = rows // HEADS
    is_query, is_key, is_value = place < HEADS - 2, place == HEADS - 2, place == HEADS - 1
    whole = mixed + (token * rows + row) * 2 * HALF + column
    q = query + (token * groups * (HEADS - 2) + group * (HEADS - 2) + place) * 2 * HALF + column
    k = key + (token * groups + group) * 2 * HALF + column
    v = value + (token * groups + group) * 2 * HALF + column
    angle = (token // batch) * HALF + column
    cos = tl.load(cosine + angle, mask=column < HALF)
    sin = tl.load(sine + angle, mask=column < HALF)
    cos = tl.where(is_value, 1.0, cos)
    sin = tl.where(is_value, 0.0, sin)
    if BACK:
        first = tl.load(q, mask=inside & is_query, other=0.0).to(tl.float32)
        first += tl.load(k, mask=inside & is_key, other=0.0).to(tl.float32)
        first += tl.load(v, mask=inside & is_value, other=0.0).to(tl.float32)
        second = tl.load(q + HALF, mask=inside & is_query, other=0.0).to(tl.float32)
        second += tl.load(k + HALF, mask=inside & is_key, other=0.0).to(tl.float32)
        second += tl.load(v + HALF, mask=inside & is_value, other=0.0).to(tl.float32)
        tl.store(whole, first * cos + second * sin, mask=inside)
        tl.store(whole + HALF, second * cos - first * sin, mask=inside)
    else:
        first = tl.load(whole, mask=inside).to(tl.float32)
        second = tl.load(whole + HALF, mask=inside).to(tl.float32)
        turned_first = first * cos - second * sin
        turned_second = second * cos + first * sin
        tl.store(q, turned_first, mask=inside & is_query)
        tl.store(k, turned_first, mask=inside & is_key)
        tl.store(v, turned_first, mask=inside & is_value)
        tl.store(q + HALF, turned_second, mask=inside & is_query)
        tl.store(k + HALF, turned_second, mask=inside & is_key)
        tl.store(v + HALF, turned_second, mask=inside & is_value)


def statistics(logits: torch.Tensor, column: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-sum-exp, logit at a column (0 where it is outside) and sum of each row of logits [rows, width]; float32."""
    log_sum, at_column, total = (logits.new_empty(len(logits), dtype=torch.float32) for _ in range(3))
    _statistics[(len(logits),)](logits, column, log_sum, at_column, total, logits.shape[1], BLOCK=4096, num_warps=8)
    return log_sum, at_column, total


@triton.jit
def _statistics(logits, column, log_sum, at_column, total, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * width
    largest = tl.full((BLOCK,), float("-inf"), tl.float32)
    exponentials = tl.zeros((BLOCK,), tl.float32)
    sums = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, width, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        inside = columns < width
        logit = tl.load(start + columns, mask=inside, other=float("-inf")).to(tl.float32)
        larger = tl.maximum(largest, logit)
        # Where nothing was seen yet both are -inf, whose difference is no number.
        shift = tl.where(larger == float("-inf"), 0.0, larger)
        exponentials = exponentials * tl.exp(largest - shift) + tl.exp(logit - shift)
        largest = larger
        sums += tl.where(inside, logit, 0.0)
    top = tl.max(largest)
    tl.store(log_sum + row, top + tl.log(tl.sum(exponentials * tl.exp(largest - top))))
    tl.store(total + row, tl.sum(sums))
    wanted = tl.load(column + row)
    known = (wanted >= 0) & (wanted < width)
    tl.store(at_column + row, tl.load(start + tl.where(known, wanted, 0), mask=known, other=0.0).to(tl.float32))


def loss_gradients(
    logits: torch.Tensor,
    column: torch.Tensor,
    log_sum: torch.Tensor,
    weight: torch.Tensor,
    at_column: torch.Tensor,
    everywhere: torch.Tensor,
) -> None:
    """Overwrite logits [rows, width] by weight softmax(logits) + everywhere, plus at_column at one column of the row.

    log_sum is that of the row's own logits; column may lie outside; all but the logits are [rows].
    """
    _loss_gradients[(len(logits), triton.cdiv(logits.shape[1], 4096))](
        logits, column, log_sum, weight, at_column, everywhere, logits.shape[1], BLOCK=4096, num_warps=8
    )


@triton.jit
def _loss_gradients(logits, column, log_sum, weight, at_column, everywhere, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    logit = tl.load(logits + row * width + columns, mask=inside).to(tl.float32)
    gradient = tl.exp(logit - tl.load(log_sum + row)) * tl.load(weight + row) + tl.load(everywhere + row)
    gradient += tl.where(columns == tl.load(column + row), tl.load(at_column + row), 0.0)
    tl.store(logits + row * width + columns, gradient, mask=inside)
