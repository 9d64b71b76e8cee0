"""`gristmill benchmarks` makes a folder and says what is in it."""

from pathlib import Path

from flows.benchmarks import convert_benchmarks


def test_a_folder_of_tasks_is_made_and_described(tmp_path: Path) -> None:
    (tmp_path / "gsm8k_test.jsonl").write_text('{"question": "1+1?", "answer": "#### 2"}\n')
    text = convert_benchmarks(str(tmp_path / "gsm8k_test.jsonl"), str(tmp_path / "tasks")).text()
    assert text.splitlines()[0].split() == ["gsm8k", "1", "test"]
    assert (tmp_path / "tasks" / "gsm8k.yaml").is_file()
