"""Tasks from folders: the harness's own prompts and answers on real items, and clear words for what is wrong."""

import bz2
import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from infra.errors import BadInput
from model.benchmarks.tasks import LoadedTasks
from tasks.benchmarks.convert import convert
from tests.model.benchmarks.quiz import ITEMS, ROW, load, offline, write_task
from tests.tasks.benchmarks.published import TASKS, write_published

__all__ = ["offline"]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def read(path: Path) -> list[Any]:
    data = {".gz": gzip.decompress, ".bz2": bz2.decompress}.get(path.suffix, bytes)(path.read_bytes())
    if ".csv" in path.name:
        return list(csv.DictReader(data.decode().splitlines(keepends=True)))
    return [json.loads(line) for line in data.splitlines()]


@pytest.fixture(scope="module")
def source(shared_data: Path) -> Path:
    return shared_data / "benchmarks"


@pytest.fixture(scope="module")
def real(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real benchmarks as a folder of tasks, which was moved after it was made."""
    folder = tmp_path_factory.mktemp("real")
    convert(str(source), str(folder / "made"))
    (folder / "made").rename(folder / "moved")
    return folder / "moved"


@pytest.fixture(scope="module")
def loaded(real: Path) -> LoadedTasks:
    """All but most of the parts of MMLU, MATH and BLiMP."""
    names = [path.stem for path in real.glob("*.yaml") if not path.stem.startswith(("mmlu", "blimp", "hendrycks"))]
    return load(real, *names, "mmlu_social_sciences", "hendrycks_math", "blimp_causative", run_generated_code=True)


def prompts(loaded: LoadedTasks, name: str) -> list[Any]:
    """What is asked first of each item."""
    return [each.args for each in loaded.tasks[name].instances if each.idx == 0]


def test_all_kinds_of_tasks_load_from_files(loaded: LoadedTasks) -> None:
    assert len(loaded.tasks) >= 26
    assert len(loaded.members["mmlu_social_sciences"]) == 12
    assert "mmlu_sociology" in loaded.members["mmlu_social_sciences"]
    assert len(loaded.members["hendrycks_math"]) == 7
    assert {str(task.OUTPUT_TYPE) for task in loaded.tasks.values()} == {
        *("multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until")
    }
    versions = {name: str(task.VERSION) for name, task in loaded.tasks.items()}
    assert (versions["hellaswag"], versions["boolq"], versions["gsm8k"]) == ("1.0", "2.0", "3.0")


def without(text: str, part: str) -> str:
    return text.replace(part, "")


ASKED: dict[str, tuple[str, Callable[[Any], str]]] = {
    "arc_easy": ("arc/arc_easy.jsonl", lambda item: f"{item['query']}\nAnswer:"),
    "arc_challenge": ("arc/arc_challenge.jsonl", lambda item: f"{item['query']}\nAnswer:"),
    "boolq": ("boolq/boolq.jsonl.gz", lambda item: f"{item['query'].removeprefix('Passage: ')}\nAnswer:"),
    "commonsense_qa": ("commonsenseqa/commonsense_qa.jsonl", lambda item: without(item["query"], "\nChoices:")),
    "copa": ("copa/copa.jsonl", lambda item: without(item["query"], ",")),
    "openbookqa": ("openbookqa/openbook_qa.jsonl", lambda item: item["query"]),
    "piqa": ("piqa/valid.jsonl", lambda item: f"Question: {item['goal']}\nAnswer:"),
    "winogrande": ("winogrande/winogrande.jsonl", lambda item: item["context_options"][0]),
    "wsc273": ("winogrande/winograd_wsc.jsonl", lambda item: item["context_options"][0]),
    "lambada_openai": ("lambada/lambada_test.jsonl", lambda item: item["text"].rpartition(" ")[0]),
    "triviaqa": ("triviaqa/triviaqa_sm_sub.jsonl", lambda item: item["context"].replace("\nAnswer:", "?\nAnswer:")),
    "humaneval": ("humaneval/HumanEval.jsonl.gz", lambda item: item["prompt"]),
}


@pytest.mark.parametrize("name", ASKED)
def test_prompts_are_those_of_the_harness(name: str, loaded: LoadedTasks, source: Path) -> None:
    file, prompt = ASKED[name]
    expected = [prompt(item) for item in read(source / file)[:ITEMS]]
    found = [args[0] for args in prompts(loaded, name)]
    if name == "copa":
        expected = [each.replace(",", "") for each in expected]
        found = [each.replace(",", "") for each in found]
    assert found == expected


@pytest.mark.parametrize("name", ["arc_easy", "boolq", "commonsense_qa", "copa", "openbookqa", "winogrande", "wsc273"])
def test_the_right_choice_is_the_source_s(name: str, loaded: LoadedTasks, source: Path) -> None:
    task = loaded.tasks[name]
    for number, item in enumerate(read(source / ASKED[name][0])[:ITEMS]):
        choices = [each for each in task.instances if each.doc_id == number]
        answers = [(float(-(each.idx != item["gold"])), False) for each in choices]
        assert task.process_results(choices[0].doc, answers)["acc"] == 1.0


def test_hellaswag_s_text_form_is_asked_as_the_harness_asks_its_own(loaded: LoadedTasks, source: Path) -> None:
    lines = bz2.decompress((source / "hellaswag" / "hellaswag_val_full.txt.bz2").read_bytes()).decode().split("\n")
    task, capitals = loaded.tasks["hellaswag"], 0
    for number in range(ITEMS):
        query, right, *endings = lines[6 * number : 6 * number + 6]
        asked = [each for each in task.instances if each.doc_id == number]
        assert [each.args[1] for each in asked] == [f" {each}" for each in endings]
        assert asked[0].args[0].lower() == query.lower()
        assert int(task.doc_to_target(asked[0].doc)) == int(right)
        capitals += asked[0].args[0] != query
    assert capitals > ITEMS // 2


def test_examples_are_taken_as_the_task_says_and_asked_for(loaded: LoadedTasks, real: Path) -> None:
    assert all(args[0].count("Question:") == 6 for args in prompts(loaded, "gsm8k"))
    five = load(real, "mmlu_anatomy", "hellaswag", "truthfulqa_mc1", few_shot=5, limit=3)
    rows = five.tasks["mmlu_anatomy"].dataset["dev"].to_list()
    shots = "\n\n".join(five.tasks["mmlu_anatomy"].doc_to_text(row) + " " + "ABCD"[row["answer"]] for row in rows)
    about = "The following are multiple choice questions (with answers) about anatomy.\n\n"
    assert prompts(five, "mmlu_anatomy")[0][0].startswith(f"{about}{shots}\n\n")
    assert prompts(five, "hellaswag")[0][0].count("\n\n") == 5  # from its only split, but never the item itself
    assert all(each.args[0].count(each.doc["query"]) == 1 for each in five.tasks["hellaswag"].instances)
    assert prompts(five, "truthfulqa_mc1") == prompts(load(real, "truthfulqa_mc1", limit=3), "truthfulqa_mc1")
    again = load(real, "mmlu_anatomy", "hellaswag", "truthfulqa_mc1", few_shot=5, limit=3)
    others = load(real, "mmlu_anatomy", "hellaswag", "truthfulqa_mc1", few_shot=5, limit=3, seed=5)
    fewer = load(real, "mmlu_anatomy", "hellaswag", "truthfulqa_mc1", few_shot=5, limit=2)
    assert five.digest == again.digest
    assert len({five.digest, others.digest, fewer.digest}) == 3
    with pytest.raises(BadInput, match="mmlu_anatomy with 6 examples: 5 are there"):
        load(real, "mmlu_anatomy", few_shot=6)


def test_what_was_answered_can_be_asked_again(loaded: LoadedTasks) -> None:
    instance = loaded.tasks["piqa"].instances[0]
    instance.resps.append((0.0, True))
    assert loaded.task_dict()["tasks"]["piqa"].instances[0].resps == []


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    convert(str(write_published(folder / "published")), str(folder / "tasks"))
    return folder / "tasks"


def test_every_published_form_is_asked(made: Path) -> None:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.dummy import DummyLM

    names = [name for name in TASKS if name != "cb"]  # whose f1 warns of classes that one item lacks
    found = load(made, *names)
    assert prompts(found, "hellaswag")[0][0] == "Milling: A man fills a sack. He"
    assert prompts(found, "squadv2")[0][0].startswith("Title: Mills\n\nBackground: The mill is old.\n\nQuestion: ")
    assert prompts(found, "books") == [("Once upon a time.\n",), ("The end.",)]
    gpqa = found.tasks["gpqa_diamond_zeroshot"]
    assert len({each.doc["answer"] for each in gpqa.instances}) > 1
    assert [doc["answer"] for doc in gpqa.eval_docs] == [each.doc["answer"] for each in gpqa.instances if each.idx == 0]
    results = cast(
        "dict[str, Any]", evaluate(lm=DummyLM(), task_dict=cast("Any", found.task_dict()), bootstrap_iters=0)
    )
    assert set(results["results"]) == set(names)
    assert set(results["results"]["squadv2"]) >= {"exact,none", "f1,none"}


def test_a_task_is_asked_once(real: Path) -> None:
    with pytest.raises(BadInput, match="mmlu_stem and mmlu_anatomy: mmlu_anatomy belongs to both"):
        load(real, "mmlu_stem", "mmlu_anatomy")


def test_an_unknown_name_is_answered_with_near_ones(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "tasks", [ROW])
    with pytest.raises(BadInput, match=r"hella_swag: .* have no task.*such as .*hellaswag"):
        load(folder, "quiz", "hella_swag")
    with pytest.raises(BadInput, match="must be a folder"):
        load(tmp_path / "absent", "quiz")
    (folder / "broken.yaml").write_text("task: [")
    with pytest.raises(BadInput, match=r"broken\.yaml"):
        load(folder, "hella_swag")
