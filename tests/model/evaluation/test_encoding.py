"""How contexts and continuations become tokens."""

from typing import Any

import pytest

from infra.manifest import DatasetManifest
from infra.store import Store
from infra.vocabulary import Vocabulary, load_vocabulary
from model.evaluation.encoding import PromptEncoder

END = 2


@pytest.fixture
def vocabulary(store: Store, dataset: DatasetManifest) -> Vocabulary:
    return load_vocabulary(store, dataset.tokenizer)


def test_every_context_begins_after_an_end_of_document(vocabulary: Vocabulary) -> None:
    encoder = PromptEncoder(vocabulary, END)
    ids = vocabulary.encode(["def f"])[0].tolist()
    assert encoder.encode("def f") == [END, *ids]
    assert encoder.encode("def f", begins=False) == ids
    assert encoder.encode_contexts(["def f", "", "def f"]) == [(END, *ids), (END,), (END, *ids)]
    assert encoder.encode_pairs([("", "def f")]) == [((END,), tuple(ids))]


@pytest.mark.parametrize(
    "pair", [("import ", "sys"), ("import", " sys"), ("a\n\n", "def f(x):"), (" ", "x"), ("x", "")]
)
def test_spaces_at_the_border_belong_to_the_continuation(vocabulary: Vocabulary, pair: tuple[str, str]) -> None:
    ((context, continuation),) = PromptEncoder(vocabulary, END).encode_pairs([pair])
    assert list(context) == [END, *vocabulary.encode([pair[0].rstrip()])[0].tolist()]
    assert [*context, *continuation] == [END, *vocabulary.encode(["".join(pair)])[0].tolist()]


class Joining:
    """A tokenizer with tokens for a, b, c, "ab" and "abc"."""

    size = 9

    def encode(self, texts: Any) -> list[Any]:
        import numpy as np

        names = {"abc": 8, "ab": 7, "a": 4, "b": 5, "c": 6}
        found = []
        for text in texts:
            ids = []
            while text:
                name = next(each for each in names if text.startswith(each))
                ids.append(names[name])
                text = text[len(name) :]
            found.append(np.array(ids, np.uint32))
        return found

    def decode(self, ids: Any) -> str:
        return ""


def test_tokens_that_join_across_the_border_leave_a_continuation() -> None:
    encoder = PromptEncoder(Joining(), END)
    assert encoder.encode_pairs([("b", "a"), ("ab", "c"), ("a", "b"), ("aab", "c")]) == [
        ((END, 5), (4,)),
        ((END,), (8,)),
        ((END,), (7,)),
        ((END, 4), (8,)),
    ]
