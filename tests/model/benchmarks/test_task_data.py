"""Data stand beside the YAML, wherever a program runs."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import BadInput
from model.benchmarks.task_data import TaskData
from tests.model.benchmarks.quiz import ROW, load, offline, write_task

__all__ = ["offline"]


def test_tasks_of_one_s_own_need_no_folder_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = load(write_task(tmp_path / "tasks", [ROW, ROW]), "quiz")
    assert [each.args for each in found.tasks["quiz"].instances[:2]] == [("Who?", " he"), ("Who?", " she")]


def test_parquet_is_read_by_split_and_remembered(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pq.write_table(pa.Table.from_pylist([{**ROW, "question": name}]), tmp_path / f"{name}.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    read: list[TaskData] = []

    def data(files: Any) -> TaskData:
        return TaskData("quiz", {"dataset_path": "parquet", "dataset_kwargs": {"data_files": files}}, tmp_path, read)

    found = data({"test": "[ab].parquet", "train": str(tmp_path / "b.parquet")})()
    assert (found["test"]["question"][:], found["train"]["question"][:]) == (["a", "b"], ["b"])
    assert read[-1].columns["train"] == ["question", "choices", "answer", "label"]
    with pytest.raises(BadInput, match=r"quiz: .*broken\.parquet"):
        data({"test": "broken.parquet"})()
    with pytest.raises(BadInput, match=r"data file absent\.parquet of task quiz"):
        data({"test": "absent.parquet"})()
