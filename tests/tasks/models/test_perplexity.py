"""Perplexity as a signal: per word, per byte, and for the languages that a model knows."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from infra.errors import BadInput
from infra.store import Store
from tasks.models.ngram_model import write_model
from tasks.models.ngram_training import NgramTrainingSettings, learn
from tasks.models.perplexity import (
    PerplexityModel,
    PerplexitySettings,
    perplexity,
    perplexity_schema,
    resolve_perplexity_models,
)
from tasks.models.preparation import prepare
from tasks.models.reference import ReferenceFile
from tests.tasks.documents import prose
from tests.tasks.models.test_ngram_model import ARPA

TRAINING = NgramTrainingSettings(references=(ReferenceFile(path="unused"),))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    store.write_bytes("own.arrow", write_model(learn(prepare(prose()[10:], "words"), TRAINING)))
    store.write_bytes("small.arpa", ARPA.encode())
    return store


def settings(store: Store, *models: PerplexityModel) -> PerplexitySettings:
    return resolve_perplexity_models(PerplexitySettings(models=models), store)


def test_perplexity_is_kenlms(store: Store) -> None:
    given = settings(store, PerplexityModel(path="small.arpa", preparation="plain"))
    [row] = perplexity(["the mill\nthe mill"], ["en"], given).to_pylist()
    assert row["perplexity"] == pytest.approx(10 ** ((0.2 + 0.11 + 0.12) / 3), rel=1e-5)
    assert row["perplexity_bits_per_byte"] is None  # ARPA knows no letters
    assert row["perplexity_unknown_words"] == 0


def test_natural_text_surprises_less_than_its_words_in_disorder_or_none_at_all(store: Store) -> None:
    given = settings(store, PerplexityModel(path="own.arrow"))
    natural = prose()[0]
    texts = [natural, " ".join(sorted(natural.split())), "zq xv jjk " * 100, "Die Mühle steht am Fluss."]
    table = perplexity(texts, ["en"] * 4, given)
    assert table.schema == perplexity_schema(given)
    per_word, per_byte = table["perplexity"].to_pylist(), table["perplexity_bits_per_byte"].to_pylist()
    assert per_word[0] < per_word[1] < per_word[2]
    assert per_byte[0] < per_byte[1] < per_byte[2]
    assert table["perplexity_unknown_words"].to_pylist()[2] == pytest.approx(300 / 301)


def test_each_language_has_its_model(store: Store) -> None:
    given = settings(
        store,
        PerplexityModel(path="own.arrow", languages=("en",)),
        PerplexityModel(path="small.arpa", languages=("de",)),
        PerplexityModel(path="small.arpa", name="arpa"),
    )
    table = perplexity(["the mill"] * 3, ["en", "de", None], given)
    english, german, unknown = table["perplexity"].to_pylist()
    assert english != german
    assert unknown is None
    assert table["arpa"].to_pylist() == [pytest.approx(german)] * 3


def test_two_models_may_not_claim_a_language() -> None:
    with pytest.raises(ValidationError, match="perplexity"):
        PerplexitySettings(models=(PerplexityModel(path="a"), PerplexityModel(path="b", languages=("en",))))


def test_batches_do_not_matter(store: Store) -> None:
    given = settings(store, PerplexityModel(path="own.arrow"))
    together = perplexity(prose(), ["en"] * len(prose()), given).to_pylist()
    assert together == [row for text in prose() for row in perplexity([text], ["en"], given).to_pylist()]
    assert perplexity([], [], given).num_rows == 0


def test_text_without_a_word_has_no_perplexity(store: Store) -> None:
    given = settings(store, PerplexityModel(path="own.arrow"))
    assert perplexity(["", " \n "], ["en", "en"], given)["perplexity"].to_pylist() == [None, None]


def test_strange_text_has_finite_perplexity(store: Store) -> None:
    given = settings(store, PerplexityModel(path="own.arrow"), PerplexityModel(path="small.arpa", name="arpa"))
    texts = ["x" * 1_000_000, "\0", "\ud800", "<s> </s> <unk>", ", " * 100_000, "水車" * 10_000]
    for row in perplexity(texts, ["en"] * len(texts), given).to_pylist():
        assert all(value is None or 0 <= value < float("inf") for value in row.values())


def test_the_models_content_is_the_identity(store: Store) -> None:
    one = settings(store, PerplexityModel(path="small.arpa"))
    store.write_bytes("copy.arpa", ARPA.encode())
    assert settings(store, PerplexityModel(path="copy.arpa")).identity() == one.identity()


def test_a_file_that_is_no_model_is_refused(store: Store) -> None:
    store.write_bytes("broken.arpa", b"nothing")
    with pytest.raises(BadInput, match=r"broken\.arpa"):
        settings(store, PerplexityModel(path="broken.arpa"))
