"""Lets Megatron-Core run on a machine without CUDA, over gloo.

Megatron-Core names its accelerator literally ("cuda", `torch.cuda.*`, `x.cuda()`, type strings) instead of taking a
device, in several hundred lines that no setting reaches. `install` puts an import hook before `megatron.core`: while
one of its modules is imported on a machine without CUDA, those names in its syntax tree are pointed at the CPU. Line
numbers stay, torch and every other package are untouched, and where there is CUDA nothing is done at all, so that GPUs
run the released code as it is.

What is rewritten, and nothing else:

    "cuda"                            "cpu"                   devices, device types
    "torch.cuda.FloatTensor", ...     "torch.FloatTensor"     dispatch of the optimizer by type string
    torch.cuda, from torch.cuda ...   the stand-in below      current device, streams, random state
    tensor.cuda(...)                  tensor.cpu()
    tensor.is_cuda                    tensor.is_cpu
    pin_memory=True                   pin_memory=False
    megatron.core.jit                 its fuser is off        torch.compile would need a C++ compiler
    linear layers of one rank         torch's own             see _shorten_layers
    rotary positions                  our own                 see model.megatron.cpu_kernels
    sums of gradients over ranks      from each to each       see model.megatron.direct_exchange
"""

import ast
import contextlib
import importlib.abc
import importlib.machinery
import logging
import sys
import types
from collections.abc import Sequence
from types import CodeType, ModuleType
from typing import Any

from model.megatron import cpu_kernels, direct_exchange

_PACKAGE = "megatron.core"
_STAND_IN = "_torch_cuda_on_cpu"
_STRINGS = {"cuda": "cpu"} | {
    f"torch.cuda.{kind}Tensor": f"torch.{kind}Tensor" for kind in ("Float", "Half", "BFloat16")
}


def install() -> bool:
    """Point Megatron-Core at the CPU if this machine has no CUDA device; True if it now is.

    Must run before the first import of `megatron.core`; ImportError if it comes too late.
    """
    import torch

    if torch.cuda.is_available():
        return False
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return True
    loaded = [name for name in sys.modules if name.startswith(f"{_PACKAGE}.")]
    if loaded:
        raise ImportError(f"model.megatron.on_cpu.install() comes too late: {loaded[0]} is already imported")
    sys.modules[_STAND_IN] = _stand_in()
    sys.meta_path.insert(0, _Finder())
    # It warns that forking the CUDA random state is slow; the CPU has one generator and nothing to fork.
    logging.getLogger(f"{_PACKAGE}.tensor_parallel.random").setLevel(logging.ERROR)
    return True


class _Stream:
    """A CUDA stream or event; work on the CPU is synchronous, so that ordering it means doing nothing.

    All are one: what is done on one stream needs no care on another.
    """

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Stream)

    def __hash__(self) -> int:
        return 0

    def _nothing(self, *_: Any, **__: Any) -> None: ...

    wait_stream = wait_event = synchronize = wait = record = _nothing

    def record_event(self, event: "_Stream | None" = None) -> "_Stream":
        return event or _Stream()

    def query(self) -> bool:
        return True


class _Generators:
    def __getitem__(self, _: int) -> Any:
        import torch

        return torch.default_generator


def _stand_in() -> ModuleType:
    """What Megatron-Core calls of `torch.cuda` outside kernels, meaning the one CPU; the rest is torch's own."""
    import torch

    def nothing(*_: Any, **__: Any) -> None:
        return None

    def no_context(*_: Any, **__: Any) -> Any:
        return contextlib.nullcontext()

    module = types.ModuleType(_STAND_IN, "torch.cuda for a machine without CUDA")
    stand_ins: dict[str, Any] = {
        "current_device": lambda: torch.device("cpu"),
        "device_count": lambda: 1,
        "is_available": lambda: False,
        "manual_seed": torch.manual_seed,
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
        "default_generators": _Generators(),
        "random": module,
        "_lazy_call": lambda function, **_: function(),
        "Stream": _Stream,
        "Event": _Stream,
        "current_stream": _Stream,
        "default_stream": _Stream,
        "device": no_context,
        "stream": no_context,
        "__getattr__": lambda name: getattr(torch.cuda, name),
    }
    silent = ("set_device", "synchronize", "empty_cache", "manual_seed_all", "_lazy_init")
    vars(module).update(stand_ins, **dict.fromkeys(silent, nothing))
    return module


def _shorten_layers(names: dict[str, Any]) -> None:
    """Have linear layers that no rank shares call PyTorch's own, whose way through Python is much shorter.

    With the small models that a CPU trains, that way is a tenth of a step.
    """
    import torch

    released = names["linear_with_grad_accumulation_and_async_allreduce"]

    def linear(
        input: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        gradient_accumulation_fusion: bool,
        allreduce_dgrad: bool,
        sequence_parallel: bool,
        grad_output_buffer: Any = None,
        *others: Any,
        **named: Any,
    ) -> torch.Tensor:
        if allreduce_dgrad or sequence_parallel or gradient_accumulation_fusion or grad_output_buffer is not None:
            shared = (gradient_accumulation_fusion, allreduce_dgrad, sequence_parallel, grad_output_buffer)
            return released(input, weight, bias, *shared, *others, **named)
        return torch.nn.functional.linear(input, weight, bias)

    def alone(region: Any) -> Any:
        return lambda x, group=None: x if group is not None and group.size() == 1 else region(x, group=group)

    linear.warned = False  # pyright: ignore[reportFunctionMemberAccess]
    names["linear_with_grad_accumulation_and_async_allreduce"] = linear
    for name in ("copy_to_tensor_model_parallel_region", "reduce_from_tensor_model_parallel_region"):
        names[name] = alone(names[name])


class _Rewrite(ast.NodeTransformer):
    """The table in the module docstring."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str) and node.value in _STRINGS:
            return ast.copy_location(ast.Constant(_STRINGS[node.value]), node)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if node.attr == "is_cuda":
            node.attr = "is_cpu"
        if node.attr == "cuda" and isinstance(node.value, ast.Name) and node.value.id == "torch":
            return ast.copy_location(ast.Name(_STAND_IN, ast.Load()), node)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if node.module and (node.module == "torch.cuda" or node.module.startswith("torch.cuda.random")):
            node.module = _STAND_IN
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "cuda":
            node.func.attr, node.args, node.keywords = "cpu", [], []
        for keyword in node.keywords:
            if keyword.arg == "pin_memory":
                keyword.value = ast.copy_location(ast.Constant(False), keyword.value)
        return node


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles the rewritten source; its bytecode is never cached, because the cache belongs to the released code."""

    def get_code(self, fullname: str) -> CodeType | None:
        source = self.get_data(self.path)
        if b"cuda" not in source and b"pin_memory" not in source:
            return super().get_code(fullname)
        tree = ast.fix_missing_locations(_Rewrite().visit(ast.parse(source, self.path)))
        return compile(tree, self.path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)[_STAND_IN] = sys.modules[_STAND_IN]
        super().exec_module(module)
        _shorten(module.__name__.removeprefix(f"{_PACKAGE}."), vars(module))


def _shorten(module: str, names: dict[str, Any]) -> None:
    """Put what is shorter on a CPU into the namespace of a module that was just imported."""
    match module:
        case "jit":
            names["disable_jit_fuser"]()
        case "tensor_parallel.layers":
            _shorten_layers(names)
        case "models.common.embeddings.rope_utils":
            cpu_kernels.shorten_rotation(names)
        case "distributed.param_and_grad_buffer":
            direct_exchange.install(names)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(f"{_PACKAGE}."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec
