from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from model.findings.comparing import ComparedTable, ComparisonSettings, compared_tables, curves, grown
from model.findings.contender import Contender
from model.findings.intervals import holm, mcnemar
from model.findings.records import SCORES, Estimate
from tests.model.findings.contenders import contender, rights, run_record

SETTINGS = ComparisonSettings(bootstrap_draws=200)
TASKS = {"arc": rights(0.5), "boolq": rights(0.6, seed=3), "mmlu_a": rights(0.4), "mmlu_b": rights(0.3, 100, seed=5)}
GROUPS = {"mmlu": ("mmlu_a", "mmlu_b")}


def first() -> Contender:
    return contender(TASKS, 2.0, groups=GROUPS)


def better() -> Contender:
    return contender(TASKS | {"arc": rights(0.6), "boolq": rights(0.61, seed=3)}, 1.9, groups=GROUPS)


def table(tables: tuple[ComparedTable, ...], title: str) -> ComparedTable:
    return next(each for each in tables if each.title == title)


def test_tables_and_their_rows() -> None:
    tables = compared_tables([first(), better()], SETTINGS)
    assert [each.title for each in tables] == ["Benchmarks", "Held-out text", "Members of groups"]
    assert [row.task for row in tables[0].rows] == ["mmlu", "arc", "boolq"]
    assert [row.task for row in tables[1].rows] == ["heldout/all"]
    assert [row.task for row in tables[2].rows] == ["mmlu_a", "mmlu_b"]
    for each in tables:
        for row in each.rows:
            assert row.figures[0].difference is None
            assert row.figures[0].estimate is not None
    assert tables[0].rows[1].chance == 0.25
    assert tables[1].rows[0].chance is None


def test_differences_are_paired_and_corrected() -> None:
    tables = compared_tables([first(), better()], SETTINGS)
    mmlu, arc, boolq = (row.figures[1] for row in table(tables, "Benchmarks").rows)
    assert arc.difference is not None
    assert arc.difference.difference == pytest.approx(0.1)
    assert (arc.difference.test, arc.difference.p_value) == ("mcnemar", pytest.approx(mcnemar(40, 0)))
    assert (arc.significant, arc.better) == (True, True)
    assert boolq.difference is not None
    assert (boolq.significant, boolq.better) == (False, True)
    assert mmlu.difference is not None
    assert (mmlu.difference.difference, mmlu.difference.items, mmlu.significant) == (0, 500, False)
    p_values = [each.difference.p_value for each in (mmlu, arc, boolq) if each.difference]
    assert [mmlu.corrected_p, arc.corrected_p, boolq.corrected_p] == pytest.approx(holm(p_values))
    held_out = table(tables, "Held-out text").rows[0].figures[1]
    assert held_out.difference is not None
    assert held_out.difference.difference < 0
    assert (held_out.better, held_out.significant) == (True, True)


def test_a_group_whose_members_count_alike() -> None:
    made = []
    for values in (TASKS, TASKS | {"mmlu_b": rights(0.5, 100, seed=5)}):
        plain = contender(values, groups=GROUPS)
        share = (values["mmlu_a"].mean() + values["mmlu_b"].mean()) / 2
        tasks = [
            each.model_copy(update={"metrics": {"acc": Estimate(value=share)}, "members_alike": True})
            if each.task == "mmlu"
            else each
            for each in plain.record.tasks
        ]
        made.append(replace(plain, record=plain.record.model_copy(update={"tasks": tuple(tasks)})))
    row = table(compared_tables(made, SETTINGS), "Benchmarks").rows[0]
    assert row.figures[1].difference is not None
    assert row.figures[1].difference.difference == pytest.approx(0.1)  # over items it would be 0.04
    assert (row.figures[1].difference.items, row.figures[1].significant) == (500, True)


def test_many_runs_are_compared_with_the_first() -> None:
    tables = compared_tables([better(), first(), better()], SETTINGS)
    arc = table(tables, "Benchmarks").rows[1]
    assert [each.significant for each in arc.figures] == [False, True, False]
    assert not arc.figures[1].better
    assert arc.figures[2].difference is not None
    assert (arc.figures[2].difference.difference, arc.figures[2].better) == (0, False)


