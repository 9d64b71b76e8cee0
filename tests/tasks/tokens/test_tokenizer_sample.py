"""The stratified sample: who gets how much, and which documents it is."""

from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from infra.cluster import Cluster
from infra.manifest import StageManifest
from infra.store import Store
from tasks.heldout import HeldoutSettings, is_heldout
from tasks.stage import StageRunner
from tasks.tokens.tokenizer_sample import Sample, SampleSettings, fill, sampling_rates, stratum_sizes, weights
from tests.tasks.tokenizer_files import Row, write_corpus

ROWS = [
    *(Row(f"english text number {n} of the large crawl", "en", "crawl") for n in range(400)),
    *(Row(f"english text number {n} of a small book", "en", "books") for n in range(40)),
    *(Row(f"deutscher Text Nummer {n} mit einer Mühle", "de", "crawl") for n in range(40)),
    *(Row(f"?? {n}", None, "crawl") for n in range(4)),
]
NONE_HELD = HeldoutSettings(fraction=0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> tuple[Store, StageManifest]:
    store = Store(str(tmp_path_factory.mktemp("sample")))
    return store, write_corpus(StageRunner(store, cluster), [ROWS[:100], ROWS[100:101], ROWS[101:]])


def size(*wanted: str | None) -> int:
    return sum(len(row.text.encode()) for row in ROWS if (row.language, row.source) == wanted)


def test_strata_are_measured_in_bytes(corpus: tuple[Store, StageManifest]) -> None:
    store, manifest = corpus
    assert stratum_sizes(store, manifest.kept_paths, ("language", "source")) == {
        ("de", "crawl"): size("de", "crawl"),
        ("en", "books"): size("en", "books"),
        ("en", "crawl"): size("en", "crawl"),
        ("und", "crawl"): size(None, "crawl"),
    }
    total = sum(len(row.text.encode()) for row in ROWS)
    assert stratum_sizes(store, manifest.kept_paths, ()) == {(): total}
    assert stratum_sizes(store, [], ("language",)) == {}


def test_shares_follow_smoothed_sizes() -> None:
    assert weights({"en": 10_000, "de": 100}, 0.5, {}) == pytest.approx({"en": 10 / 11, "de": 1 / 11})
    assert weights({"en": 300, "de": 100}, 1, {}) == pytest.approx({"en": 0.75, "de": 0.25})
    assert weights({"en": 300, "de": 100, "fr": 0}, 0, {}) == pytest.approx({"en": 0.5, "de": 0.5, "fr": 0})
    named = weights({"en": 300, "de": 100, "fr": 100}, 1, {"en": 0.6})
    assert named == pytest.approx({"en": 0.6, "de": 0.2, "fr": 0.2})


def test_what_exceeds_a_limit_goes_to_the_others() -> None:
    assert fill(90, {"a": 1, "b": 1, "c": 1}, {"a": 10, "b": 100, "c": 100}) == {"a": 10, "b": 40, "c": 40}
    assert fill(90, {"a": 1, "b": 1, "c": 2}, {"a": 10, "b": 25, "c": 100}) == {"a": 10, "b": 25, "c": 55}
    assert fill(90, {"a": 1, "b": 3}, {"a": 10, "b": 20}) == {"a": 10, "b": 20}
    assert fill(90, {}, {}) == {}


def rates(sizes: dict[tuple[str, ...], int], **settings: object) -> dict[tuple[str, ...], float]:
    return sampling_rates(sizes, SampleSettings.model_validate(settings))


def test_a_language_gets_no_more_for_having_many_sources() -> None:
    crawls = {("en", f"crawl-{n}"): 1_000_000 for n in range(100)}
    found = rates({**crawls, ("de", "crawl-0"): 1_000_000}, sample_bytes=1_000_000)
    german = found["de", "crawl-0"] * 1_000_000
    assert german == pytest.approx(1_000_000 / 11)
    assert sum(found[each] * 1_000_000 for each in crawls) == pytest.approx(1_000_000 * 10 / 11)


def test_a_single_stratum_is_taken_as_it_is() -> None:
    assert rates({("en", "crawl"): 12_345}) == {("en", "crawl"): 1.0}
    assert rates({("en", "crawl"): 10_000}, sample_bytes=1_000) == {("en", "crawl"): 0.1}
    assert rates({("en", "crawl"): 0}) == {("en", "crawl"): 0.0}
    assert rates({}) == {}


def test_small_strata_are_repeated_so_often_at_most() -> None:
    sizes = {("en", "c"): 1_000_000, ("de", "c"): 1_000}
    assert rates(sizes)["de", "c"] == 4
    assert rates(sizes, max_repeats=1)["de", "c"] == 1
    assert rates(sizes, smoothing=1)["de", "c"] == pytest.approx(1)


def test_named_shares_are_met_from_the_languages_that_there_are(caplog: pytest.LogCaptureFixture) -> None:
    sizes = {("en", "c"): 1_000_000, ("de", "c"): 500_000, ("fr", "c"): 500_000}
    with caplog.at_level("WARNING", "tasks"):
        found = rates(sizes, sample_bytes=100_000, language_shares={"en": 0.2, "sv": 0.5})
    assert {stratum: round(found[stratum] * sizes[stratum]) for stratum in sizes} == {
        ("en", "c"): 40_000,
        ("de", "c"): 30_000,
        ("fr", "c"): 30_000,
    }
    assert "names sv" in caplog.text


@pytest.mark.parametrize(
    "wrong", [{"language_shares": {"en": 0.7, "de": 0.4}}, {"language_shares": {"en": 0.5}, "stratify_by": ("source",)}]
)
def test_shares_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="language_shares"):
        SampleSettings.model_validate(wrong)


