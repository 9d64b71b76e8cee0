import subprocess
import sys

CODE = """
import sys
from tasks.quality.spacy_library import spacy
words = [word.text for word in spacy().blank("en")("Don't.")]
print(words, "torch" in sys.modules)
import torch
print(torch.zeros(1).item())
"""


def test_spacy_comes_without_torch_which_can_still_be_imported() -> None:
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["['Do', \"n't\", '.'] False", "0.0"]


def test_the_pipeline_imports_no_torch() -> None:
    code = "import sys, tasks.pipeline; print(sorted({'torch', 'prefect', 'mlflow', 'megatron'} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
