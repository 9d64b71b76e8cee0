"""The ledger: one row for each document, with what was measured of it and what became of it."""

from collections import Counter

import pytest

from tasks.ledger import LedgerSettings, ledger_schema, read_ledger, registered_domain
from tasks.signals import SignalSettings, signals_schema
from tests.tasks.small_corpus import Small


def test_every_document_has_one_row(small: Small) -> None:
    ids = small.ledger()["id"].to_pylist()
    assert len(ids) == len(set(ids)) == small.stage("fetch").rows_in == 46


def test_rows_are_in_the_order_of_the_archive(small: Small) -> None:
    for table in read_ledger(small.store, small.corpus.ledger):
        offsets = table["offset"].to_pylist()
        assert offsets == sorted(offsets)


def test_fates_are_those_of_the_stages(small: Small) -> None:
    rows = small.ledger().select(["stage", "reason"]).to_pylist()
    fates = Counter((row["stage"], row["reason"]) for row in rows if row["stage"])
    expected = {
        (each.stage, reason): count
        for each in small.corpus.build.passed
        for reason, count in each.total("reasons").items()
        if reason != "heldout_copy"  # a copy is no document of its own
    }
    assert fates == expected
    assert {"fetch", "extract", "filter", "dedup"} <= {stage for stage, _ in fates}


def test_a_document_that_stays_has_split_tokens_and_copies(small: Small) -> None:
    rows = [row for row in small.ledger().to_pylist() if row["stage"] is None]
    for split in ("train", "heldout"):
        mine = [row for row in rows if row["split"] == split]
        assert sum(row["tokens"] * row["copies"] for row in mine) == small.dataset.tokens(split)
        assert sum(row["copies"] for row in mine) == sum(each.documents for each in small.dataset.split(split))
    assert {row["copies"] for row in rows} == {1, 2}
    assert all(row["reason"] is None and row["text_bytes"] > 0 for row in rows)


def test_a_document_that_goes_has_reason_and_no_tokens(small: Small) -> None:
    for row in small.ledger().to_pylist():
        if row["stage"] is not None:
            assert row["reason"]
            assert row["split"] is row["tokens"] is row["copies"] is None


def test_signals_are_those_that_were_measured(small: Small) -> None:
    measured = small.stage("signals")
    rows = {row["id"]: row for row in small.ledger().to_pylist()}
    seen = 0
    for shard in measured.shards:
        for signals in small.store.read_table(f"{measured.folder}/{shard.others['signals'].path}").to_pylist():
            assert {name: rows[signals["id"]][name] for name in signals} == signals
            seen += 1
    assert seen == sum(row["words"] is not None for row in rows.values()) == measured.kept


def test_the_ledger_holds_no_text(small: Small) -> None:
    table = small.ledger()
    assert "text" not in table.column_names
    assert not any("mill and the river" in str(row) for row in table.to_pylist())


def test_the_schema_has_every_signal_once() -> None:
    names = ledger_schema(LedgerSettings(signals=SignalSettings())).names
    assert len(names) == len(set(names))
    assert set(signals_schema(SignalSettings()).names) <= set(names)


def test_only_the_wanted_columns_are_read(small: Small) -> None:
    tables = list(read_ledger(small.store, small.corpus.ledger, ["id", "words"]))
    assert [table.column_names for table in tables] == [["id", "words"]] * 2


@pytest.mark.parametrize(
    ("url", "domain"),
    [
        ("http://www.a.co.uk/x", "a.co.uk"),
        ("https://deep.blog.example.com:8080/", "example.com"),
        ("http://10.0.0.1/", "10.0.0.1"),
        ("http://localhost/", "localhost"),
        ("http://co.uk/", "co.uk"),
        ("http://[::1/", None),
        ("no address", None),
        ("", None),
        (None, None),
    ],
)
def test_registered_domains(url: str | None, domain: str | None) -> None:
    assert registered_domain(url) == domain