def test_the_sample_has_the_shares_and_counts_them(corpus: tuple[Store, StageManifest]) -> None:
    store, manifest = corpus
    sample = Sample(store, manifest.kept_paths, SampleSettings(sample_bytes=6_000), NONE_HELD)
    texts = list(sample.texts())
    sizes = Counter[str]()
    for text in texts:
        sizes[next(row.language or "und" for row in ROWS if row.text == text)] += len(text.encode())
    assert sum(sizes.values()) == pytest.approx(6_000, rel=0.15)
    assert sizes["de"] / sizes["en"] == pytest.approx((40 / 440) ** 0.5, rel=0.35)
    assert sample.counters["sample_bytes"] == sum(sizes.values())
    assert sample.counters["sample_bytes:language:de"] == sizes["de"]
    assert sample.counters["sample_bytes:source:crawl"] + sample.counters["sample_bytes:source:books"] == sum(
        sizes.values()
    )
    order = {row.text: n for n, row in enumerate(ROWS)}
    assert [order[text] for text in texts] == sorted(order[text] for text in texts)


def test_batches_and_shards_change_nothing(tmp_path: Path, cluster: Cluster) -> None:
    settings = SampleSettings(sample_bytes=6_000)
    runner = StageRunner(Store(str(tmp_path)), cluster)
    samples = []
    for shards, rows_a_batch in ([ROWS], 1), ([ROWS], 1000), ([ROWS[:50], [], ROWS[50:]], 7):
        manifest = write_corpus(runner, shards, rows_a_batch)
        samples.append(list(Sample(runner.store, manifest.kept_paths, settings, NONE_HELD).texts()))
    assert samples[0] == samples[1] == samples[2]
    assert 50 < len(samples[0]) < len(ROWS)


def test_held_out_documents_are_not_sampled(corpus: tuple[Store, StageManifest]) -> None:
    store, manifest = corpus
    heldout = HeldoutSettings(fraction=0.3)
    texts = set(Sample(store, manifest.kept_paths, SampleSettings(smoothing=1), heldout).texts())
    assert texts == {row.text for row in ROWS if not is_heldout(row.text, heldout)}
