"""Sums and gathering over three ranks, each with a part of its own."""

import subprocess
import sys

_RANK = """
import sys, torch, torch.distributed as dist
from model.megatron.direct_exchange import all_gather, install, reduce_scatter
rank = int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=3)
group = dist.group.WORLD
whole = torch.arange(12.0) * (rank + 1)
own = whole.chunk(3)[rank]
reduce_scatter(own, whole, group)
assert torch.equal(own, torch.arange(12.0).chunk(3)[rank] * 6), own
all_gather(whole, own, group)
assert torch.equal(whole, torch.arange(12.0) * 6), whole
names = {name: lambda *_, **__: "released" for name in ("dist_reduce_scatter_func", "dist_all_gather_func")}
install(names)
scatter, gather = names["dist_reduce_scatter_func"], names["dist_all_gather_func"]
assert scatter(own, whole, op=dist.ReduceOp.SUM, group=group, async_op=True) == "released"
assert scatter(own, whole, op=dist.ReduceOp.MAX, group=group, async_op=False) == "released"
assert gather(whole, own, group=group, async_op=True) == "released"
scatter(own, whole, op=dist.ReduceOp.SUM, group=group, async_op=False)
gather(whole, own, group=group, async_op=False)
assert torch.equal(whole, torch.arange(12.0) * 18), whole
dist.destroy_process_group()
"""


def test_each_rank_gets_its_sum_and_all_weights(tmp_path) -> None:
    ranks = [
        subprocess.Popen([sys.executable, "-c", _RANK, str(tmp_path / "meet"), str(rank)], stderr=subprocess.PIPE)
        for rank in range(3)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=120)
        assert rank.returncode == 0, errors.decode()
