"""The profile: counts that add up, whatever the shards."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tasks.profile import SIGNAL_EDGES, ProfileSettings, _places, count, merged
from tests.tasks.small_corpus import Small


def rows(profile: pa.Table, table: str) -> list[dict[str, Any]]:
    return [row for row in profile.to_pylist() if row["table"] == table]


def test_every_table_counts_every_document_once(small: Small) -> None:
    ledger, profile = small.ledger(), small.corpus.profile
    for table in ("fate", "source", "domain"):
        assert sum(row["documents"] for row in rows(profile, table)) == ledger.num_rows
    words = [row for row in rows(profile, "signal") if row["key"] == "words"]
    assert sum(row["documents"] for row in words) == small.stage("signals").kept
    assert sum(row["words"] for row in words) == sum(ledger["words"].drop_null().to_pylist())


def test_fates_name_stage_and_reason_or_split(small: Small) -> None:
    fates: dict[str, int] = {}
    for row in rows(small.corpus.profile, "fate"):
        fates[row["key"]] = fates.get(row["key"], 0) + row["documents"]
        assert row["kept"] == (row["key"] in ("train", "heldout"))
    assert fates["filter/language_unwanted"] == small.stage("filter").total("reasons")["language_unwanted"]
    assert fates["fetch/http_status"] == 1
    assert {"train", "heldout"} <= fates.keys()


def test_tokens_are_those_of_the_dataset(small: Small) -> None:
    total = small.dataset.tokens("train") + small.dataset.tokens("heldout")
    for table in ("fate", "source", "domain"):
        assert sum(row["tokens"] for row in rows(small.corpus.profile, table)) == total


def test_one_shard_counts_as_two_do(small: Small) -> None:
    ledger, settings = small.ledger(), ProfileSettings()
    parts = [count(ledger.slice(0, 20), settings), count(ledger.slice(20), settings)]
    assert merged(parts).equals(count(ledger, settings))
    assert merged(reversed(parts)).equals(small.corpus.profile)


def test_only_the_most_frequent_domains_are_handed_on(small: Small) -> None:
    few = rows(count(small.ledger(), ProfileSettings(max_domains=2)), "domain")
    english = {row["key"] for row in few if row["language"] == "en"}
    assert english == {"site0.co.uk", "site1.co.uk"}  # the most frequent by number, then by name
    assert rows(count(small.ledger(), ProfileSettings(max_domains=0)), "domain") == []


def test_an_empty_ledger_has_an_empty_profile(small: Small) -> None:
    assert count(small.ledger().slice(0, 0), ProfileSettings()).num_rows == 0


@pytest.mark.parametrize(
    ("value", "lower"),
    [(-3.0, -np.inf), (0.0, 0.0), (0.009, 0.0), (0.13, 0.13), (0.999, 0.99), (1.0, 1.0), (7.5, 7.0), (1e300, 2.0**40)],
)
def test_bins_begin_at_their_edges(value: float, lower: float) -> None:
    assert SIGNAL_EDGES[_places(pa.chunked_array([[value]]))].tolist() == [lower]


def test_published_thresholds_are_edges() -> None:
    assert {0.1, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.18, 0.2, 0.3, 0.65, 0.8, 0.9, 3, 5, 10} <= set(SIGNAL_EDGES)
    assert (np.diff(SIGNAL_EDGES) > 0).all()
