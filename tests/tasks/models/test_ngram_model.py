"""N-gram models: back-off scores as kenlm computes them, from our files and from ARPA text."""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks.models.ngram_model import (
    NgramModel,
    build,
    combine,
    read_arpa,
    read_model,
    score_texts,
    word_hashes,
    write_model,
)
from tasks.models.preparation import prepare

ARPA = """
\\data\\
ngram 1=5
ngram 2=4
ngram 3=2

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.5
-0.7\t</s>
-0.4\tthe\t-0.3
-0.6\tmill\t-0.2

\\2-grams:
-0.2\t<s> the\t-0.15
-0.25\tthe mill\t-0.05
-0.9\tmill the
-0.1\tmill </s>

\\3-grams:
-0.11\t<s> the mill
-0.12\tthe mill </s>

\\end\\
"""


def log_probability(text: str, model: NgramModel | None = None) -> float:
    return float(score_texts(model or read_arpa(ARPA.encode()), prepare([text], "plain")).log_probability[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the mill", -0.2 - 0.11 - 0.12),  # all found at their longest
        ("mill", (-0.5 - 0.6) + -0.1),  # backs off from <s>, then finds the bigram
        ("the the", -0.2 + (-0.15 - 0.3 - 0.4) + (-0.3 - 0.7)),
        ("the river", -0.2 + (-0.15 - 0.3 - 1.0) + -0.7),  # <unk>, after which nothing is known
        ("mill the", (-0.5 - 0.6) + -0.9 + (-0.3 - 0.7)),  # `mill the` has no weight of back-off
        ("the mill\n\n the  mill ", 2 * (-0.2 - 0.11 - 0.12)),  # lines are sentences
        ("", 0.0),
    ],
)
def test_scores_are_those_of_back_off(text: str, expected: float) -> None:
    assert log_probability(text) == pytest.approx(expected, abs=1e-6)


def test_words_line_ends_and_unknown_words_are_counted() -> None:
    scores = score_texts(read_arpa(ARPA.encode()), prepare(["the river\nmill", "", "\n\n"], "plain"))
    assert scores.words.tolist() == [5, 0, 0]
    assert scores.unknown.tolist() == [1, 0, 0]


def test_a_model_without_unknown_word_charges_as_kenlm_does() -> None:
    model = read_arpa(ARPA.replace("-1.0\t<unk>\n", "").encode())
    assert log_probability("river", model) == pytest.approx(-100 - 0.7)


def test_a_model_is_written_and_mapped_back(tmp_path: Path) -> None:
    model = read_arpa(ARPA.encode())._replace(letters=np.arange(257.0))
    (tmp_path / "model.arrow").write_bytes(write_model(model))
    again = read_model(tmp_path / "model.arrow")
    assert write_model(again) == write_model(model)
    assert log_probability("the mill river", again) == log_probability("the mill river", model)
    spelled = score_texts(again, prepare(["the ab"], "plain")).spelling_bits
    assert spelled.tolist() == [97 + 98 + 256]


@pytest.mark.parametrize("name", ["model.arpa", "model.arpa.gz"])
def test_arpa_text_is_read_packed_or_not(tmp_path: Path, name: str) -> None:
    data = ARPA.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert log_probability("the mill", read_model(tmp_path / name)) == log_probability("the mill")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no model",
        ARPA.encode()[:200],
        ARPA.replace("\\end\\", "").encode(),
        ARPA.replace("-0.4\tthe", "x\tthe").encode(),
        ARPA.replace("-0.2\t<s> the\t-0.15", "-0.2\t<s>").encode(),
        b"mmap lm http://kheafield.com/code format version 5\n\0",
        gzip.compress(ARPA.encode())[:60],
        b"ARROW1\0\0 and nothing",
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model").write_bytes(content)
    with pytest.raises((ValueError, OSError, EOFError)):
        read_model(tmp_path / "model")


def test_an_arrow_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with pa.OSFile(str(tmp_path / "a"), "wb") as out, pa.ipc.new_file(out, pa.schema([("x", pa.int8())])):
        pass
    with pytest.raises(ValueError, match="something else"):
        read_model(tmp_path / "a")


def test_ngrams_have_keys_of_their_own() -> None:
    words = word_hashes([b"a", b"b", b"c", b"ab", b""])
    assert len(set(words.tolist())) == 5
    pairs = np.array([[one, two] for one in words for two in words])
    keys = combine(pairs)
    assert len(set(keys.tolist())) == 25
    assert (keys != 0).all()


def test_a_full_table_finds_every_entry() -> None:
    keys = np.random.default_rng(0).integers(1, 2**63, 10_000).astype(np.uint64)
    table = build(keys, np.arange(10_000.0), np.zeros(10_000))
    assert (table[0] != 0).sum() == 10_000
    assert len(table[0]) < 4 * 10_000
    assert sorted(table[1][table[0] != 0].tolist()) == list(range(10_000))
