"""Names of metrics and rows of tables, as MLflow takes them."""

import re

from model.config import EvaluationSettings
from model.findings.records import Estimate, GroupLikelihood
from model.findings.tracked import benchmark_rows, evaluation_metrics, evaluation_page, heldout_rows, sample_rows
from model.run import Sample
from tests.model.findings.contenders import contender, rights


def test_metrics_make_few_sections() -> None:
    answer = {"acc": {"value": 0.5, "standard_error": 0.1}, "answer_bits_per_byte": {"value": 1.5}}
    made = contender(
        {"arc": rights(0.5), "mmlu_a": rights(0.3), "mmlu_b": rights(0.3)},
        groups={"mmlu": ("mmlu_a", "mmlu_b")},
        changes={"arc": {"metrics": answer}},
    ).record
    source = GroupLikelihood(
        group="host=a/b:c", documents=1, tokens=1, words=1, text_bytes=1, metrics={"bits_per_byte": Estimate(value=1.0)}
    )
    metrics = evaluation_metrics(made.model_copy(update={"groups": (*made.groups, source)}))
    assert metrics["benchmarks/arc acc"] == 0.5
    assert metrics["benchmarks/answer_bits_per_byte/arc"] == 1.5
    assert "benchmarks/mmlu acc" in metrics
    assert not [name for name in metrics if "mmlu_a" in name], "members of a group stand in the table"
    assert metrics["heldout/bits_per_byte/host a_b_c"] == 1.0
    assert metrics["heldout/bits_per_byte"] == made.groups[0].metrics["bits_per_byte"].value
    assert all(re.fullmatch(r"[\w.\- /]+", name) for name in metrics), "what MLflow takes"


def test_tables_hold_every_metric() -> None:
    made = contender(
        {"arc": rights(0.5)}, changes={"arc": {"contaminated": 3, "clean_metrics": {"acc": {"value": 0.4}}}}
    )
    (row,) = benchmark_rows(made.record)
    assert (row["task"], row["metric"], row["main"], row["value"], row["without_contaminated"]) == (
        *("arc", "acc", "main"), 0.5, 0.4
    )  # fmt: skip
    assert row["low"] < row["value"] < row["high"]
    (held_out,) = heldout_rows(made.record)
    assert (held_out["group"], held_out["metric"]) == ("all", "bits_per_byte")
    settings = EvaluationSettings(temperature=0.5)
    samples = (Sample(prompt="Once", text=" upon"),)
    record = made.record.model_copy(update={"samples": samples, "settings": settings})
    assert sample_rows(record, 4096) == [
        {"tokens": 4096, "prompt": "Once", "continuation": " upon", "temperature": 0.5, "top_k": 50, "most_tokens": 64}
        | {"seed": 1234}
    ]


def test_a_page_says_what_an_evaluation_came_to() -> None:
    page = evaluation_page(contender({"arc": rights(0.5)}).record, 4096)
    assert page.startswith("Step 30, after 4,096 tokens: held-out loss 3.0000 nats for each token, 2.0")
    assert "| arc | acc | 0.5000 | 0.4" in page
    assert page.endswith("| 0.2500 | 400 |\n")
    assert "Benchmark" not in evaluation_page(contender({}).record, 4096)
