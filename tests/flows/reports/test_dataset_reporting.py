"""The report of a real small dataset, and what `gristmill show` says of it."""

import json
import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from flows.reports.dataset_reporting import dataset_report, funnel, rule_thresholds, write_dataset_report
from infra.cluster import Cluster
from infra.dataset_report import DatasetReport
from infra.store import Store
from tasks.filters import FilterInputs, FilterSettings
from tasks.retention import RetentionSettings, retain_texts
from tasks.signals import SignalSettings
from tasks.stage import StageRunner
from tests.tasks.small_corpus import Small, build_small


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Small:
    root = tmp_path_factory.mktemp("small")
    return build_small(tmp_path_factory.mktemp("crawl"), StageRunner(Store(str(root)), cluster))


@pytest.fixture(scope="module")
def report(small: Small) -> DatasetReport:
    return dataset_report(small.store, small.dataset, small.corpus, small.settings)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def test_the_funnel_loses_no_document_and_counts_no_copy(small: Small, report: DatasetReport) -> None:
    kept = report.funnel[0].entered
    for each in report.funnel:
        assert each.entered == kept
        kept = each.entered - sum(each.dropped.values()) - each.quarantined
        assert each.kept == kept
    mixed = next(each for each in report.funnel if each.name == "mix")
    assert mixed.copies > 0
    assert kept == sum(row["stage"] is None for row in small.ledger().to_pylist())
    assert funnel(small.corpus.build.passed) == list(report.funnel)


def test_languages_say_what_was_refused(small: Small, report: DatasetReport) -> None:
    rows = {each.language: each for each in report.languages}
    assert rows["de"].refused == {"language_unwanted": 1}
    assert rows["de"].kept == 0
    assert report.languages[0].language == "en"
    for each in report.languages:
        assert each.measured == each.kept + each.dropped + sum(each.refused.values())
    assert sum(each.measured for each in report.languages) == small.stage("signals").kept
    assert rows["en"].tokens == small.dataset.tokens("train") + small.dataset.tokens("heldout")


def test_histograms_are_of_the_languages_that_were_kept(report: DatasetReport) -> None:
    english = next(each for each in report.languages if each.language == "en")
    charts = {each.signal: each for each in report.histograms}
    words = charts["nonsymbol_words"]
    assert report.histogram_languages == ("en",)
    assert sum(each.kept for each in words.bins) == english.kept
    assert sum(each.kept + each.dropped for each in words.bins) == english.measured
    assert [(each.reason, each.value) for each in words.thresholds] == [("too_few_words", 50)]
    assert [each.upper for each in words.bins[:-1]] == [each.lower for each in words.bins[1:]]
    limits = [(each.lower, each.kept) for each in words.bins if each.upper is not None and each.upper <= 50]
    assert all(kept == 0 for _, kept in limits)


def test_counts_have_no_bins_between_nothing_and_one(report: DatasetReport) -> None:
    stops = next(each for each in report.histograms if each.signal == "stop_words")
    assert not [each.lower for each in stops.bins if each.lower is not None and 0 < each.lower < 1]


def test_rules_have_examples_of_both_sides(report: DatasetReport) -> None:
    rules = {each.reason: each for each in report.rules}
    short = rules["too_few_words"]
    assert short.stage == "filter"
    assert short.documents == len(short.dropped) == 2 + sum("site" in (each.url or "") for each in short.dropped)
    assert {each.threshold for each in (*short.dropped, *short.kept)} == {50}
    assert short.thresholds[0].setting == "corpus.filter.quality.gopher_quality.min_words"
    assert rules["http_status"].thresholds == ()
    assert "heldout_copy" not in rules
    stages = [each.stage for each in report.rules]
    assert stages == sorted(stages, key=["fetch", "extract", "filter", "dedup", "mix"].index)


def test_the_rest_is_there(report: DatasetReport) -> None:
    assert report.dedup is not None
    assert report.dedup.kinds.keys() == {"exact_duplicate"}
    assert report.personal["email"] >= 20
    assert report.words[0].words[0][0] == "the"
    assert report.domains[0].domains[0].name == "site0.co.uk"
    assert report.domains[-1].language == "(not measured)"
    assert report.mixture[0].documents_after > report.mixture[0].documents_before
    assert {(each.column, each.value) for each in report.sample} >= {("language", "en")}
    assert {each.group for each in report.fertility} == {"language", "source"}
    assert report.repeats is None


