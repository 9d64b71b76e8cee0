"""Existing tokenizers: what is found out about their files, and what is refused."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInput
from infra.manifest import TokenizerRecord
from infra.vocabulary import open_vocabulary
from tasks.tokens.tokenizer_import import ExistingSettings, import_tokenizer, pattern_named, tiktoken_encoding
from tests.tasks.documents import prose
from tests.tasks.tokenizer_files import CONTROL, huggingface_file, sentencepiece_file, tiktoken_file

DEFAULT = ExistingSettings()
SPECIAL = {token: 600 + n for n, token in enumerate(("<|endoftext|>", "<|im_start|>"))}
RANKS = ExistingSettings(pattern="gpt2", special_tokens=SPECIAL)


def imported(folder: Path, data: bytes, settings: ExistingSettings = DEFAULT) -> TokenizerRecord:
    """The record of a file, read under a name that says nothing."""
    path = folder / "file"
    path.write_bytes(data)
    file = import_tokenizer(str(path), settings)
    assert file.data == data
    assert file.record.sha256 == hashlib.sha256(data).hexdigest()
    return file.record


def changed(change: Callable[[dict[str, Any]], None]) -> bytes:
    """The tokenizer.json with something else in it."""
    content = json.loads(huggingface_file())
    change(content)
    return json.dumps(content).encode()


def test_a_sentencepiece_model_says_all(tmp_path: Path) -> None:
    record = imported(tmp_path, sentencepiece_file())
    assert (record.path, record.kind, record.vocabulary_size) == ("tokenizer.model", "sentencepiece", 600)
    assert (record.end_of_document, record.pad) == (2, 3)
    assert set(record.control) == {"<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"}


def test_a_tokenizer_json_names_its_tokens(tmp_path: Path) -> None:
    settings = ExistingSettings(end_of_document="<|endoftext|>")
    record = imported(tmp_path, huggingface_file(), settings)
    assert (record.path, record.kind, record.vocabulary_size) == ("tokenizer.json", "huggingface", 604)
    assert record.control == {token: 600 + n for n, token in enumerate(CONTROL)}
    assert (record.end_of_document, record.pad) == (600, 603)


def test_ranks_are_completed_by_settings(tmp_path: Path) -> None:
    record = imported(tmp_path, tiktoken_file(), RANKS)
    assert (record.path, record.kind, record.vocabulary_size) == ("tokenizer.tiktoken", "tiktoken", 602)
    assert (record.end_of_document, record.pad, record.control) == (600, None, SPECIAL)
    assert record.pattern == pattern_named("gpt2")


def test_what_has_two_readings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has <\|endoftext\|> and </s>: .*Set tokenizer\.existing\.end_of_document"):
        imported(tmp_path, huggingface_file())
    with pytest.raises(BadInput, match=r"has 600 ranks.*Set tokenizer\.existing\.pattern"):
        imported(tmp_path, tiktoken_file())
    with pytest.raises(BadInput, match=r"600 ranks"):
        imported(tmp_path, tiktoken_file(), ExistingSettings(special_tokens=SPECIAL))


def test_a_missing_end_is_refused_with_what_there_is(tmp_path: Path) -> None:
    settings = RANKS.model_copy(update={"special_tokens": {"<|stop|>": 600}})
    with pytest.raises(BadInput, match=r"no token that it ends a document.*control tokens are <\|stop\|>"):
        imported(tmp_path, tiktoken_file(), settings)
    named = settings.model_copy(update={"end_of_document": "<|stop|>"})
    assert imported(tmp_path, tiktoken_file(), named).end_of_document == 600
    wrong = settings.model_copy(update={"end_of_document": "</s>"})
    with pytest.raises(BadInput, match=r"end_of_document='</s>'.*declares: <\|stop\|>"):
        imported(tmp_path, tiktoken_file(), wrong)


def test_special_tokens_have_ids_of_their_own(tmp_path: Path) -> None:
    settings = RANKS.model_copy(update={"special_tokens": {"<|endoftext|>": 599}})
    with pytest.raises(BadInput, match="Number special tokens from 600 on"):
        imported(tmp_path, tiktoken_file(), settings)


def _unmarked(content: dict[str, Any]) -> None:
    content["added_tokens"] = [each | {"special": False} for each in content["added_tokens"]]
    content["added_tokens"].append(content["added_tokens"][0] | {"id": 604, "content": "  mill"})


def test_tokens_that_look_like_control_tokens_are(tmp_path: Path) -> None:
    settings = ExistingSettings(end_of_document="<|endoftext|>")
    record = imported(tmp_path, changed(_unmarked), settings)
    assert record.control == {token: 600 + n for n, token in enumerate(CONTROL)}
    vocabulary = open_vocabulary(changed(_unmarked), "huggingface", record.control)
    assert vocabulary.encode(["a  mill</s>"])[0].tolist().count(604) == 1
    assert vocabulary.decode(vocabulary.encode(["a  mill</s>"])[0]) == "a  mill</s>"


def test_marks_decide_where_shapes_are_not_asked_for(tmp_path: Path) -> None:
    settings = ExistingSettings(end_of_document="</s>", control_shape=None)
    record = imported(tmp_path, changed(_unmarked), settings)
    assert record.control == {"</s>": 602}, "the end of a document is always one"
    assert record.pad is None


def test_a_token_that_text_can_spell_cannot_end_documents(tmp_path: Path) -> None:
    vocabulary = json.loads(huggingface_file())["model"]["vocab"]
    word = max((token for token in vocabulary if token.isascii() and token.isalpha()), key=len)

    def learned(content: dict[str, Any]) -> None:
        content["added_tokens"].append(content["added_tokens"][0] | {"id": vocabulary[word], "content": word})

    with pytest.raises(BadInput, match="to a control token: no text may end a document"):
        imported(tmp_path, changed(learned), ExistingSettings(end_of_document="<|endoftext|>"))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "none of the three"),
        (b"just words\n", "none of the three"),
        (b'{"a": 1}', "KeyError|model|Error"),
        (b"{", "Expecting property name"),
        (b"\x0a\x05abcde", "arse"),
        (b"YQ== 0\nY*== 1\n", "base64|Only"),
        (b"YQ== 0\nnothing\n", "unpack"),
    ],
)
def test_files_that_are_no_tokenizer_are_refused(tmp_path: Path, data: bytes, why: str) -> None:
    with pytest.raises(BadInput, match=rf"(?s)tokenizer\.path=.*({why}).*sentencepiece model, a tokenizer\.json"):
        imported(tmp_path, data)


def test_a_bad_pattern_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"tokenizer\.path="):
        imported(tmp_path, tiktoken_file(), RANKS.model_copy(update={"pattern": "(["}))
    with pytest.raises(BadInput, match="readable file"):
        import_tokenizer(str(tmp_path / "nothing"), ExistingSettings())


def test_a_tokenizer_that_normalises_is_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = ExistingSettings(end_of_document="</s>")
    with caplog.at_level("WARNING", "tasks"):
        imported(tmp_path, huggingface_file(), settings)
        assert not caplog.text
        imported(tmp_path, changed(lambda content: content.update(normalizer={"type": "Lowercase"})), settings)
    assert "normalises text" in caplog.text


def test_published_encodings_are_known_by_their_size() -> None:
    known = {ranks: tiktoken_encoding(ranks) for ranks in (50_256, 50_280, 100_256, 199_998, 128_000)}
    ends = [None if each is None else each.special_tokens["<|endoftext|>"] for each in known.values()]
    assert ends == [50_256, 50_256, 100_257, 199_999, None]
    assert pattern_named(r"\w+") == r"\w+"


@pytest.mark.parametrize("name", ["gpt2", "cl100k", "o200k"])
def test_published_patterns_are_expressions_that_cut_all_of_a_text(tmp_path: Path, name: str) -> None:
    record = imported(tmp_path, tiktoken_file(), RANKS.model_copy(update={"pattern": name}))
    assert record.pattern is not None
    vocabulary = open_vocabulary(tiktoken_file(), "tiktoken", SPECIAL, record.pattern)
    assert [vocabulary.decode(ids) for ids in vocabulary.encode(prose())] == list(prose())
