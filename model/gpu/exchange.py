"""Products whose operands or results travel between the GPUs of one machine while they are being multiplied.

The ranks of a group share memory (PyTorch's symmetric memory, peer to peer, without NVLink multicast). What a rank
gives away it writes into its own buffer; after a barrier the others copy it out on a stream of their own, while they
multiply what they have already. Two buffers in turn make one barrier a product enough: a rank that has passed the
barrier of one product has seen the others finish reading for the product before.
"""

from typing import Any

import torch
import torch.distributed._symmetric_memory as symmetric_memory


class Exchange:
    """The buffers of a group of ranks; every rank asks for the same products in the same order."""

    def __init__(self, group: Any) -> None:
        self._group, self.size, self.rank = group, group.size(), group.rank()
        self._stream: Any = torch.cuda.Stream()
        self._buffers: list[tuple[torch.Tensor, Any]] = []
        self._turn = 0

    def gather_and_multiply(self, shard: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Own positions [own, batch, in] of all ranks in order, and their product with weight [in, out]."""
        gathered = shard.new_empty(self.size, *shard.shape)
        product = shard.new_empty(self.size, *shard.shape[:-1], weight.shape[1])
        own, handle = self._next(shard.numel(), shard.dtype)
        own.view(shard.shape).copy_(shard)
        handle.barrier(channel=0)
        arrived = self._start()
        with torch.cuda.stream(self._stream):
            for peer in self._others():
                gathered[peer].copy_(handle.get_buffer(peer, shard.shape, shard.dtype))
                arrived[peer].record(self._stream)
            gathered[self.rank].copy_(shard)
        _multiply(shard, weight, product[self.rank])
        for peer in self._others():
            arrived[peer].wait()
            _multiply(gathered[peer], weight, product[peer])
        torch.cuda.current_stream().wait_stream(self._stream)
        return gathered.flatten(0, 1), product.flatten(0, 1)

    def multiply_and_scatter(self, inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """All positions [positions, batch, in] times weight [in, out], summed over the ranks: own [own, batch, out]."""
        parts = inputs.unflatten(0, (self.size, -1))
        shape = (self.size, *parts.shape[1:-1], weight.shape[1])
        own, handle = self._next(parts[..., 0].numel() * weight.shape[1], inputs.dtype)
        for peer in self._others():
            _multiply(parts[peer], weight, own.view(shape)[peer])
        handle.barrier(channel=0)
        arrived = self._start()
        received = inputs.new_empty(self.size, *shape[1:])
        with torch.cuda.stream(self._stream):
            for peer in self._others():
                received[peer].copy_(handle.get_buffer(peer, shape, inputs.dtype)[self.rank])
                arrived[peer].record(self._stream)
        total = inputs.new_empty(shape[1:])
        _multiply(parts[self.rank], weight, total)
        for peer in self._others():
            arrived[peer].wait()
            total += received[peer]
        torch.cuda.current_stream().wait_stream(self._stream)
        return total

    def _others(self) -> list[int]:
        return [(self.rank + step) % self.size for step in range(1, self.size)]

    def _start(self) -> list[Any]:
        self._stream.wait_stream(torch.cuda.current_stream())
        return [torch.cuda.Event() for _ in range(self.size)]

    def _next(self, numbers: int, dtype: torch.dtype) -> tuple[torch.Tensor, Any]:
        size = numbers * dtype.itemsize
        if not self._buffers or self._buffers[0][0].numel() < size:
            torch.cuda.synchronize()  # nobody reads the buffers that go
            self._buffers = [self._allocate(size) for _ in range(2)]
        self._turn = 1 - self._turn
        buffer, handle = self._buffers[self._turn]
        return buffer[:size].view(dtype), handle

    def _allocate(self, size: int) -> tuple[torch.Tensor, Any]:
        buffer = symmetric_memory.empty(size, dtype=torch.uint8, device=torch.device("cuda"))
        return buffer, symmetric_memory.rendezvous(buffer, self._group)


def _multiply(left: torch.Tensor, right: torch.Tensor, product: torch.Tensor) -> None:
    torch.mm(left.flatten(0, -2), right, out=product.flatten(0, -2))
