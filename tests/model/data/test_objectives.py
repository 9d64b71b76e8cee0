"""What bert and t5 are asked about a text."""

import numpy as np
import pytest

from model.data.objectives import Objective
from model.settings.architecture import ModelSettings, gaps, lengths, special_tokens

VOCABULARY, END = 400, 2


def rows(*texts: np.ndarray, length: int, documents: bool = False) -> np.ndarray:
    """Texts as rows of next-token prediction."""
    values = np.full((3 if documents else 2, len(texts), length), -1, np.int32)
    values[0] = 0
    for row, text in enumerate(texts):
        values[1, row, : len(text)] = text
        values[0, row, 1 : len(text)] = text[:-1]
        if documents:
            values[2, row, : len(text)] = np.arange(len(text)) >= len(text) // 2
    return values


def text(count: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(3, VOCABULARY, count)


def objective(architecture: str, length: int, **changes: bool) -> tuple[ModelSettings, Objective]:
    model = ModelSettings.model_validate(
        {"architecture": architecture, "sequence_length": length, "num_query_groups": 8}
    )
    return model, Objective(model, VOCABULARY, END, seed=7, **changes)


def test_next_token_prediction_stays_as_it_is() -> None:
    given = rows(text(64), length=64)
    assert objective("gpt", 64)[1].ask(given, [0]) is given


def test_bert_masks_as_the_paper_says() -> None:
    written = text(4000)
    written[::50] = END
    asked = objective("bert", 4000)[1].ask(rows(written, length=4000), [3])
    assert asked.shape == (2, 1, 4000)
    tokens, labels = asked[:, 0]
    wanted = labels >= 0
    assert wanted.sum() == round(0.15 * (written != END).sum())
    assert (labels[wanted] == written[wanted]).all()
    assert END not in labels[wanted]
    assert (tokens[~wanted] == written[~wanted]).all()
    assert (tokens == VOCABULARY).sum() / wanted.sum() == pytest.approx(0.8, abs=0.05)
    assert (tokens == written)[wanted].mean() == pytest.approx(0.1, abs=0.04)
    assert tokens.max() < VOCABULARY + 1


def test_bert_tells_padding_from_text() -> None:
    asked = objective("bert", 64)[1].ask(rows(text(64), text(20), length=64), [0, 1])
    assert asked.shape == (3, 2, 64)
    assert (asked[2, 0] == 0).all()
    assert (asked[2, 1] >= 0).sum() == 20
    assert (asked[1, 1, 20:] == -1).all()


@pytest.mark.parametrize("length", [8, 64, 512, 1000])
def test_t5_can_be_read_back(length: int) -> None:
    model, asks = objective("t5", length)
    encoder, decoder = lengths(model)
    for seed in range(5):
        written = text(length, seed)
        tokens, labels, documents = asks.ask(rows(written, length=length), [seed])[:, 0]
        assert len(tokens) == encoder + decoder
        assert encoder % 8 == decoder % 8 == 0
        read, answer = tokens[:encoder][documents[:encoder] >= 0], labels[labels >= 0]
        missing, count = gaps(model, length)
        assert len(answer) == missing + count + 1
        assert answer.max() == VOCABULARY + special_tokens(model) - 1
        assert tokens[encoder] == VOCABULARY
        assert (tokens[encoder + 1 : encoder + len(answer)] == answer[:-1]).all()
        pieces = np.split(answer, np.flatnonzero(answer > VOCABULARY))[1:]
        filled = [pieces[token - VOCABULARY - 1][1:] if token > VOCABULARY else [token] for token in read]
        assert np.concatenate(filled).tolist() == written.tolist()


def test_t5_keeps_documents_apart() -> None:
    model, asks = objective("t5", 128)
    written = text(128)
    tokens, labels, documents = asks.ask(rows(written, length=128, documents=True), [0])[:, 0]
    encoder = lengths(model)[0]
    first = set(written[:64].tolist()) - set(written[64:].tolist())
    ordinary = (labels >= 0) & (labels < VOCABULARY)
    assert all(documents[place] == 0 for place in np.flatnonzero(ordinary) if labels[place] in first)
    assert set(documents.tolist()) == {-1, 0, 1}
    assert all(documents[place] == 0 for place in range(encoder) if tokens[place] in first)


@pytest.mark.parametrize("architecture", ["bert", "t5"])
def test_a_row_depends_on_its_sample_alone(architecture: str) -> None:
    _, asks = objective(architecture, 64)
    one, two = text(64, 1), text(64, 2)
    both = asks.ask(rows(one, two, length=64), [10, 2**33])
    assert (both[:, 1:] == asks.ask(rows(two, length=64), [2**33])).all()
    assert (both[:, :1] != asks.ask(rows(one, length=64), [11])).any()
    _, other = objective(architecture, 64, held_out=True)
    assert (both[:, :1] != other.ask(rows(one, length=64), [10])).any()


@pytest.mark.parametrize("count", [0, 1, 2, 3])
@pytest.mark.parametrize("architecture", ["bert", "t5"])
def test_short_rows(architecture: str, count: int) -> None:
    asked = objective(architecture, 16)[1].ask(rows(text(count), length=16), [0])
    assert ((asked[1] >= 0).sum() > 0) == (count >= (2 if architecture == "t5" else 1))
