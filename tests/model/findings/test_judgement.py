"""What makes a checkpoint champion, and what does not."""

import math
from dataclasses import replace

import pyarrow as pa
import pytest

from model.findings.contender import Contender
from model.findings.judgement import judge
from model.findings.records import Estimate
from model.findings.verdict import Condition, PromotionSettings, Verdict
from tests.model.findings.contenders import ITEMS, contender, nats, rights, run_record

DEFAULT = PromotionSettings()


def failed(verdict: Verdict) -> list[str]:
    assert verdict.promoted == all(each.passed for each in verdict.conditions)
    return [each.name for each in verdict.conditions if not each.passed]


def condition(verdict: Verdict, name: str) -> Condition:
    (found,) = [each for each in verdict.conditions if each.name == name]
    return found


def champion(share: float = 0.5, **more: object) -> Contender:
    return contender({"piqa": rights(share), "arc": rights(0.4, seed=1)}, **more)  # pyright: ignore[reportArgumentType]


def test_the_first_is_promoted_if_it_reaches_what_is_asked_of_it() -> None:
    assert judge(champion(), None, DEFAULT).promoted
    asked = PromotionSettings(floors={"piqa": 0.49, "arc": 0.39}, max_bits_per_byte=2.5, required_tasks=("arc",))
    verdict = judge(champion(), None, asked)
    assert verdict.promoted
    assert verdict.champion is None
    assert "0.5000, at least 0.49 is asked" in verdict.text()
    assert "promoted with no champion yet: all 4 conditions hold" in verdict.reason


def test_the_first_is_refused_below_a_floor_and_where_something_is_missing() -> None:
    asked = PromotionSettings(
        floors={"piqa": 0.51, "boolq": 0.5}, max_bits_per_byte=1.5, required_tasks=("mmlu",), contamination="required"
    )
    verdict = judge(champion(), None, asked)
    assert failed(verdict) == [
        "held-out bits per byte", "required benchmarks", "boolq", "piqa acc", "contamination is known"
    ]  # fmt: skip
    assert "not looked for in piqa, arc" in verdict.text()
    looked = {"piqa": {"contaminated": 2}, "arc": {"contaminated": 0}}
    verdict = judge(champion(changes=looked), None, PromotionSettings(contamination="required"))
    assert verdict.conditions[0].says == "2 items occur in the training text"


def test_the_same_figures_hold_against_a_champion() -> None:
    verdict = judge(champion(step=60), champion(version=1), DEFAULT)
    assert failed(verdict) == []
    assert (verdict.champion, verdict.champion_version) == ("small/2026.11.22-ffffffffffff at step 30", 1)
    bits = condition(verdict, "held-out bits per byte")
    assert (bits.harm, bits.low, bits.high, bits.items) == (0, 0, 0, 200)
    assert condition(verdict, "piqa acc").items == ITEMS


def test_worse_held_out_text_is_refused_beyond_its_interval() -> None:
    slightly = judge(champion(bits_per_byte=2.002), champion(), DEFAULT)
    assert failed(slightly) == ["held-out bits per byte"], "the same documents tell small differences"
    assert "worse by 0.0020" in condition(slightly, "held-out bits per byte").says
    assert condition(slightly, "held-out bits per byte").says.endswith(": surely worse")
    assert judge(champion(bits_per_byte=2.002), champion(), PromotionSettings(max_bits_per_byte_rise=0.01)).promoted
    better = judge(champion(bits_per_byte=1.9), champion(), DEFAULT)
    assert "better by 0.1" in condition(better, "held-out bits per byte").says


def test_a_benchmark_that_falls_for_sure_is_refused() -> None:
    verdict = judge(champion(0.4), champion(0.5), DEFAULT)
    assert failed(verdict) == ["piqa acc"]
    fallen = condition(verdict, "piqa acc")
    assert fallen.harm == pytest.approx(0.1)
    assert fallen.low is not None
    assert fallen.low > 0.02
    assert fallen.says.endswith(": surely worse by more than 0.02")
    assert "refused against" in verdict.reason
    assert judge(champion(0.4), champion(0.5), PromotionSettings(max_fall=0.2)).promoted


