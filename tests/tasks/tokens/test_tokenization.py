"""Token shards: their rows, their order, their counters, and how well a vocabulary fits."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest

from infra.cluster import Cluster, open_cluster
from infra.environment import Environment
from infra.manifest import StageManifest, TokenizerRecord
from infra.store import Store
from infra.vocabulary import load_vocabulary
from tasks.heldout import HeldoutSettings, is_heldout
from tasks.stage import StageRunner
from tasks.tokens.tokenization import TokenizationSettings, Tokenize, fertility, tokenization
from tasks.tokens.tokenizer import TokenizerSettings, train_tokenizer
from tasks.tokens.tokenizer_import import ExistingSettings
from tests.tasks.documents import prose, tree
from tests.tasks.tokenizer_files import (
    Row,
    documents,
    huggingface_file,
    sentencepiece_file,
    tiktoken_file,
    write_corpus,
)

JAPANESE = "水車小屋は川のほとりに立っています。粉屋は長い間そこで働いてきました。"
HELDOUT = HeldoutSettings(fraction=0.2)
ROWS = [
    *(Row(text, bucket="high") for text in prose()),
    *(Row(f"{JAPANESE}{n}", "ja", "web:日本") for n in range(9)),
    Row("?", None),
    Row("", None),
]
FILES = {"sentencepiece": sentencepiece_file, "huggingface": huggingface_file, "tiktoken": tiktoken_file}


def tokenized(
    root: Path, cluster: Cluster, kind: str, shards: int = 2, rows_a_batch: int = 7
) -> tuple[TokenizerRecord, StageManifest]:
    """The corpus tokenized by a tokenizer of some kind."""
    root.mkdir(exist_ok=True)
    (root / "given").write_bytes(FILES[kind]())
    runner = StageRunner(Store(str(root)), cluster)
    step = -(-len(ROWS) // shards)
    parent = write_corpus(runner, [ROWS[start : start + step] for start in range(0, len(ROWS), step)], rows_a_batch)
    existing = ExistingSettings(end_of_document="</s>", pattern="gpt2", special_tokens={"</s>": 700})
    settings = TokenizerSettings(path=str(root / "given"), existing=existing)
    _, record = train_tokenizer(runner, parent, settings, HELDOUT)
    return record, tokenization(runner, parent, record, HELDOUT)


def rows(root: Path, manifest: StageManifest, output: str) -> pa.Table:
    files = [shard.kept if output == "kept" else shard.others[output] for shard in manifest.shards]
    return pa.concat_tables([Store(str(root)).read_table(f"{manifest.folder}/{file.path}") for file in files])


@pytest.mark.parametrize("kind", FILES)
def test_rows_are_the_documents_in_order(tmp_path: Path, cluster: Cluster, kind: str) -> None:
    record, manifest = tokenized(tmp_path, cluster, kind)
    vocabulary = load_vocabulary(Store(str(tmp_path)), record)
    for output, held in (("kept", False), ("heldout", True)):
        expected = documents([row for row in ROWS if is_heldout(row.text, HELDOUT) == held])
        found = rows(tmp_path, manifest, output)
        assert found["doc_id"].to_pylist() == expected["id"].to_pylist()
        for column in ("source", "language", "bucket"):
            assert found[column].to_pylist() == expected[column].to_pylist()
        tokens = found["tokens"].to_pylist()
        assert [vocabulary.decode(ids[:-1]) for ids in tokens] == expected["text"].to_pylist()
        assert {ids[-1] for ids in tokens} == {record.end_of_document}
        assert not {each for ids in tokens for each in ids[:-1]} & set(record.control.values())


@pytest.mark.parametrize("kind", FILES)
def test_workers_change_no_byte_and_shards_no_row(tmp_path: Path, cluster: Cluster, kind: str) -> None:
    first = tokenized(tmp_path / "two", cluster, kind)[1]
    with open_cluster(Environment(workers=1)) as one:
        tokenized(tmp_path / "one", one, kind)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    other = tokenized(tmp_path / "two", cluster, kind, shards=5, rows_a_batch=3)[1]
    for output in ("kept", "heldout"):
        assert rows(tmp_path / "two", first, output).equals(rows(tmp_path / "two", other, output))
    assert first.total("counters") == other.total("counters")


def test_counters_add_up(tmp_path: Path, cluster: Cluster) -> None:
    _, manifest = tokenized(tmp_path, cluster, "sentencepiece")
    counters = manifest.total("counters")
    for measure in ("tokens", "text_bytes"):
        total = counters[f"{measure}_train"] + counters[f"{measure}_heldout"]
        for group in ("language", "source"):
            parts = [count for key, count in counters.items() if key.startswith(f"{measure}:{group}:")]
            assert sum(parts) == total
    assert counters["tokens_heldout"] == len(rows(tmp_path, manifest, "heldout")["tokens"].combine_chunks().flatten())
    assert counters["documents:language:ja"] == counters["documents:source:web:日本"] == 9
    assert counters["documents:language:und"] == 2


def test_fertility_is_told_by_words_or_by_characters(tmp_path: Path, cluster: Cluster) -> None:
    record, manifest = tokenized(tmp_path, cluster, "sentencepiece")
    found = {(row.group, row.name): row for row in fertility(manifest)}
    assert next(iter(found)) == ("language", "en")
    assert {name for group, name in found if group == "source"} == {"crawl", "web:日本"}
    japanese, english = found["language", "ja"], found["language", "en"]
    vocabulary = load_vocabulary(Store(str(tmp_path)), record)
    texts = [row.text for row in ROWS if row.language == "ja"]
    tokens = sum(map(len, vocabulary.encode(texts)))
    assert japanese.tokens == tokens + 9
    assert japanese.tokens_per_word is None
    assert japanese.tokens_per_character == tokens / sum(map(len, texts))
    assert japanese.bytes_per_token == sum(len(text.encode()) for text in texts) / tokens
    assert english.tokens_per_word is not None
    assert 1 < english.tokens_per_word < 4
    assert english.tokens_per_character < 1 < japanese.tokens_per_character
    assert found["language", "und"].tokens_per_word is None, "a question mark is no word"


def test_words_are_letters_and_digits_of_any_script(tmp_path: Path) -> None:
    store, data = Store(str(tmp_path)), sentencepiece_file()
    store.write_bytes("t", data)
    digest = hashlib.sha256(data).hexdigest()
    record = TokenizerRecord(path="t", sha256=digest, vocabulary_size=600, end_of_document=2, pad=3)
    settings = TokenizationSettings(heldout=HELDOUT, tokenizer=record)
    words = {"en": "Don\u2019t stop the 3 mills -- it's naïve, e\u0301te!", "ru": "Мельница на реке", "th": "ไทย ดี"}
    table = documents([Row(text, code) for code, text in words.items()])
    counters = Tokenize(store)(table, settings).counters
    assert [counters[f"words:language:{code}"] for code in words] == [8, 3, 2]
    assert [counters[f"unspaced:language:{code}"] for code in words] == [0, 0, 5]
    assert Tokenize(store)(table.slice(0, 0), settings).kept.num_rows == 0
