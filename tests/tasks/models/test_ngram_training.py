"""Estimation of n-gram models: probabilities that sum to one, by hand-checked counts, and the stage."""

import json
from pathlib import Path

import numpy as np
import pytest

from infra.cluster import Cluster
from infra.errors import BadInput
from infra.store import Store
from tasks.models.ngram_model import combine, find_slot, score_texts, word_hashes
from tasks.models.ngram_training import (
    BEGIN,
    END,
    SPECIAL,
    UNKNOWN,
    NgramTrainingSettings,
    count_ngrams,
    discounts,
    estimate,
    learn,
    number_words,
    sentences,
    train_ngram_model,
)
from tasks.models.perplexity import PerplexitySettings, perplexity
from tasks.models.preparation import prepare
from tasks.models.reference import PassageSettings, ReferenceFile
from tasks.stage import StageRunner
from tests.tasks.documents import prose

FILE = ReferenceFile(path="reference.jsonl")
SETTINGS = NgramTrainingSettings(
    references=(FILE,), passages=PassageSettings(min_characters=20, characters=1000), heldout_fraction=0.2
)


def numbered(texts: list[str], min_count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    prepared = prepare(texts, "words")
    hashes, places, depths = sentences(prepared.data, prepared.offsets, word_hashes(list(SPECIAL)))
    words, vocabulary, _ = number_words(prepared.data, hashes, places, min_count)
    return words, depths, vocabulary


def test_lines_become_sentences() -> None:
    words, depths, vocabulary = numbered(["a b\n\na c\n", "a"], 2)
    a = 3
    assert len(vocabulary) == 4
    assert words.tolist() == [BEGIN, a, UNKNOWN, END, BEGIN, a, UNKNOWN, END, BEGIN, a, END]
    assert depths.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2]


def test_ngrams_are_counted_within_sentences() -> None:
    words, depths, vocabulary = numbered(["a b a b", "a b"], 1)
    _, pairs, triples = count_ngrams(words, depths, len(vocabulary), 3)
    names = {word: index for index, word in enumerate(vocabulary.tolist())}
    a, b = (names[int(each)] for each in word_hashes([b"a", b"b"]))
    seen = {(int(p), int(w)): int(c) for p, w, c in zip(pairs.prefix, pairs.word, pairs.counts, strict=True)}
    assert seen == {(BEGIN, a): 2, (a, b): 3, (b, a): 1, (b, END): 2}
    assert triples.counts.sum() == 6
    assert triples.from_begin.sum() == 1


def test_discounts_are_those_of_chen_and_goodman() -> None:
    counts = np.repeat([1, 2, 3, 4, 9], [50, 20, 10, 6, 3])
    scale = 50 / 90
    expected = [0, 1 - 2 * scale * 20 / 50, 2 - 3 * scale * 10 / 20, 3 - 4 * scale * 6 / 10]
    np.testing.assert_allclose(discounts(counts), expected)
    assert discounts(np.array([7])).tolist() == [0, 0.5, 1, 1.5]


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("prune", [1, 2, 3])
def test_probabilities_after_any_context_sum_to_one(order: int, prune: int) -> None:
    words, depths, vocabulary = numbered(list(prose()[:30]), 2)
    levels = count_ngrams(words, depths, len(vocabulary), order)
    estimates = estimate(levels, prune)
    assert estimates[0].probabilities.sum() == pytest.approx(1)
    below = levels[-2]
    for context in range(0, len(below.counts), max(1, len(below.counts) // 7)):
        chain, number = [], context  # the context, and its ever shorter ends
        for level in reversed(levels[:-1]):
            chain.append(number)
            number = int(level.suffix[number])
        following = estimates[0].probabilities.copy()
        for level, found, number in zip(levels[1:], estimates[1:], reversed(chain), strict=True):
            following *= found.backoffs[number]
            rows = (level.prefix == number) & found.stored
            following[level.word[rows]] = found.probabilities[rows]
        assert following.sum() == pytest.approx(1)


def test_the_file_holds_what_was_estimated() -> None:
    texts = list(prose()[:20])
    given = SETTINGS.model_copy(update={"prune": 1})
    model = learn(prepare(texts, "words"), given)
    words, depths, vocabulary = numbered(texts, given.min_count)
    levels = count_ngrams(words, depths, len(vocabulary), given.order)
    estimates = estimate(levels, 1)
    key = combine(vocabulary[np.array([[levels[1].prefix[5], levels[1].word[5]]])])[0]
    slot = find_slot(key, model.keys)
    assert model.log_probabilities[slot] == pytest.approx(np.log10(estimates[1].probabilities[5]), rel=1e-5)
    assert model.backoffs[slot] == pytest.approx(np.log10(estimates[2].backoffs[5]), rel=1e-5, abs=1e-6)


def test_the_order_of_texts_does_not_matter() -> None:
    texts = list(prose()[:20])
    one, two = (learn(prepare(each, "words"), SETTINGS) for each in (texts, texts[::-1]))
    for left, right in zip(one[:3], two[:3], strict=True):
        np.testing.assert_array_equal(left, right)


def test_letters_cost_what_unknown_words_are_made_of() -> None:
    model = learn(prepare(["aaa aab aac the the"], "words"), SETTINGS)
    assert model.letters is not None
    assert model.letters[ord("a")] < model.letters[ord("b")] < model.letters[ord("z")]
    assert np.exp2(-model.letters).sum() == pytest.approx(1)
    common, rare = score_texts(model, prepare(["aaad", "zzzz"], "words")).spelling_bits
    assert 0 < common < rare


def test_a_model_is_trained_and_measures_documents(tmp_path: Path, cluster: Cluster) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("reference.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in prose()).encode())
    manifest, model = train_ngram_model(StageRunner(store, cluster), SETTINGS)
    report = json.loads(store.read_bytes(f"{manifest.folder}/report.json"))
    assert report["heldout_passages"] > 0
    assert 10 < report["heldout_perplexity"] < 5000
    assert 0 < report["heldout_bits_per_byte"] < 8
    natural = prose()[3]
    shuffled = " ".join(sorted(natural.split()))
    table = perplexity([natural, shuffled, natural], ["en", "en", "de"], PerplexitySettings(models=(model,)))
    first, second, third = table["perplexity"].to_pylist()
    assert first < second
    assert third is None
    assert train_ngram_model(StageRunner(store, cluster), SETTINGS) == (manifest, model)


def test_nothing_to_learn_from_is_said(tmp_path: Path, cluster: Cluster) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("reference.jsonl", b'{"text": "too short"}\n')
    with pytest.raises(BadInput, match="no passage to learn from"):
        train_ngram_model(StageRunner(store, cluster), SETTINGS)