def test_other_items_are_not_compared() -> None:
    changed = contender(TASKS, 2.0, groups=GROUPS, digests={"arc": "changed", "mmlu_a": "changed"})
    mmlu, arc, boolq = table(compared_tables([first(), changed], SETTINGS), "Benchmarks").rows
    assert (arc.figures[1].difference, arc.figures[1].note) == (None, "other items")
    assert mmlu.figures[1].note == "other items"
    assert boolq.figures[1].difference is not None
    assert boolq.figures[1].corrected_p == 1  # the only row that was tested


def test_held_out_text_of_another_dataset_is_not_compared() -> None:
    other = contender(TASKS, 1.9, run=run_record(dataset_fingerprint="e" * 12))
    row = table(compared_tables([first(), other], SETTINGS), "Held-out text").rows[0]
    assert (row.figures[1].difference, row.figures[1].note) == (None, "other held-out text")
    assert row.figures[1].estimate is not None
    heavier = first()
    scores = heavier.scores.to_pandas()
    scores.loc[scores["task"] == "heldout/all", "weight"] += 1
    heavier = replace(heavier, scores=pa.Table.from_pandas(scores, SCORES, preserve_index=False))
    row = table(compared_tables([first(), heavier], SETTINGS), "Held-out text").rows[0]
    assert row.figures[1].note == "other held-out text"


def test_only_items_of_both_count() -> None:
    fewer = contender({**TASKS, "arc": TASKS["arc"][:150]}, 2.0)
    arc = next(
        row for row in table(compared_tables([first(), fewer], SETTINGS), "Benchmarks").rows if row.task == "arc"
    )
    assert arc.figures[1].difference is not None
    assert (arc.items, arc.figures[1].difference.items, arc.figures[1].difference.difference) == (400, 150, 0)


def test_what_one_lacks_is_left_empty() -> None:
    less = contender({"arc": TASKS["arc"]}, None)
    tables = compared_tables([less, first()], SETTINGS)
    benchmarks = {row.task: row for row in table(tables, "Benchmarks").rows}
    assert set(benchmarks) == {"arc", "mmlu", "boolq"}
    assert benchmarks["boolq"].figures[0].estimate is None
    assert benchmarks["boolq"].figures[1].estimate is not None
    assert (benchmarks["boolq"].figures[1].difference, benchmarks["boolq"].figures[1].note) == (None, "")
    without = replace(first(), scores=SCORES.empty_table())
    arc = next(row for row in table(compared_tables([first(), without], SETTINGS), "Benchmarks").rows)
    assert arc.figures[1].note == "no scores by item"


def test_the_order_of_rows_in_files_changes_nothing() -> None:
    mixed = better()
    order = np.random.default_rng(0).permutation(mixed.scores.num_rows)
    mixed = replace(mixed, scores=mixed.scores.take(pa.array(order)))
    assert compared_tables([first(), mixed], SETTINGS) == compared_tables([first(), better()], SETTINGS)


def test_curves_over_tokens() -> None:
    made = [contender(TASKS, bits, step=step, groups=GROUPS).record for step, bits in ((10, 3.0), (20, 2.5), (30, 2.0))]
    found = {each.task: each for each in curves("base", made, [1000, 2000, 3000])}
    assert set(found) == {"mmlu", "arc", "boolq", "heldout/all"}
    assert [point.tokens for point in found["arc"].points] == [1000, 2000, 3000]
    values = [point.estimate.value for point in found["heldout/all"].points]
    assert values == sorted(values, reverse=True)
    part = contender({"arc": TASKS["arc"][:50]}, 3.0, step=5).record
    again = {each.task: each for each in curves("base", [part, *made], [500, 1000, 2000, 3000])}
    assert [point.tokens for point in again["arc"].points] == [1000, 2000, 3000]
    alone = list(curves("alone", made[:1], [1000]))
    assert not grown(alone)
    assert {each.label for each in grown([*alone, *curves("base", made, [1000, 2000, 3000])])} == {"alone", "base"}
