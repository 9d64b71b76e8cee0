"""Corrections to Megatron-Core 0.16.1 without which a resumed run is not the run that was interrupted.

They concern the distributed optimizer over torch's AdamW, which Megatron-Core builds where Transformer Engine and Apex
are absent, on CPU and GPU alike, and here always. AdamW keeps a `step` for each parameter; the checkpoint code was
written for an optimizer with one for each group.

    A1  the optimizer's state cannot be described before its first step, so that nothing can be loaded
    A2  loading (fully_reshardable) asks for a `step` that the checkpoint of a parameter does not hold
    A3  loading (dp_reshardable) lets the step from before the load win over the loaded one
    A4  loading (dp_reshardable, float32) writes into a view of a leaf that requires gradients
    A5  after loading, all parameters share one `step` tensor, so that each update counts once for each parameter:
        bias correction goes wrong without any error
    B   fully_reshardable states are gathered without the padding of their buckets, but cut with padded positions:
        where a buffer has several buckets, parameters get each other's moments without any error
    C   mixture-of-experts routers and latent attention use names that exist only with Transformer Engine

`tests/model/megatron/test_fixes.py` fails without any of them.
"""

import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch


def install() -> None:
    """Put the corrected class in the released one's place; must run before an optimizer is built."""
    optimizers: Any = import_module("megatron.core.optimizer")
    routing: Any = import_module("megatron.core.transformer.moe.moe_utils")
    latent_attention: Any = import_module("megatron.core.transformer.multi_latent_attention")

    if "transformer_engine" not in sys.modules:  # C
        routing.te_general_gemm = None
        latent_attention.HAVE_TE = False
    _use_own_adamw(optimizers)
    released = optimizers.DistributedOptimizer
    if not getattr(released, "corrected", False):
        optimizers.DistributedOptimizer = _corrected(released)


def _use_own_adamw(optimizers: Any) -> None:
    """Have torch's AdamW taken, fused as it is, where Transformer Engine and Apex have one as well.

    Theirs has one `step` for each group: a run begun on a machine without them could not go on there.
    """
    distributed: Any = import_module("megatron.core.optimizer.distrib_optimizer")
    optimizers.Adam, optimizers.USING_PYTORCH_OPTIMIZER = torch.optim.AdamW, True
    distributed.Adam, distributed.HAVE_APEX_OR_TE = torch.optim.Adam, False
    distributed.USING_TE_OPTIMIZER = distributed.USING_APEX_OPTIMIZER = False


def _corrected(released: Any) -> Any:
    class DistributedOptimizer(released):
        corrected = True
        _padding = False

        def _states(self) -> Iterator[tuple[dict[str, Any], torch.Tensor, dict[str, Any]]]:
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    yield group, parameter, self.optimizer.state[parameter]

        def state_dict(self) -> Any:
            for group, parameter, state in self._states():  # A1: what AdamW would hold before its first step
                if "step" not in state:
                    on_device = group.get("fused") or group.get("capturable")
                    state["step"] = torch.zeros(
                        (), dtype=torch.float32, device=parameter.device if on_device else "cpu"
                    )
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
            return super().state_dict()

        @torch.no_grad()  # A4
        def _set_main_param_and_optimizer_states(self, model_param: Any, tensors: dict[str, Any]) -> None:
            group, order = self.model_param_group_index_map[model_param]
            main = self.optimizer.param_groups[group]["params"][order]
            # A2, A3: the step was set by load_state_dict
            super()._set_main_param_and_optimizer_states(
                model_param, {**tensors, "step": self.optimizer.state[main]["step"]}
            )

        def load_state_dict(self, state_dict: Any) -> None:
            super().load_state_dict(state_dict)
            for _, _, state in self._states():  # A5
                state["step"] = state["step"].clone()

        def sharded_param_state_fully_reshardable(self, *arguments: Any, **options: Any) -> Any:
            self._padding = True
            try:
                return super().sharded_param_state_fully_reshardable(*arguments, **options)
            finally:
                self._padding = False

        def get_parameter_state_dp_zero(self, *arguments: Any, **options: Any) -> Any:
            if self._padding and self.data_parallel_group.size() == 1 and not options.get("empty_data"):
                return self._own_parameter_state()
            state = super().get_parameter_state_dp_zero(*arguments, **options)
            if self._padding and state is not None:  # B
                for index, buffer in enumerate(self.buffers):
                    for tensors in state[index].values():
                        _pad(buffer, tensors)
            return state

        def _own_parameter_state(self) -> dict[Any, Any]:
            """What gathering gives where there is nobody to gather from: one copy of the states instead of five."""
            state: dict[Any, Any] = {"buckets_coalesced": True}
            for index, (buffer, (ranges,)) in enumerate(zip(self.buffers, self.gbuf_ranges, strict=True)):
                whole = {key: torch.empty(buffer.numel) for key in ("param", "exp_avg", "exp_avg_sq")}
                for parameter, (start, end, _) in buffer.param_index_map.items():
                    own = self._get_main_param_and_optimizer_states(parameter)
                    for key, tensor in whole.items():
                        tensor[start:end].copy_(own[key].detach().flatten())
                state[index] = {ranges: {**whole, "numel_unpadded": buffer.numel_unpadded}}
            return state

    return DistributedOptimizer


def _pad(buffer: Any, tensors: dict[str, Any]) -> None:
    """Move each bucket's part of a packed tensor to the place that the bucket has in its padded buffer."""
    for key, packed in tensors.items():
        if not torch.is_tensor(packed):
            continue
        padded, start = packed.new_zeros(buffer.numel), 0
        for bucket in buffer.buckets:
            size = bucket.numel_unpadded
            padded[bucket.offset : bucket.offset + size] = packed[start : start + size]
            start += size
        tensors[key] = padded
