"""fastText's files: the linear model in them gives the probabilities that fasttext-predict gives."""

from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import pytest

from tasks.models.fasttext_file import probabilities, read_linear, write_linear
from tasks.models.preparation import prepare
from tests.tasks.documents import prose
from tests.tasks.fasttext_models import LABELS, WORDS, random_model

AWKWARD = [
    "",
    " \t ",
    "mill",
    "the mill of the river",
    "the </s> mill river",
    "the __label__hq mill",
    "__label__unknown mill __label__",
    "über\x0bthe\x0cmill\0river",
    "水車 über mill",
    "word " * 3000,
    "x" * 100_000,
]


def predicted(path: Path, texts: list[str], label: str) -> list[float]:
    model: Any = fasttext.load_model(str(path))
    found = [model.predict(text.replace("\n", " "), k=-1) for text in texts]
    return [min(dict(zip(labels, values, strict=True))[label], 1.0) for labels, values in found]


@pytest.mark.parametrize(("dimension", "word_ngrams"), [(1, 1), (5, 2), (16, 3), (3, 5)])
def test_probabilities_are_those_of_fasttext(tmp_path: Path, dimension: int, word_ngrams: int) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(random_model(dimension, word_ngrams, seed=dimension))
    model = read_linear(path.read_bytes())
    assert model is not None
    assert model.labels == LABELS
    texts = [*AWKWARD, *prose()[:30]]
    for label in range(3):
        found = probabilities(model, prepare(texts, "plain"), label)
        np.testing.assert_allclose(found, predicted(path, texts, LABELS[label]), atol=3e-5)  # it sums in float32


def test_what_is_written_is_read_by_fasttext(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    weights = random.normal(size=len(WORDS) + 500).astype(np.float32)
    data = write_linear([word.encode() for word in WORDS], [9] * len(WORDS), (LABELS[0], LABELS[1]), weights, 2)
    (path := tmp_path / "model.bin").write_bytes(data)
    model = read_linear(data)
    assert model is not None
    texts = [*AWKWARD, *prose()[:10]]
    found = probabilities(model, prepare(texts, "plain"), 0)
    np.testing.assert_allclose(found, predicted(path, texts, LABELS[0]), atol=3e-5)


def test_a_text_without_features_has_no_probability() -> None:
    data = write_linear([b"mill"], [1], (LABELS[0], LABELS[1]), np.ones(11, np.float32), 1)
    model = read_linear(data)
    assert model is not None
    found = probabilities(model, prepare(["mill", "river", ""], "plain"), 0)
    assert np.isnan(found).tolist() == [False, True, True]


def test_models_of_other_kinds_are_left_to_fasttext() -> None:
    assert read_linear(random_model(loss=1)) is None  # hierarchical softmax


@pytest.mark.parametrize("length", [4, 50, 90, 200, 5_000])
def test_a_file_that_is_cut_short_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_linear(random_model()[:length])


def test_impossible_sizes_are_refused_before_memory_is_taken() -> None:
    data = bytearray(random_model())
    data[64:76] = (2**31 - 1).to_bytes(4, "little") * 3
    with pytest.raises(ValueError, match="size"):
        read_linear(bytes(data))
