"""On what the harness itself returns for small tasks of each kind."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from infra.errors import RunFailed
from model.benchmarks.items import Collected, collect, estimates, pool, read_scores
from model.benchmarks.task_samples import Score, main_metric
from model.findings.records import ITEMS, SCORES, TaskResult
from model.settings.benchmarks import BenchmarkSettings
from tests.model.benchmarks.harness_tasks import MadeUpModel, ask, load, write_tasks

Asked = tuple[dict[str, Any], dict[str, Any], Collected]
"""What was asked, what the harness returned, and what is made of it."""
ENDING = "wheat"
"""Of the second item of task fill."""
SETTINGS = BenchmarkSettings(bootstrap_draws=200)

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::sklearn.exceptions.UndefinedMetricWarning"
)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("tasks")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            patch.setenv(name, "1")
        import datasets.config

        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        write_tasks(folder)
        loaded = load(folder)
        results = ask(loaded, MadeUpModel())
        yield loaded, results, collect(results, loaded["tasks"], loaded["groups"], SETTINGS)


def result(found: Collected, task: str) -> TaskResult:
    return next(each for each in found.tasks if each.task == task)


def rows(found: Collected, task: str, metric: str) -> list[dict[str, Any]]:
    return [row for row in found.scores.to_pylist() if (row["task"], row["metric"]) == (task, metric)]


def test_figures_are_those_of_the_harness(asked: Asked) -> None:
    _, results, found = asked
    compared = 0
    for each in found.tasks:
        for key, value in results["results"][each.task].items():
            metric, _, filter_name = key.partition(",")
            if filter_name and not metric.endswith("_stderr"):
                ours = each.metrics.get(key) or each.metrics[metric]
                assert ours.value == pytest.approx(value, rel=1e-9), (each.task, key)
                assert ours.low is not None
                assert ours.high is not None
                assert ours.low <= ours.value <= ours.high or ours.standard_error == 0
                compared += 1
    assert compared == 23


def test_figures_come_back_from_the_scores(asked: Asked) -> None:
    _, _, found = asked
    scores = read_scores(found.scores)
    again = estimates(scores["ending"], SETTINGS)
    assert again == dict(result(found, "ending").metrics)
    members = [scores[name]["acc"] for name in result(found, "pairs").members]
    assert estimates({"acc": pool(members)}, SETTINGS)["acc"] == result(found, "pairs").metrics["acc"]


def test_rows_have_their_form_and_come_in_order(asked: Asked) -> None:
    _, results, found = asked
    assert found.items.schema.equals(ITEMS)
    assert found.scores.schema.equals(SCORES)
    keys = [(row["task"], row["metric"], row["item"]) for row in found.scores.to_pylist()]
    assert keys == sorted(set(keys))
    items = [(row["task"], row["item"]) for row in found.items.to_pylist()]
    assert items == sorted(set(items))
    assert len(items) == sum(len({each["doc_id"] for each in samples}) for samples in results["samples"].values())
    names = [each.task for each in found.tasks]
    assert names.index("pairs") < names.index("other_pair") < names.index("pair")
    outer = [name for name in names if not name.endswith("pair")]
    assert outer == sorted(outer)


def test_results_do_not_depend_on_the_order_of_samples(asked: Asked) -> None:
    loaded, results, found = asked
    turned = {**results, "samples": {name: rows[::-1] for name, rows in reversed(results["samples"].items())}}
    turned["samples"]["sum"] = results["samples"]["sum"]  # the order of filters says which comes first
    again = collect(turned, loaded["tasks"], loaded["groups"], SETTINGS)
    assert again.scores.equals(found.scores)
    assert again.items.equals(found.items)
    assert again.tasks == found.tasks


def test_a_choice_by_length(asked: Asked) -> None:
    _, results, found = asked
    task = result(found, "ending")
    assert (task.main_metric, task.chance, task.items, task.few_shot, task.version) == ("acc_norm", 0.25, 24, 2, "1.5")
    assert list(task.metrics) == ["acc", "acc_norm", "margin", "answer_bits_per_byte"]
    margins = rows(found, "ending", "margin")
    right = rows(found, "ending", "acc_norm")
    assert [row["value"] > 0 for row in margins] == [row["value"] == 1 for row in right]
    sample = results["samples"]["ending"][0]
    texts, nats = sample["doc"]["choices"], [-float(each[0]) for each in sample["filtered_resps"]]
    compared = [-value / len(text) for value, text in zip(nats, texts, strict=True)]
    gold = sample["doc"]["label"]
    assert margins[0]["value"] == pytest.approx(compared[gold] - max(compared[:gold] + compared[gold + 1 :]))
    bits = rows(found, "ending", "answer_bits_per_byte")[0]
    assert bits["value"] == pytest.approx(nats[gold] / math.log(2))
    assert bits["weight"] == len(f" {texts[gold]}".encode())
    item = found.items.to_pylist()[0]
    assert item["task"] == "ending"
    assert item["text"] == sample["doc"]["question"]  # without the two examples that the prompt holds
    assert (item["answer"], item["response"]) == (texts[gold], texts[int(np.argmax(compared))])
    assert item["digest"] == sample["doc_hash"]


def test_several_right_choices(asked: Asked) -> None:
    _, _, found = asked
    several, labels = result(found, "several"), result(found, "labels")
    assert several.chance == pytest.approx(2 / 3)
    assert labels.chance == 0.5
    assert {row["weight"] for row in rows(found, "several", "answer_bits_per_byte")} == {len(" rye straw")}
    assert {row["weight"] for row in rows(found, "labels", "answer_bits_per_byte")} == {len(" rye oats")}
    assert [row["value"] > 0 for row in rows(found, "several", "margin")] == [
        row["value"] == 1 for row in rows(found, "several", "acc")
    ]
    assert {row["answer"] for row in found.items.to_pylist() if row["task"] in ("several", "labels")} == {""}


def test_a_choice_of_beginnings(asked: Asked) -> None:
    _, _, found = asked
    item = next(row for row in found.items.to_pylist() if (row["task"], row["item"]) == ("fill", 1))
    assert item["answer"].endswith(" oats")
    assert item["text"] == f"{item['answer']} {ENDING}"
    assert [row["value"] > 0 for row in rows(found, "fill", "margin")] == [
        row["value"] == 1 for row in rows(found, "fill", "acc")
    ]
    assert result(found, "fill").chance == 0.5


def test_likelihoods_of_one_answer_and_of_pages(asked: Asked) -> None:
    _, _, found = asked
    word = result(found, "last_word")
    assert list(word.metrics) == ["perplexity", "acc", "answer_bits_per_byte"]
    assert (word.main_metric, word.chance) == ("acc", None)
    nats = [row["value"] for row in rows(found, "last_word", "perplexity")]
    bits = [row["value"] for row in rows(found, "last_word", "answer_bits_per_byte")]
    assert [each * math.log(2) for each in bits] == pytest.approx(nats)
    pages = result(found, "pages")
    assert (pages.main_metric, list(pages.metrics)) == (
        "bits_per_byte",
        ["word_perplexity", "byte_perplexity", "bits_per_byte"],
    )
    per_byte = pages.metrics["bits_per_byte"].value
    assert pages.metrics["byte_perplexity"].value == pytest.approx(2**per_byte)
    item = next(row for row in found.items.to_pylist() if row["task"] == "pages")
    assert (len(item["text"].split()), item["answer"]) == (5, "")


def test_each_filter_has_its_metric(asked: Asked) -> None:
    _, _, found = asked
    task = result(found, "sum")
    assert list(task.metrics) == ["exact_match,strict-match", "exact_match,flexible-extract"]
    assert task.main_metric == "exact_match,strict-match"
    assert task.items == 10
    item = next(row for row in found.items.to_pylist() if row["task"] == "sum")
    assert (item["text"], item["answer"]) == ("0 + 1 =", "So #### 1")
    assert item["response"].startswith(" It is ####")


def test_figures_that_are_no_mean_are_resampled(asked: Asked) -> None:
    _, results, found = asked
    sure, told = result(found, "sure"), result(found, "told")
    assert list(sure.metrics) == ["f1", "mcc", "acc_mutual_info", "margin", "answer_bits_per_byte"]
    assert sure.main_metric == "mcc"
    from lm_eval.api.metrics import bootstrap_stderr, matthews_corrcoef

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISABLE_MULTIPROC", "1")
        expected = bootstrap_stderr(matthews_corrcoef, [each["mcc"] for each in results["samples"]["sure"]], 400)
    assert sure.metrics["mcc"].standard_error == pytest.approx(expected, rel=0.2)
    assert told.metrics["bleu"].standard_error is not None
    assert not rows(found, "sure", "mcc")


def test_groups_weigh_items_or_members(asked: Asked) -> None:
    _, _, found = asked
    by_size, alike = result(found, "pairs"), result(found, "pairs_alike")
    assert (by_size.members, alike.members) == (("other_pair", "pair"), ("fourth_pair", "third_pair"))
    assert (by_size.items, by_size.chance, by_size.version) == (18, 0.5, "2")
    shares = [result(found, name).metrics["acc"].value for name in by_size.members]
    assert by_size.metrics["acc"].value == pytest.approx((6 * shares[0] + 12 * shares[1]) / 18)
    assert alike.metrics["acc"].value == pytest.approx(sum(shares) / 2)
    assert {"margin", "answer_bits_per_byte"} <= by_size.metrics.keys()


def test_a_score_that_is_no_number_is_refused(asked: Asked) -> None:
    loaded, results, _ = asked
    broken = [{**each, "perplexity": math.nan} for each in results["samples"]["last_word"]]
    with pytest.raises(RunFailed, match="task last_word, item 0: perplexity is nan"):
        collect({**results, "samples": {"last_word": broken}}, loaded["tasks"], {}, SETTINGS)


def test_pooling_members_alike() -> None:
    small, large = [Score(0, 1.0, 1.0)], [Score(item, 0.0, 1.0) for item in range(9)]
    settings = BenchmarkSettings(bootstrap_draws=100)
    assert estimates({"acc": pool([small, large])}, settings)["acc"].value == pytest.approx(0.1)
    assert estimates({"acc": pool([small, large], alike=True)}, settings)["acc"].value == pytest.approx(0.5)


def test_a_perplexity_beyond_all_numbers_is_left_out() -> None:
    rows = [Score(item, 800.0 + item, 1.0) for item in range(5)]
    assert set(estimates({"word_perplexity": rows, "loss": rows}, SETTINGS)) == {"loss"}


def test_the_main_metric() -> None:
    assert main_metric(["acc", "acc_norm"]) == "acc_norm"
    assert main_metric(["math_verify", "exact_match,a", "exact_match,b"]) == "exact_match,a"
    assert main_metric(["rouge1", "rouge2"]) == "rouge1"


def test_text_that_no_unicode_holds(asked: Asked) -> None:
    loaded, results, _ = asked
    torn = [{**each, "resps": [["\ud800"]]} for each in results["samples"]["told"]]
    found = collect({**results, "samples": {"told": torn}}, loaded["tasks"], {}, SETTINGS)
    assert isinstance(found.items, pa.Table)
    assert found.items["response"][0].as_py() == "?"
