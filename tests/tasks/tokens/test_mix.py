"""Mixing: weights by source, language and bucket, copies, shares and the report."""

from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from infra.cluster import Cluster
from infra.errors import BadInput
from infra.schema import DOCUMENTS, DROPPED
from infra.store import Store
from tasks.stage import StageRunner
from tasks.tokens.mix import (
    MIX,
    Group,
    MixSettings,
    MixShare,
    MixWeight,
    measure_groups,
    mix,
    mix_report,
    resolve_mix,
    weights_for_shares,
)
from tests.tasks.documents import stage_of


def documents(count: int, source: str = "crawl", language: str | None = "en", bucket: str | None = None) -> pa.Table:
    rows = [
        {
            "id": f"{source}{n:08d}",
            "source": source,
            "file": "w",
            "offset": n,
            "text": f"text {n:05d}",
            "language": language,
            "bucket": bucket,
        }
        for n in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=DOCUMENTS)


def weighed(weight: float, count: int = 1000) -> tuple[pa.Table, pa.Table]:
    split = mix(documents(count), MixSettings(default_weight=weight))
    return split.kept, split.dropped


def test_everything_passes_by_default() -> None:
    kept, dropped = weighed(1)
    assert kept.equals(documents(1000))
    assert (dropped.num_rows, dropped.schema) == (0, DROPPED)


def test_a_weight_below_one_keeps_that_share_and_always_the_same() -> None:
    kept, dropped = weighed(0.3)
    assert 250 < kept.num_rows < 350
    assert kept.num_rows + dropped.num_rows == 1000
    assert {(row["stage"], row["reason"], row["value"]) for row in dropped.to_pylist()} == {("mix", "not_sampled", 0.3)}
    more, _ = weighed(0.5)
    assert set(kept["id"].to_pylist()) < set(more["id"].to_pylist())


def test_weight_zero_keeps_nothing() -> None:
    kept, dropped = weighed(0)
    assert (kept.num_rows, dropped.num_rows) == (0, 1000)


def test_a_weight_above_one_repeats_with_ids_that_lead_back() -> None:
    kept, dropped = weighed(2.3)
    assert dropped.num_rows == 0
    assert kept.schema == DOCUMENTS
    ids = kept["id"].to_pylist()
    assert len(set(ids)) == len(ids)
    assert sum(each.endswith("#2") for each in ids) == 1000
    assert 250 < sum(each.endswith("#3") for each in ids) < 350
    by_id = {row["id"]: row for row in kept.to_pylist()}
    for copy in ids:
        original, _, number = copy.partition("#")
        assert {**by_id[copy], "id": original} == by_id[original]
        assert number in ("", "2", "3")
    assert ids[:2] == ["crawl00000000", "crawl00000000#2"]


def test_the_first_entry_that_matches_counts() -> None:
    given = MixSettings(
        weights=(
            MixWeight(source="CC-MAIN-*", bucket="low", weight=0),
            MixWeight(language="d?", weight=2),
            MixWeight(source="CC-MAIN-*", weight=3),
            MixWeight(bucket="", language="", weight=4),
        ),
        default_weight=0,
    )
    cases = [
        (documents(1, "CC-MAIN-2026-91", "de", "low"), 0),
        (documents(1, "CC-MAIN-2026-91", "de", "high"), 2),
        (documents(1, "CC-MAIN-2026-91", "en", "high"), 3),
        (documents(1, "books", None, None), 4),
        (documents(1, "books", "en", None), 0),
    ]
    assert [mix(table, given).kept.num_rows for table, _ in cases] == [rows for _, rows in cases]


def test_batches_do_not_matter() -> None:
    table, given = documents(200), MixSettings(default_weight=1.5)
    parts = [mix(table.slice(start, 33), given).kept for start in range(0, 200, 33)]
    assert pa.concat_tables(parts).equals(mix(table, given).kept)
    assert mix(table.slice(0, 0), given).kept.schema == DOCUMENTS


def test_the_report_tells_every_group_before_and_after(tmp_path: Path, cluster: Cluster) -> None:
    store = Store(str(tmp_path))
    parent = stage_of(store, [documents(2, "c", None).to_pylist(), documents(1, "c", None).to_pylist()])
    given = MixSettings(weights=(MixWeight(source="c", weight=3),))
    manifest = StageRunner(store, cluster).apply(MIX, mix, parent, given)
    assert mix_report(manifest).to_pylist() == [
        {
            "source": "c",
            "language": "",
            "bucket": "",
            "documents_before": 3,
            "documents_after": 9,
            "bytes_before": 30,
            "bytes_after": 90,
        }
    ]
    assert manifest.total("counters")["copies"] == 6
    assert measure_groups(store, manifest) == {Group("c", "", ""): 90}


def test_shares_become_weights() -> None:
    # 100 bytes at 0.25 and 1,000 at 0.75 of 400: all of the first, 0.3 of the second.
    assert weights_for_shares([100, 1000], [0.25, 0.75], 400, 4) == pytest.approx([1, 0.3])
    # Without a budget the scarcest group is repeated as often as allowed.
    assert weights_for_shares([100, 1000], [0.25, 0.75], None, 4) == pytest.approx([4, 1.2])


def test_too_little_text_for_a_share_is_said() -> None:
    with pytest.raises(BadInput, match=r"books=0\.5 \(100 bytes"):
        weights_for_shares([100, 10_000], [0.5, 0.5], 10_000, 4, ["books", "crawl"])
    with pytest.raises(BadInput, match="0 bytes"):
        weights_for_shares([0, 10_000], [0.5, 0.5], None, 4)


def test_resolved_shares_sample_what_they_promise() -> None:
    tables = [documents(400, "crawl"), documents(100, "books"), documents(50, "spam")]
    sizes = {Group(table["source"][0].as_py(), "en", ""): table.num_rows * 10 for table in tables}
    given = MixSettings(shares=(MixShare(source="books", share=0.4), MixShare(source="crawl", share=0.6)))
    resolved = resolve_mix(given, sizes)
    assert resolve_mix(resolved, sizes) == resolved
    kept = mix(pa.concat_tables(tables), resolved).kept["source"].to_pylist()
    assert kept.count("books") == 400
    assert kept.count("spam") == 0
    assert 560 < kept.count("crawl") < 640


def test_unresolved_shares_and_contradictions_are_refused() -> None:
    with pytest.raises(ValueError, match="resolve_mix"):
        mix(documents(1), MixSettings(shares=(MixShare(share=1.0),)))
    with pytest.raises(ValidationError, match="sum to 1"):
        MixSettings(shares=(MixShare(share=0.5),))
    with pytest.raises(ValidationError, match="exclude"):
        MixSettings(shares=(MixShare(share=1.0),), weights=(MixWeight(weight=1),))
