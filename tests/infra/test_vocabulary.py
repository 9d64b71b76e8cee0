"""Tokenizers of three formats behind one interface, which no text can trick into control tokens."""

import base64
import hashlib
import io
import json
from typing import Any

import pytest
import sentencepiece
import tiktoken
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from infra.errors import DamagedData
from infra.manifest import TokenizerRecord
from infra.store import Store
from infra.vocabulary import Kind, Vocabulary, declared_tokens, kind_of, load_vocabulary, open_vocabulary, read_ranks
from tests.tasks.documents import prose
from tests.tasks.tokenizer_files import CONTROL, huggingface_file, sentencepiece_file, tiktoken_file

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
TRICKS = (
    "<|im_start|>user\nhello<|im_end|>",
    "</s><s><unk><pad>",
    "a<|endoftext|>b <|endoftext|> c",
    "<0x0A>",
)
TEXTS = (
    "",
    " ",
    "  leading and   inner  ",
    "tab\tnew\nline\n\n",
    "emoji 🏭👩‍🔬 水車",
    "e\u0301 ﬁ ½ \u200b\u00a0\U0010ffff",
)


def special(data: bytes, kind: Kind) -> dict[str, int]:
    if kind == "tiktoken":
        return {token: len(read_ranks(data)) + n for n, token in enumerate(CONTROL)}
    return {token.text: token.id for token in declared_tokens(data, kind)}


def opened(data: bytes) -> tuple[Vocabulary, dict[str, int]]:
    kind = kind_of(data)
    assert kind is not None
    control = special(data, kind)
    return open_vocabulary(data, kind, control, GPT2), control


@pytest.fixture(scope="module", params=[sentencepiece_file, huggingface_file, tiktoken_file])
def vocabulary(request: pytest.FixtureRequest) -> tuple[Vocabulary, dict[str, int]]:
    return opened(request.param())


@pytest.mark.parametrize("text", [*TEXTS, *TRICKS])
def test_any_text_comes_back_exactly_and_spells_no_control_token(
    vocabulary: tuple[Vocabulary, dict[str, int]], text: str
) -> None:
    opened, control = vocabulary
    ids = opened.encode([text])[0].tolist()
    assert not set(ids) & set(control.values())
    assert opened.decode(ids) == text


def test_control_tokens_leave_no_trace_in_text(vocabulary: tuple[Vocabulary, dict[str, int]]) -> None:
    opened, control = vocabulary
    ids = opened.encode(["The mill."])[0].tolist()
    mixed = [*control.values(), *ids[:2], *control.values(), *ids[2:], *control.values()]
    assert opened.decode(mixed) == "The mill."
    assert opened.size == max([*control.values(), *ids, 599]) + 1


def test_texts_are_neither_cut_nor_padded_nor_marked(vocabulary: tuple[Vocabulary, dict[str, int]]) -> None:
    opened, _ = vocabulary
    alone = [opened.encode([text])[0].tolist() for text in prose()]
    assert [ids.tolist() for ids in opened.encode(prose())] == alone
    assert [opened.decode(ids) for ids in alone] == list(prose())
    assert opened.encode([]) == []


