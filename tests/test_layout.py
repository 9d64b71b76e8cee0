"""The package names are common words: an installed distribution of the same name must not take their place."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FORBIDDEN = ("prefect", "torch", "megatron", "mlflow")


def run_python(code: str, folder: Path) -> str:
    """What a fresh interpreter prints, started as a Dask worker would be: in a folder that holds nothing."""
    process = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.parametrize("package", ["flows", "tasks", "model", "infra"])
def test_a_package_is_the_one_of_this_repository(package: str, tmp_path: Path) -> None:
    file = run_python(f"import {package}; print({package}.__file__)", tmp_path).strip()
    assert Path(file).resolve() == REPOSITORY / package / "__init__.py"


def test_no_corpus_module_pulls_in_orchestration_training_or_tracking(tmp_path: Path) -> None:
    files = (path.relative_to(REPOSITORY) for path in (REPOSITORY / "tasks").rglob("*.py") if path.stem != "__init__")
    modules = sorted(".".join(path.with_suffix("").parts) for path in files)
    assert len(modules) > 10
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in {FORBIDDEN!r} if name in sys.modules]))"
    )
    assert json.loads(run_python(code, tmp_path)) == []


def test_the_lower_layers_import_nothing_above_them(tmp_path: Path) -> None:
    modules = sorted(f"infra.{path.stem}" for path in (REPOSITORY / "infra").glob("*.py") if path.stem != "__init__")
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps([name for name in ('flows', 'tasks', 'model') if name in sys.modules]))"
    )
    assert json.loads(run_python(code, tmp_path)) == []