def test_a_doubt_promotes_or_refuses_as_is_said() -> None:
    little, before = champion(0.48), champion(0.5)
    assert judge(little, before, DEFAULT).promoted
    assert "whether it is worse by more than 0.02 is open" in condition(judge(little, before, DEFAULT), "piqa acc").says
    strict = PromotionSettings(doubt="refuses")
    assert failed(judge(little, before, strict)) == ["piqa acc"]
    assert judge(champion(0.6), before, strict).promoted


def test_what_was_measured_otherwise_is_no_comparison() -> None:
    before = champion()
    assert failed(judge(contender({"piqa": rights(0.5)}), before, DEFAULT)) == ["the champion's benchmarks"]
    other = champion(changes={"piqa": {"few_shot": 5, "version": "2.0"}})
    verdict = judge(other, before, DEFAULT)
    assert failed(verdict) == ["piqa acc"]
    assert "version 2.0 instead of 1.0, few_shot 5 instead of 0" in verdict.text()
    fewer = contender({"piqa": rights(0.5, 50), "arc": rights(0.4, seed=1)})
    assert "measured on 50 items, the champion on 400" in judge(fewer, before, DEFAULT).text()
    altered = champion(digests={"arc": "other"})
    assert "400 items differ from the champion's" in condition(judge(altered, before, DEFAULT), "arc acc").says
    without = champion(bits_per_byte=None)
    assert failed(judge(without, before, DEFAULT)) == ["held-out bits per byte"]


def test_few_items_say_nothing() -> None:
    one, other = (contender({"piqa": rights(share, 20)}) for share in (0.6, 0.5))
    assert failed(judge(one, other, DEFAULT)) == ["piqa acc"]
    assert judge(one, other, PromotionSettings(min_items=20)).promoted


def test_other_datasets_compare_by_benchmarks_only() -> None:
    elsewhere = run_record("other", "e" * 12)
    verdict = judge(champion(run=elsewhere, bits_per_byte=3.0), champion(), DEFAULT)
    assert failed(verdict) == []
    assert "held-out bits per byte" not in [each.name for each in verdict.conditions]
    assert failed(judge(contender({}, run=elsewhere), contender({}), DEFAULT)) == ["something to compare"]


def test_other_datasets_compare_by_held_out_text_of_further_ones() -> None:
    def model(bits_per_byte: float, dataset: str) -> Contender:
        """Its held-out text under the name of a further dataset."""
        made = contender({}, bits_per_byte, run=run_record("other", dataset))
        groups = tuple(each.model_copy(update={"group": "wiki/1/all"}) for each in made.record.groups)
        record = made.record.model_copy(update={"groups": groups})
        task = pa.array(["heldout/wiki/1/all"] * made.scores.num_rows)
        return replace(made, record=record, scores=made.scores.set_column(0, "task", task))

    verdict = judge(model(2.1, "e" * 12), model(2.0, "d" * 12), DEFAULT)
    assert failed(verdict) == ["held-out bits per byte of wiki/1"]
    assert judge(model(1.9, "e" * 12), model(2.0, "d" * 12), DEFAULT).promoted


def test_a_candidate_on_newer_text_is_held_against_the_champions_own() -> None:
    def newer(bits_per_byte: float) -> Contender:
        """Trained on another version, and measured on the champion's held-out text under its name."""
        own = run_record("newer", "e" * 12).model_copy(update={"dataset_version": "2026.11.29"})
        made = contender({}, bits_per_byte, run=own)
        further = made.record.groups[0].model_copy(update={"group": "small/2026.11.22/all"})
        record = made.record.model_copy(update={"groups": (further,)})
        task = pa.array(["heldout/small/2026.11.22/all"] * made.scores.num_rows)
        return replace(made, record=record, scores=made.scores.set_column(0, "task", task))

    verdict = judge(newer(2.1), contender({}, 2.0), DEFAULT)
    assert failed(verdict) == ["held-out bits per byte of small/2026.11.22"]
    assert judge(newer(1.9), contender({}, 2.0), DEFAULT).promoted


def test_documents_of_other_sizes_are_others() -> None:
    one, other = contender({}), contender({})
    larger = pa.array([weight + 1 for weight in one.scores["weight"].to_pylist()])
    one = replace(one, scores=one.scores.set_column(4, "weight", larger))
    assert "same documents were not measured" in judge(one, other, DEFAULT).text()


