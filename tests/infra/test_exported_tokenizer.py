"""Tokenizer files as transformers reads them."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from infra.errors import RunFailed
from infra.exported_tokenizer import check_ids, tokenizer_files
from infra.manifest import TokenizerRecord
from infra.store import Store
from infra.vocabulary import open_vocabulary
from tasks.tokens.tokenizer_import import ExistingSettings, import_tokenizer
from tests.tasks.documents import prose
from tests.tasks.tokenizer_files import huggingface_file, sentencepiece_file, tiktoken_file

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import AutoTokenizer

EXISTING = ExistingSettings(end_of_document="</s>", pattern="gpt2", special_tokens={"</s>": 700, "<pad>": 701})
TEXTS = (*prose(), "", " ", "  two\n\n\tlines 水 🏭", "x <0x0A> y")


@pytest.fixture(params=[sentencepiece_file, huggingface_file, tiktoken_file])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[bytes, TokenizerRecord]:
    data = request.param()
    (tmp_path / "given").write_bytes(data)
    return data, import_tokenizer(str(tmp_path / "given"), EXISTING).record


def opened(data: bytes, record: TokenizerRecord, folder: Path) -> Any:
    store = Store(str(folder))
    for name, content in tokenizer_files(data, record, 64).items():
        store.write_bytes(name, content)
    return AutoTokenizer.from_pretrained(folder)


def test_transformers_reads_the_ids_of_training(tokenizer: tuple[bytes, TokenizerRecord], tmp_path: Path) -> None:
    data, record = tokenizer
    theirs = opened(data, record, tmp_path / "out")
    ours = open_vocabulary(data, record.kind, record.control, record.pattern)
    assert theirs(list(TEXTS), truncation=False)["input_ids"] == [ids.tolist() for ids in ours.encode(TEXTS)]
    assert [theirs.decode(theirs(text)["input_ids"]) for text in TEXTS] == list(TEXTS)
    assert (theirs.eos_token_id, theirs.bos_token_id) == (record.end_of_document, record.end_of_document)
    assert theirs.pad_token_id == (record.end_of_document if record.pad is None else record.pad)
    assert theirs.model_max_length == 64
    for text, number in record.control.items():
        assert theirs.convert_tokens_to_ids(text) == number
        assert number in theirs(f"a{text}b")["input_ids"], "in a chat, control tokens are found"
        assert number not in theirs(f"a{text}b", split_special_tokens=True)["input_ids"]


def test_a_sentencepiece_model_comes_along(tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(sentencepiece_file())
    record = import_tokenizer(str(tmp_path / "given"), ExistingSettings()).record
    files = tokenizer_files(sentencepiece_file(), record, 64)
    assert files["tokenizer.model"] == sentencepiece_file()
    processor = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_file())
    vocabulary = json.loads(files["tokenizer.json"])["model"]["vocab"]
    assert vocabulary == {processor.id_to_piece(number): number for number in range(processor.vocab_size())}


def test_other_ids_are_noticed(tokenizer: tuple[bytes, TokenizerRecord]) -> None:
    data, record = tokenizer
    content = tokenizer_files(data, record, 64)["tokenizer.json"]
    assert check_ids(data, record, content, TEXTS) == 0
    changed = json.loads(content)
    changed["model"]["merges"] = changed["model"]["merges"][:10]
    changed["model"]["ignore_merges"] = False
    with pytest.raises(RunFailed, match="other ids"):
        check_ids(data, record, json.dumps(changed).encode(), TEXTS)
