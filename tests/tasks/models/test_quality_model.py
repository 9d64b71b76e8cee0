"""Model-based quality: scores by models that are given as files."""

from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import pytest
from pydantic import ValidationError

from infra.errors import BadInput
from infra.store import Store
from tasks.models.quality_model import QualityModelSettings, ScoreModel, resolve_models, score, score_schema
from tasks.quality.language import packaged_model
from tests.tasks.documents import prose
from tests.tasks.fasttext_models import random_model

TEXTS = [*prose()[:20], "the mill\nof the river", ""]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    store.write_bytes("hq.bin", random_model())
    store.write_bytes("other.bin", random_model(seed=2))
    return store


def settings(store: Store, *models: ScoreModel) -> QualityModelSettings:
    return resolve_models(QualityModelSettings(models=models), store)


def test_the_score_is_the_probability_of_the_label(store: Store) -> None:
    given = settings(store, ScoreModel(path="hq.bin"), ScoreModel(name="other", path="hq.bin", label="__label__cc"))
    table = score(TEXTS, ["en"] * len(TEXTS), given)
    assert table.schema == score_schema(given)
    model: Any = fasttext.load_model(str(store.local_path("hq.bin")))
    for name, label in (("quality", "__label__hq"), ("other", "__label__cc")):
        for value, text in zip(table[name].to_pylist(), TEXTS, strict=True):
            labels, found = model.predict(text.replace("\n", " "), k=-1)
            assert value == pytest.approx(dict(zip(labels, found, strict=True))[label], abs=3e-5)


def test_a_model_with_subwords_and_quantised_matrices_is_read_by_fasttext(store: Store) -> None:
    given = settings(store, ScoreModel(path=str(packaged_model()), label="__label__en"))
    found = score(["The mill stands at the river.", "Die Mühle steht am\nFluss."], ["en", "de"], given)
    english, german = found["quality"].to_pylist()
    assert english > 0.6
    assert german < 0.1


def test_models_of_different_languages_share_a_score(store: Store) -> None:
    given = settings(
        store,
        ScoreModel(path="hq.bin", languages=("en",)),
        ScoreModel(path="other.bin", languages=("de", "fr")),
    )
    text = TEXTS[0]
    mixed = score([text] * 4, ["en", "de", "ja", None], given)["quality"].to_pylist()
    one = score([text], ["en"], settings(store, ScoreModel(path="hq.bin")))["quality"].to_pylist()
    two = score([text], ["de"], settings(store, ScoreModel(path="other.bin")))["quality"].to_pylist()
    assert mixed == [*one, *two, None, None]


@pytest.mark.parametrize("languages", [(None, None), (("en",), None), (("en", "de"), ("de",))])
def test_two_models_may_not_claim_the_same_score(languages: tuple) -> None:
    with pytest.raises(ValidationError, match="quality"):
        QualityModelSettings(models=tuple(ScoreModel(path="m", languages=each) for each in languages))


def test_batches_do_not_matter(store: Store) -> None:
    given = settings(store, ScoreModel(path="hq.bin", preparation="words"))
    together = score(TEXTS, ["en"] * len(TEXTS), given)["quality"].to_pylist()
    assert together == [score([text], ["en"], given)["quality"][0].as_py() for text in TEXTS]
    assert score([], [], given).num_rows == 0


def test_only_the_beginning_of_a_long_document_is_read(store: Store) -> None:
    given = settings(store, ScoreModel(path="hq.bin", max_characters=100))
    long, short = score([TEXTS[0], TEXTS[0][:100]], ["en", "en"], given)["quality"].to_pylist()
    assert long == short


def test_the_models_content_is_the_identity(store: Store) -> None:
    one = settings(store, ScoreModel(path="hq.bin"))
    store.write_bytes("elsewhere/hq.bin", random_model())
    assert settings(store, ScoreModel(path="elsewhere/hq.bin")).identity() == one.identity()
    assert settings(store, ScoreModel(path="other.bin")).identity() != one.identity()


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x80\x04", random_model()[:300]])
def test_a_file_that_is_no_model_is_refused(store: Store, content: bytes) -> None:
    store.write_bytes("broken.bin", content)
    with pytest.raises(BadInput, match=r"broken\.bin"):
        settings(store, ScoreModel(path="broken.bin"))


def test_a_label_that_the_model_lacks_is_refused_and_those_it_has_are_named(store: Store) -> None:
    with pytest.raises(BadInput, match="__label__cc, __label__hq, __label__other; there is no __label__good"):
        settings(store, ScoreModel(path="hq.bin", label="__label__good"))
    with pytest.raises(BadInput, match="there is no __label__hq"):
        settings(store, ScoreModel(path=str(packaged_model())))


def test_scores_are_numbers_for_any_text(store: Store) -> None:
    given = settings(store, ScoreModel(path="hq.bin", preparation="words"))
    texts = ["\0" * 100, "\ud800", "x" * 1_000_000, "\n" * 10_000, "𠀀", "</s>", "__label__hq"]
    values = score(texts, ["en"] * len(texts), given)["quality"].to_numpy()
    assert ((values >= 0) & (values <= 1)).all()
    assert not np.isnan(values).any()