def test_contaminated_items_are_left_out() -> None:
    known = [("piqa", item) for item, right in enumerate(rights(0.5)) if right][:100]
    clean = {"piqa": {"contaminated": 100, "clean_metrics": {"acc": {"value": 0.33}}}}
    before = champion(0.5, contaminated=known, changes=clean)
    now = champion(0.4)
    assert condition(judge(now, before, DEFAULT), "piqa acc").items == ITEMS - 100
    assert condition(judge(now, before, DEFAULT), "piqa acc").champion == 0.33
    assert condition(judge(now, before, PromotionSettings(contamination="ignored")), "piqa acc").items == ITEMS
    floors = PromotionSettings(floors={"piqa": 0.4})
    assert failed(judge(before, None, floors)) == ["piqa acc"]


def test_a_group_is_judged_as_a_whole() -> None:
    def model(first: float, second: float) -> Contender:
        tasks = {"mmlu_a": rights(first, seed=3), "mmlu_b": rights(second, seed=4)}
        return contender(tasks, groups={"mmlu": ("mmlu_a", "mmlu_b")})

    verdict = judge(model(0.4, 0.6), model(0.5, 0.5), DEFAULT)
    assert failed(verdict) == [], "what one member loses the other wins"
    assert condition(verdict, "mmlu acc").items == 2 * ITEMS
    assert failed(judge(model(0.4, 0.4), model(0.5, 0.5), DEFAULT)) == ["mmlu acc"]


def test_lower_is_better_where_it_is() -> None:
    def model(bits: float) -> Contender:
        made = contender({"wikitext": nats(bits)[0]})
        weights = nats(bits)[1]
        rows = made.scores.to_pylist()
        for row, weight in zip((row for row in rows if row["task"] == "wikitext"), weights, strict=True):
            row.update(metric="bits_per_byte", weight=weight)
        task = made.record.tasks[0].model_copy(
            update={"main_metric": "bits_per_byte", "metrics": {"bits_per_byte": Estimate(value=bits)}}
        )
        record = made.record.model_copy(update={"tasks": (task,)})
        scores = made.scores.from_pylist(rows, made.scores.schema)
        return Contender(made.run, record, scores, made.items, made.contaminated)

    assert failed(judge(model(2.1), model(2.0), DEFAULT)) == ["wikitext bits_per_byte"]
    assert judge(model(1.9), model(2.0), DEFAULT).promoted
    assert failed(judge(model(2.0), None, PromotionSettings(floors={"wikitext": 1.9}))) == ["wikitext bits_per_byte"]


def test_figures_that_are_no_ratio_compare_by_their_errors() -> None:
    def model(value: float, error: float | None) -> Contender:
        metrics = {"mcc": {"value": value, "standard_error": error}}
        return contender({"cola": rights(0.5)}, changes={"cola": {"metrics": metrics, "main_metric": "mcc"}})

    far = judge(model(0.1, 0.02), model(0.3, 0.02), DEFAULT)
    assert failed(far) == ["cola mcc"]
    low = condition(far, "cola mcc").low
    assert low == pytest.approx(0.2 - 1.96 * math.hypot(0.02, 0.02), abs=1e-4)
    assert judge(model(0.28, 0.02), model(0.3, 0.02), DEFAULT).promoted
    assert "neither scores by item nor standard errors" in judge(model(0.3, None), model(0.3, None), DEFAULT).text()


def test_what_was_taken_back_returns_only_when_asked() -> None:
    returning = champion(was_taken_back=True)
    assert failed(judge(returning, None, DEFAULT)) == ["not taken back"]
    assert judge(returning, None, PromotionSettings(readmit=True)).promoted


def test_the_page_says_it_all() -> None:
    verdict = judge(champion(0.4, version=2), champion(0.5, version=1), DEFAULT)
    page = verdict.markdown()
    assert page.startswith("Refused against small/2026.11.22-ffffffffffff at step 30: piqa acc.\n")
    assert "Candidate: small/2026.11.22-ffffffffffff at step 30, version 2 of gristmill\n" in page
    assert "| **FAILS** | piqa acc | 0.4000 | 0.5000 |" in page
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
    assert judge(champion(0.4, version=2), champion(0.5, version=1), DEFAULT) == verdict