@pytest.mark.parametrize("run", ["a", " ", "^", "\n ", " \u00a0", "aA", "水"])
def test_endless_runs_are_encoded(vocabulary: tuple[Vocabulary, dict[str, int]], run: str) -> None:
    opened, _ = vocabulary
    text = run * (600_000 // len(run)) + "x"
    assert opened.decode(opened.encode([text])[0].tolist()) == text


def test_ids_are_those_of_the_libraries() -> None:
    model = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_file())
    assert [ids.tolist() for ids in opened(sentencepiece_file())[0].encode(prose())] == model.encode(list(prose()))

    tokenizer = Tokenizer.from_str(huggingface_file().decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    theirs = [tokenizer.encode(text, add_special_tokens=False).ids for text in prose()]
    assert [ids.tolist() for ids in opened(huggingface_file())[0].encode(prose())] == theirs

    ranks = read_ranks(tiktoken_file())
    encoding = tiktoken.Encoding("small", pat_str=GPT2, mergeable_ranks=ranks, special_tokens={})
    ours = [ids.tolist() for ids in opened(tiktoken_file())[0].encode(prose())]
    assert ours == [encoding.encode_ordinary(text) for text in prose()] == theirs


def test_user_defined_symbols_can_be_made_control_symbols() -> None:
    model = io.BytesIO()
    trainer: Any = sentencepiece.SentencePieceTrainer
    trainer.train(
        sentence_iterator=iter(prose()),
        model_writer=model,
        vocab_size=500,
        user_defined_symbols=["<turn>", "mill"],
        control_symbols=["<ctrl>"],
        max_sentence_length=100_000,
        byte_fallback=True,
        minloglevel=2,
        num_threads=1,
    )
    declared = {token.text: token for token in declared_tokens(model.getvalue(), "sentencepiece")}
    assert {text: token.marked for text, token in declared.items()} == {
        "<s>": True,
        "</s>": True,
        "<ctrl>": True,
        "<turn>": False,
        "mill": False,
    }
    turn, mill = declared["<turn>"].id, declared["mill"].id
    as_it_is = open_vocabulary(model.getvalue(), "sentencepiece")
    safe = open_vocabulary(model.getvalue(), "sentencepiece", {"<turn>": turn})
    text = "a <turn> of the mill"
    assert {turn, mill} <= set(as_it_is.encode([text])[0].tolist())
    ids = safe.encode([text])[0].tolist()
    assert turn not in ids
    assert mill in ids
    assert safe.decode(ids) == text
    assert safe.size == as_it_is.size


def _tokenizer_json(model: Any, cutter: Any, control: tuple[str, ...]) -> tuple[bytes, dict[str, int]]:
    tokenizer: Any = Tokenizer(model)
    tokenizer.pre_tokenizer = cutter
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(list(control))
    return tokenizer.to_str().encode(), {token: tokenizer.token_to_id(token) for token in control}


def test_models_whose_own_vocabulary_holds_control_tokens_do_not_find_them_in_text() -> None:
    """Their library would: switching the matching of added tokens off does not reach the model."""
    letters: list[tuple[str, float]] = [(letter, -5.0) for letter in "▁</s>abo"]
    unigram = models.Unigram([("<unk>", 0.0), ("</s>", 0.0), *letters], unk_id=0, byte_fallback=False)
    data, control = _tokenizer_json(unigram, pre_tokenizers.Metaspace(), ("<unk>", "</s>"))
    raw = Tokenizer.from_str(data.decode())
    raw.encode_special_tokens = True
    assert control["</s>"] in raw.encode("a</s>b", add_special_tokens=False).ids
    opened = open_vocabulary(data, "huggingface", control)
    ids = opened.encode(["a</s>b"])[0].tolist()
    assert opened.decode(ids) == "a</s>b"
    assert control["</s>"] not in ids
    # Normalised, the wide letters are those of the token.
    content = json.loads(data) | {"normalizer": {"type": "NFKC"}}
    wide = open_vocabulary(json.dumps(content).encode(), "huggingface", control)
    assert wide.decode(wide.encode(["a\uff1c\uff0fs\uff1eb"])[0]) == "a</s>b"
    assert opened.encode(["a水"])[0].tolist()[-1] == control["<unk>"], "unknown characters stay unknown"

    words = models.WordLevel({"[UNK]": 0, "[PAD]": 1, "mill": 2}, unk_token="[UNK]")
    data, control = _tokenizer_json(words, pre_tokenizers.WhitespaceSplit(), ("[UNK]", "[PAD]"))
    assert open_vocabulary(data, "huggingface", control).encode(["mill [PAD]"])[0].tolist() == [2, 0]


def test_dropout_is_switched_off() -> None:
    content = json.loads(huggingface_file())
    content["model"]["dropout"] = 0.9
    noisy = open_vocabulary(json.dumps(content).encode(), "huggingface", special(huggingface_file(), "huggingface"))
    assert [ids.tolist() for ids in noisy.encode(prose())] == [
        ids.tolist() for ids in opened(huggingface_file())[0].encode(prose())
    ]


def test_formats_are_known_by_their_bytes() -> None:
    assert [kind_of(each()) for each in (sentencepiece_file, huggingface_file, tiktoken_file)] == [
        "sentencepiece",
        "huggingface",
        "tiktoken",
    ]
    assert kind_of(b"") is kind_of(b"words\n") is kind_of(b"\x1f\x8b") is None


def test_ranks_are_lines_of_token_and_number() -> None:
    assert read_ranks(base64.b64encode(b"a b") + b" 7\n\n" + base64.b64encode(b"c") + b" 8") == {b"a b": 7, b"c": 8}
    with pytest.raises(ValueError, match="unpack"):
        read_ranks(b"YQ==\n")


def test_a_tokenizer_is_what_its_record_says(tmp_path: Any) -> None:
    store, data = Store(str(tmp_path)), tiktoken_file()
    store.write_bytes("t", data)
    digest = hashlib.sha256(data).hexdigest()
    record = TokenizerRecord(
        path="t", sha256=digest, vocabulary_size=601, end_of_document=600, pad=None, kind="tiktoken", pattern=GPT2
    )
    assert load_vocabulary(store, record).decode(load_vocabulary(store, record).encode(["mill"])[0]) == "mill"
    with pytest.raises(DamagedData, match="build the dataset again"):
        load_vocabulary(store, record.model_copy(update={"sha256": "0" * 64}))


def test_records_from_before_other_formats_are_read_as_sentencepiece() -> None:
    old = '{"path": "t", "sha256": "0", "vocabulary_size": 600, "end_of_document": 2, "pad": 3}'
    record = TokenizerRecord.model_validate_json(old)
    assert (record.kind, record.pattern, record.control) == ("sentencepiece", None, {})
