"""Ids of an exported tokenizer.json are those of training, for every format and on thousands of texts."""

import gzip
import io
import itertools
import json
import random
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Tokenizer

from infra.errors import BadInput
from infra.fast_tokenizer import ruby_pattern, sentencepiece_facts, tokenizer_json
from infra.vocabulary import Kind, Vocabulary, declared_tokens, kind_of, open_vocabulary, read_ranks
from tasks.tokens.tokenizer import TokenizerSettings, learn
from tasks.tokens.tokenizer_import import pattern_named
from tests.tasks.documents import prose
from tests.tasks.tokenizer_files import CONTROL, huggingface_file, tiktoken_file

DATA = Path(__file__).parents[2] / "../shared/data"
ALPHABETS = ("a ", "ab ", "-= ", ".\n ", "é水a\0", "ao#  ", "<>/s0xA", "🏭👩\u200d🔬\u0301e")


@lru_cache(maxsize=1)
def real_texts() -> tuple[str, ...]:
    """Some thousand texts: sentences of 75 languages, and documents of code, prose and tables."""
    if not DATA.exists():
        pytest.skip(f"{DATA} is not there")
    found: list[str] = []
    for path in sorted((DATA / "langid/sentences").glob("*.gz")):
        with gzip.open(path, "rt") as sentences:
            found += itertools.islice((line.rstrip("\n") for line in sentences), 50)
    for name in ("peps", "books"):
        with gzip.open(DATA / f"text/{name}.jsonl.gz", "rt") as lines:
            documents = [json.loads(line)["text"] for line in itertools.islice(lines, 12)]
        found += [text[start : start + 1500] for text in documents for start in range(0, min(len(text), 60_000), 1500)]
    return tuple(found)


@lru_cache(maxsize=1)
def made_up_texts() -> tuple[str, ...]:
    draw = random.Random(1)
    made = ("".join(draw.choices(letters, k=draw.randrange(60))) for letters in ALPHABETS for _ in range(200))
    return ("", " ", "  ", "\u2581", "<0x0A>", "</s><s>", "a<|im_start|>b", *made)


def trained(lines: list[str], **options: Any) -> bytes:
    model = io.BytesIO()
    trainer: Any = sentencepiece.SentencePieceTrainer
    trainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=4000, minloglevel=2, num_threads=1, **options
    )
    return model.getvalue()


def both(data: bytes, pattern: str | None = None) -> tuple[Vocabulary, Tokenizer]:
    kind: Kind | None = kind_of(data)
    assert kind is not None
    if kind == "tiktoken":
        control = {token: len(read_ranks(data)) + 5 + 2 * n for n, token in enumerate(CONTROL)}
    else:
        control = {token.text: token.id for token in declared_tokens(data, kind) if token.marked}
    exported = Tokenizer.from_str(json.dumps(tokenizer_json(data, kind, control, pattern)))
    for text, number in control.items():
        assert exported.token_to_id(text) == number
    exported.encode_special_tokens = True
    return open_vocabulary(data, kind, control, pattern), exported


def differing(vocabulary: Vocabulary, exported: Tokenizer, texts: tuple[str, ...]) -> list[tuple[list[int], list[int]]]:
    ours = [ids.tolist() for ids in vocabulary.encode(texts)]
    theirs = [each.ids for each in exported.encode_batch(list(texts))]
    return [(one, other) for one, other in zip(ours, theirs, strict=True) if one != other]


def lines() -> list[str]:
    return [line for text in real_texts()[::3] for line in text.split("\n")]


def test_byte_pairs_as_learned_here() -> None:
    texts = real_texts()
    vocabulary, exported = both(learn(iter(lines()), TokenizerSettings(vocabulary_size=8000)))
    assert len(texts) > 4000
    assert not differing(vocabulary, exported, texts)
    assert not differing(vocabulary, exported, made_up_texts())
    for text in (*texts[::10], *made_up_texts()):
        if "\u2581" not in text:
            assert exported.decode(exported.encode(text).ids) == text


def test_a_unigram_model_differs_in_ties_only() -> None:
    texts = real_texts()
    settings = TokenizerSettings(vocabulary_size=8000, algorithm="unigram")
    vocabulary, exported = both(learn(iter(lines()), settings))
    different = differing(vocabulary, exported, texts)
    different += differing(vocabulary, exported, tuple(text for text in made_up_texts() if "|" not in text))
    assert len(different) < 0.01 * len(texts)
    # The same pieces in another order: their scores are equal but for the rounding of float32.
    assert all(Counter(one) == Counter(other) for one, other in different)


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False},
        {"byte_fallback": True, "user_defined_symbols": ["<turn>", "mill"]},
    ],
)
def test_models_of_others(algorithm: str, options: dict[str, Any]) -> None:
    vocabulary, exported = both(trained(lines()[::2], model_type=algorithm, **options))
    different = differing(vocabulary, exported, real_texts()[::4])
    assert len(different) <= 0.002 * len(real_texts()) / 4 + 1


def test_other_kinds_of_sentencepiece_models_are_refused() -> None:
    data = trained(list(prose()), model_type="char", max_sentence_length=100_000, hard_vocab_limit=False)
    assert sentencepiece_facts(data).model_type == 4
    with pytest.raises(BadInput, match="bpe or unigram"):
        tokenizer_json(data, "sentencepiece", {})


def test_a_tokenizer_json_stays_what_it_is_but_adds_nothing() -> None:
    vocabulary, exported = both(huggingface_file())
    assert not differing(vocabulary, exported, (*prose(), *made_up_texts()))
    assert exported.encode("").ids == []
    kept = tokenizer_json(huggingface_file(), "huggingface", {})
    assert kept["model"] == json.loads(huggingface_file())["model"]


@pytest.mark.parametrize("name", ["gpt2", "cl100k", "o200k"])
def test_ranks_of_tiktoken(name: str) -> None:
    vocabulary, exported = both(tiktoken_file(), pattern_named(name))
    # tiktoken finds a control token only where it is told to
    assert not differing(vocabulary, exported, (*prose(), *made_up_texts(), *real_texts()[::5]))
    assert exported.decode(exported.encode("The mill  \n\n 水 1234567'll").ids) == "The mill  \n\n 水 1234567'll"


def test_expressions_mean_to_oniguruma_what_they_mean_to_tiktoken() -> None:
    assert ruby_pattern(r"\s++$|[$a]{2}|\p{N}{1,3}+|\$x") == r"\s++\z|[$a]{2}|\p{N}{1,3}|\$x"
