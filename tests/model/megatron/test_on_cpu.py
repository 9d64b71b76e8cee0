"""The import hook: what it rewrites, and when it refuses."""

import ast
import subprocess
import sys

import pytest
import torch

from model.megatron.on_cpu import _Rewrite


@pytest.mark.parametrize(
    ("source", "rewritten"),
    [
        ("torch.zeros(2, device='cuda')", "torch.zeros(2, device='cpu')"),
        ("p.type() == 'torch.cuda.HalfTensor'", "p.type() == 'torch.HalfTensor'"),
        ("torch.cuda.current_device()", "_torch_cuda_on_cpu.current_device()"),
        ("from torch.cuda import Stream", "from _torch_cuda_on_cpu import Stream"),
        ("x.cuda(non_blocking=True)", "x.cpu()"),
        ("x.is_cuda", "x.is_cpu"),
        ("torch.empty(2, pin_memory=True)", "torch.empty(2, pin_memory=False)"),
        ("config.enable_cuda_graph", "config.enable_cuda_graph"),
    ],
)
def test_rewrites(source, rewritten) -> None:
    assert ast.unparse(ast.fix_missing_locations(_Rewrite().visit(ast.parse(source)))) == rewritten


@pytest.mark.skipif(torch.cuda.is_available(), reason="with CUDA nothing is rewritten")
def test_refuses_to_come_too_late() -> None:
    script = "import megatron.core.enums\nfrom model.megatron import on_cpu\non_cpu.install()"
    late = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "comes too late: megatron.core" in late.stderr
