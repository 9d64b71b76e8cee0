"""Published files become folders of tasks: the same bytes each time, and nothing of what is damaged."""

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from infra.errors import BadInput
from tasks.benchmarks.convert import convert
from tasks.benchmarks.folder import Conversion
from tests.tasks.benchmarks.published import TASKS, write_published


def tree(folder: Path) -> dict[str, str]:
    return {
        each.relative_to(folder).as_posix(): hashlib.sha256(each.read_bytes()).hexdigest()
        for each in sorted(folder.rglob("*"))
        if each.is_file()
    }


def plain(path: Path) -> dict[str, object]:
    class Reader(yaml.SafeLoader):
        """Functions by name."""

    Reader.add_constructor("!function", lambda _, node: node.value)
    return yaml.load(path.read_bytes(), Loader=Reader)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published(tmp_path_factory.mktemp("given") / "published")


@pytest.fixture(scope="module")
def made(source: Path) -> Conversion:
    return convert(str(source), str(source.parent / "tasks"))


@pytest.fixture(scope="module")
def tasks(made: Conversion, source: Path) -> Path:
    return source.parent / "tasks"


def test_every_published_form_becomes_a_task(made: Conversion, tasks: Path) -> None:
    assert {name: task.items for name, task in made.tasks.items()} == TASKS
    assert {
        name.partition("/")[2] for name, reason in made.left_out.items() if reason == "it has no right answers"
    } == {
        "glue/SST-2/test.tsv",
        "hellaswag/hellaswag_test.jsonl",
        "superglue/COPA/test.jsonl",
        "winogrande/test.jsonl",
    }
    assert made.groups == ("hendrycks_math",)
    assert "sst2" in made.text()
    assert Conversion.model_validate_json((tasks / "manifest.json").read_bytes()) == made


def test_the_same_files_give_the_same_bytes_and_replace_what_was_made_before(
    source: Path, tasks: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    (folder / "left behind.yaml").write_text("task: old")
    convert(str(source), str(folder))
    assert tree(folder) == tree(tasks)
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_yaml_is_the_harness_s_but_for_the_data(tasks: Path) -> None:
    config = plain(tasks / "arc_easy.yaml")
    assert config["dataset_kwargs"] == {
        "data_files": {"test": "data/arc_easy/test.parquet", "train": "data/arc_easy/train.parquet"}
    }
    assert (config["training_split"], config["test_split"], "validation_split" in config) == ("train", "test", False)
    assert config["doc_to_text"] == "Question: {{question}}\nAnswer:"
    assert str(tasks) not in (tasks / "arc_easy.yaml").read_text()
    alone = plain(tasks / "winogrande.yaml")  # examples come from the split that is asked
    assert (alone["test_split"], alone["fewshot_split"]) == ("validation", "validation")
    assert alone["doc_to_text"] == "lm_eval.tasks.winogrande.preprocess_winogrande.doc_to_text"
    group = plain(tasks / "hendrycks_math.yaml")
    assert group["task"] == ["hendrycks_math_algebra"]


def test_programs_run_in_our_sandbox(tmp_path: Path) -> None:
    item = {"task_id": "1", "prompt": "def f():\n", "canonical_solution": "    pass", "test": "", "entry_point": "f"}
    (tmp_path / "HumanEval.jsonl").write_text(json.dumps(item))
    convert(str(tmp_path / "HumanEval.jsonl"), str(tmp_path / "tasks"))
    text = (tmp_path / "tasks" / "humaneval.yaml").read_text()
    assert text.count("model.benchmarks.code_execution.") == 2
    assert "lm_eval" not in text


def test_a_subset_lying_beside_is_left_out_and_two_equal_files_are_refused(tmp_path: Path) -> None:
    item = json.dumps({"problem": "1", "solution": "\\boxed{1}", "type": "Algebra"}) + "\n"
    (tmp_path / "math").mkdir()
    (tmp_path / "math" / "math.jsonl").write_text(item * 3)
    (tmp_path / "math" / "some_of_them.jsonl").write_text(item)
    (tmp_path / "math" / "other.jsonl").write_text('{"context": "2"}\n')
    made = convert(str(tmp_path / "math"), str(tmp_path / "tasks"))
    assert made.tasks["hendrycks_math_algebra"].items == {"test": 3}
    assert sorted(name.rpartition("/")[2] for name in made.left_out) == ["other.jsonl", "some_of_them.jsonl"]
    for name in ("boolq.jsonl", "bool_q.jsonl"):
        (tmp_path / "math" / name).write_text('{"question": "is it", "passage": "It is.", "label": 1}\n')
    with pytest.raises(BadInput, match="both are validation of boolq"):
        convert(str(tmp_path / "math"), str(tmp_path / "tasks"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("arc_easy.jsonl", '{"question": "Which?", "options": ["a"]}', "item 0 has the columns question, options"),
        ("arc_easy.jsonl", '{"query": "Which?", "choices": ["a", "b"], "gold": 2}', "the right choice is 2 of 2"),
        ("gsm8k/test.jsonl", '{"question": "1+1"}\n', "item 0 has the columns question"),
        ("boolq.jsonl", '{"question": "is it"\n', "line 1"),
        ("mmlu/test/astrology_test.csv", "Why?,a,b,c,d,A\n", "has no such task"),
        ("mmlu/test/anatomy_test.csv", "Why?,a,b,A\n", "four choices are needed"),
        ("hellaswag.txt", "A man\n1\na\nb\n", "4 lines instead of 6"),
        ("piqa/valid.jsonl", '{"goal": "g", "sol1": "a"}', "piqa/valid.jsonl: it has no right answers"),
        ("gpqa_main.csv", "Question,Correct Answer\nq,\n", "an answer is missing"),
        ("notes.jsonl", "{}", "notes.jsonl: no benchmark that is known"),
    ],
)
def test_what_is_damaged_is_refused_by_name(name: str, content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "given" / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(BadInput, match=message):
        convert(str(tmp_path / "given"), str(tmp_path / "tasks"))
    assert not (tmp_path / "tasks").exists()


def test_a_folder_of_something_else_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "precious").write_text("mine")
    with pytest.raises(BadInput, match="must be new"):
        convert(str(source), str(tmp_path / "tasks"))
    with pytest.raises(BadInput, match="does not exist"):
        convert(str(tmp_path / "absent"), str(tmp_path / "new"))


def test_labels_are_those_of_the_hub(tasks: Path) -> None:
    def rows(task: str, split: str = "validation") -> list[dict[str, object]]:
        return pq.read_table(tasks / "data" / task / f"{split}.parquet").to_pylist()

    assert [rows(task)[0]["label"] for task in ("rte", "sglue_rte", "qnli", "cb", "mrpc", "wic", "wsc")] == [
        *(0, 1, 1, 1, 1, 0, 1)
    ]
    assert (rows("mnli", "validation_matched")[0]["label"], rows("boolq")[0]["label"]) == (1, 1)
    assert rows("sst2")[0] == {"sentence": 'a "fine mill ', "label": 1}
    assert (rows("social_iqa")[0]["label"], rows("winogrande")[0]["answer"]) == ("3", "2")
    assert rows("commonsense_qa")[0]["answerKey"] == "E"
    assert rows("squadv2")[1]["answers"] == {"text": [], "answer_start": []}
