"""Changes between dataset versions: counts that add up, drift that alarms, chance that does not."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.change_report import ChangeReport
from infra.manifest import DatasetManifest, FileRecord, ShardRecord, StageManifest
from infra.store import Store
from tasks.changes import DriftSettings, change_report
from tasks.ledger import LEDGER
from tasks.ledger_counts import CountSettings, count, ledger_counts, merged
from tests.tasks.small_corpus import Small

COPIES = 30
"""How often the ledger of the small corpus is repeated, to have more documents than drift needs."""
Change = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(str(tmp_path_factory.mktemp("versions")))


def version(store: Store, small: Small, name: str, ledger: pa.Table) -> DatasetManifest:
    """A dataset version whose ledger has these rows, in two files."""
    shards = []
    for number, part in enumerate((ledger.slice(0, 100), ledger.slice(100))):
        with store.create(f"stages/ledger/{name}/{number}.parquet") as out:
            pq.write_table(part, pa.PythonFile(out, "w"))
        file = FileRecord(path=f"{number}.parquet", rows=part.num_rows, bytes=out.size, sha256=out.sha256)
        shards.append(ShardRecord(index=number, source="", rows_in=part.num_rows, kept=file, dropped=file.model_copy()))
    manifest = small.corpus.ledger.model_copy(update={"fingerprint": name, "shards": tuple(shards)})
    manifest.save(store, f"{manifest.folder}/manifest.json")
    return small.dataset.model_copy(update={"version": name, "stages": {LEDGER.name: name}})


def many(small: Small) -> pa.Table:
    return pa.concat_tables([small.ledger()] * COPIES).combine_chunks()


def compared(store: Store, small: Small, change: Change, drift: DriftSettings | None = None) -> ChangeReport:
    """The report of a changed version against the unchanged one."""
    before = version(store, small, "before", many(small))
    return change_report(store, version(store, small, "now", change(many(small))), before, drift or DriftSettings())


def with_numbers(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def apply(ledger: pa.Table) -> pa.Table:
        place = ledger.schema.get_field_index(name)
        numbers = ledger[name].cast(pa.float64()).fill_null(np.nan).to_numpy()
        changed = pa.array(change(numbers), pa.float64(), from_pandas=True)
        return ledger.set_column(place, ledger.field(place), changed.cast(ledger.field(place).type, safe=False))

    return apply


def test_a_first_version_is_counted_and_not_compared(small: Small) -> None:
    report = change_report(small.store, small.dataset, None, DriftSettings(), ["CC-TEST"])
    rows = small.ledger().to_pylist()
    now = report.total.now
    assert now.documents == len(rows) == sum(each.now.documents for each in report.languages)
    assert now.added == sum(row["stage"] is None for row in rows) == sum(each.now.added for each in report.hosts)
    assert now.tokens == small.dataset.tokens("train") + small.dataset.tokens("heldout")
    assert now.dropped == sum(each.documents for each in report.reasons)
    assert {each.reason for each in report.reasons} >= {"filter/too_few_words", "dedup/exact_duplicate"}
    assert report.crawls == ("CC-TEST",)
    assert report.previous is None
    assert report.signals == report.alarms == report.notes == ()


def test_a_cluster_counts_the_same(small: Small) -> None:
    alone = ledger_counts(small.store, small.corpus.ledger, CountSettings())
    assert ledger_counts(small.store, small.corpus.ledger, CountSettings(), small.runner).equals(alone)


def test_counts_of_parts_add_up(small: Small) -> None:
    whole, settings = many(small), CountSettings()
    exact = [name for name in count(whole, settings).column_names if not name.startswith("total")]
    parts = merged(count(whole.slice(start, 100), settings) for start in range(0, whole.num_rows, 100))
    assert parts.select(exact).equals(count(whole, settings).select(exact))


def test_the_same_again_has_not_drifted(store: Store, small: Small) -> None:
    report = compared(store, small, lambda ledger: ledger)
    assert not report.alarms
    assert {each.psi for each in report.signals} == {0.0}
    assert {each.level for each in report.signals} == {"stable"}
    words = next(each for each in report.signals if (each.signal, each.population) == ("words", "kept"))
    assert words.before == words.now
    assert words.now is not None
    measured = [row["words"] for row in small.ledger().to_pylist() if row["stage"] is None]
    assert words.now.mean == pytest.approx(np.mean(measured))


def test_random_halves_raise_no_alarm(store: Store, small: Small) -> None:
    rows, random = many(small), np.random.default_rng(7)
    for _ in range(2):
        order = random.permutation(rows.num_rows)
        halves = [rows.take(pa.array(np.sort(each))) for each in np.array_split(order, 2)]
        before, now = (version(store, small, name, each) for name, each in zip("ab", halves, strict=True))
        assert change_report(store, now, before, DriftSettings()).alarms == ()


@pytest.mark.parametrize(
    ("signal", "change"),
    [
        ("words", lambda numbers: numbers * 4),
        ("c4_lorem_ipsum_lines", lambda numbers: np.where(np.arange(len(numbers)) % 4 == 0, 3, numbers)),
        ("alphabetic_words", lambda numbers: np.where(np.arange(len(numbers)) % 3 == 0, np.nan, numbers)),
    ],
)
def test_a_shift_raises_an_alarm_that_names_the_signal(
    store: Store, small: Small, signal: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    report = compared(store, small, with_numbers(signal, change))
    assert {each.name for each in report.alarms} == {signal}
    assert report.signals[0].signal == signal
    assert all(each.value > each.bound == 0.25 for each in report.alarms)
    assert "changes.html" in report.alarms[0].text
    assert ("no value in" in report.alarms[0].text) == (signal == "alphabetic_words")
    silent = DriftSettings(signal_max_psi={signal: None})
    assert not compared(store, small, with_numbers(signal, change), silent).alarms


def test_fewer_kept_documents_raise_an_alarm(store: Store, small: Small) -> None:
    def lose(ledger: pa.Table) -> pa.Table:
        kept = ledger["stage"].is_null().to_numpy()
        return ledger.filter(pa.array(~kept | (np.arange(len(kept)) % 8 == 0)))

    alarms = {each.name: each for each in compared(store, small, lose, DriftSettings(min_documents=100)).alarms}
    assert "kept" in alarms
    assert "report.html" in alarms["kept"].text


def test_known_documents_are_counted_by_dataset_and_pass_as_kept(store: Store, small: Small) -> None:
    def know(ledger: pa.Table) -> pa.Table:
        rows = ledger.to_pylist()
        for row in [row for row in rows if row["stage"] is None][::2]:
            row |= {"stage": "dedup", "reason": "near_duplicate", "detail": "small/0:abc"}
            row |= {"split": None, "copies": None, "tokens": None, "text_bytes": None}
        return pa.Table.from_pylist(rows, ledger.schema)

    report = compared(store, small, know, DriftSettings(min_documents=100))
    assert report.total.before is not None
    assert report.known_from == {"small/0": report.total.now.known}
    assert report.total.now.known + report.total.now.added == report.total.before.added
    assert "dedup/near_duplicate" not in {each.reason for each in report.reasons}
    assert not {"kept", "duplicates", "reason"} & {each.name for each in report.alarms}


def test_few_documents_are_not_judged(small: Small) -> None:
    report = change_report(small.store, small.dataset, small.dataset, DriftSettings())
    assert {each.level for each in report.signals} == {"not judged"}
    assert sum("is not judged" in note for note in report.notes) == 2


def test_a_signal_of_one_version_alone_is_noted(store: Store, small: Small) -> None:
    report = compared(store, small, lambda ledger: ledger.drop_columns(["words"]))
    assert "words of kept documents is in before alone" in report.notes
    assert not report.alarms


def test_a_version_without_ledger_is_not_compared(small: Small) -> None:
    old = small.dataset.model_copy(update={"version": "0", "stages": {}})
    report = change_report(small.store, small.dataset, old, DriftSettings())
    assert report.previous is None
    assert report.notes == ("small/0 has no ledger to compare with",)


def test_quarantined_records_are_counted(small: Small) -> None:
    manifest = StageManifest.load(small.store, f"{small.stage('fetch').folder}/manifest.json")
    report = change_report(small.store, small.dataset, None, DriftSettings())
    assert report.quarantined >= manifest.rows_of("quarantined")
