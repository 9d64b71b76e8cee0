"""A small task of our own, tasks loaded by name, and no way to the hub."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from model.benchmarks.tasks import LoadedTasks, load_tasks
from model.settings.benchmarks import BenchmarkSettings

ITEMS = 20
"""Of each task."""
ROW = {"question": "Who?", "choices": ["he", "she"], "answer": 1, "label": 0}


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    import datasets.config
    import huggingface_hub.constants

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        yield


def load(folder: Path | None, *names: str, **settings: Any) -> LoadedTasks:
    chosen = {"tasks": names, "tasks_dir": str(folder) if folder else None, "limit": ITEMS, **settings}
    return load_tasks(BenchmarkSettings.model_validate(chosen))


def write_task(folder: Path, rows: Sequence[Any], **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = {
        **{"task": "quiz", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "quiz.jsonl"}}},
        **{"output_type": "multiple_choice", "test_split": "test", "doc_to_text": "{{question}}"},
        **{"doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}"},
        **{"metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]},
    }
    (folder / "quiz.yaml").write_text(json.dumps({**base, **config}))
    return folder