def test_thresholds_differ_by_language() -> None:
    inputs = FilterInputs(filter=FilterSettings(), signals=SignalSettings())
    found = rule_thresholds(inputs, ["en", "de", "sv"])
    assert [(each.value, each.languages) for each in found["words_too_long"]] == [(10, ("en",)), (15, ("de",))]
    assert [(each.value, each.languages) for each in found["too_few_words"]] == [(50, ())]
    assert rule_thresholds(inputs, []) == {}


def test_the_files_are_private_and_the_manifest_is_not(small: Small) -> None:
    folder = small.store.local_path(small.dataset.folder)
    page = small.store.local_path(write_dataset_report(small.store, small.dataset, small.corpus, small.settings))
    assert page == folder / "report.html"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"manifest.json": 0o644, "report.html": 0o600, "report.json": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) & 0o055 == 0o055
    before = page.read_bytes()
    write_dataset_report(small.store, small.dataset, small.corpus, small.settings)
    assert page.read_bytes() == before


def test_show_tells_of_one_dataset(small: Small, report: DatasetReport) -> None:
    write_dataset_report(small.store, small.dataset, small.corpus, small.settings)
    result = run("show", "small", "--root", small.store.root)
    assert result.exit_code == 0
    for expected in ("Dataset small/1", "too_few_words", "site0.co.uk", "email", "report.html", "*.parquet (46 rows"):
        assert expected in result.output
    found = json.loads(run("show", "small/1", "--root", small.store.root, "--json").output)
    assert found["funnel"] == json.loads(report.model_dump_json())["funnel"]
    assert all(Path(path).is_file() for path in found["ledger"])
    assert Path(found["report"]).is_file()
    assert found["tokens"]["train"] == small.dataset.tokens("train")


def test_retention_takes_the_texts_out_of_old_reports(small: Small, tmp_path: Path) -> None:
    shutil.copytree(small.store.local_path(""), tmp_path / "root")
    store = Store(str(tmp_path / "root"))
    page = write_dataset_report(store, small.dataset, small.corpus, small.settings)
    assert b"have not moved" in store.read_bytes(page)
    folder = store.local_path(small.dataset.folder)
    modes = {path.name: path.stat().st_mode for path in (folder, *folder.iterdir())}
    now = datetime.now(UTC) + timedelta(days=31)
    assert retain_texts(store, RetentionSettings(), now).reports == (page,)
    assert {path.name: path.stat().st_mode for path in (folder, *folder.iterdir())} == modes
    after = DatasetReport.load(store, page.replace(".html", ".json"))
    assert {each.text for rule in after.rules for each in (*rule.dropped, *rule.kept)} == {None}
    assert b"have not moved" not in store.read_bytes(page)
    assert f"deleted by retention on {now:%Y-%m-%d}" in store.read_bytes(page).decode()
    assert retain_texts(store, RetentionSettings(), now + timedelta(days=99)).reports == ()
    shown = run("show", "small", "--root", store.root).output
    assert f"Texts of signals: deleted by retention on {now:%Y-%m-%d}" in shown
    assert "Texts of redact" not in shown


def test_show_without_a_name_lists_what_there_is(small: Small) -> None:
    result = run("show", "--root", small.store.root)
    assert "small/1" in result.output
    assert "Funnel" not in result.output


def test_show_of_a_dataset_without_report_says_so(tmp_path: Path, small: Small) -> None:
    bare = small.dataset.model_copy(update={"stages": {}, "version": "0"})
    bare.save(Store(str(tmp_path)), f"{bare.folder}/manifest.json")
    result = run("show", "small/0", "--root", str(tmp_path))
    assert "none yet" in result.output
    assert "Ledger" not in result.output


@pytest.mark.parametrize("name", ["absent", "small/9", "../../etc", "small/../1"])
def test_show_of_an_unknown_dataset_is_refused(small: Small, name: str) -> None:
    result = run("show", name, "--root", small.store.root)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
