"""Tokenizers in each of the three formats, learned from prose, and documents as the stages before them leave them."""

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from infra.manifest import StageManifest
from infra.schema import DOCUMENTS
from infra.settings import Settings
from infra.store import Store
from tasks.stage import Split, Stage, StageRunner, conform
from tasks.tokens.tokenizer import TokenizerSettings, learn
from tests.tasks.documents import prose

CONTROL = ("<|endoftext|>", "<|im_start|>", "</s>", "<pad>")


@lru_cache(maxsize=1)
def sentencepiece_file() -> bytes:
    """A model as this project learns it."""
    return learn(iter(line for text in prose() for line in text.split("\n")), TokenizerSettings(vocabulary_size=600))


@lru_cache(maxsize=1)
def huggingface_file() -> bytes:
    """A byte-level BPE tokenizer.json that would cut, pad, and put a token in front of each text."""
    tokenizer = _byte_level()
    tokenizer.add_special_tokens(list(CONTROL))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8, pad_id=tokenizer.token_to_id("<pad>"), pad_token="<pad>")
    content = json.loads(tokenizer.to_str())
    begin = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<|im_start|>": {
                "id": "<|im_start|>",
                "ids": [tokenizer.token_to_id("<|im_start|>")],
                "tokens": ["<|im_start|>"],
            }
        },
    }
    return json.dumps(content).encode()


@lru_cache(maxsize=1)
def tiktoken_file() -> bytes:
    """The merges of the tokenizer.json as ranks: the same tokens under the same ids."""
    letters = _letters()
    ranks = sorted(_byte_level().get_vocab().items(), key=lambda item: item[1])
    lines = [base64.b64encode(bytes(letters[each] for each in token)) + b" %d\n" % rank for token, rank in ranks]
    return b"".join(lines)


def _byte_level() -> Any:
    return Tokenizer.from_str(_byte_level_json())


@lru_cache(maxsize=1)
def _byte_level_json() -> str:
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(prose(), trainer)
    return tokenizer.to_str()


def _letters() -> dict[str, int]:
    """The byte that each letter of a byte-level tokenizer stands for: itself where it can be printed."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + n): byte for n, byte in enumerate(others)}


class Row(NamedTuple):
    """What matters of a document here."""

    text: str
    language: str | None = "en"
    source: str = "crawl"
    bucket: str | None = None


class CorpusSettings(Settings):
    """What names a corpus."""

    digest: str


def write_corpus(runner: StageRunner, shards: Sequence[Sequence[Row]], rows_a_batch: int = 7) -> StageManifest:
    """A finished stage of some documents, their ids made of their texts."""
    digest = hashlib.sha256(repr((shards, rows_a_batch)).encode()).hexdigest()
    sources = [str(index) for index in range(len(shards))]
    stage = Stage("given", 1)
    return runner.run(stage, Given(shards, rows_a_batch), sources, CorpusSettings(digest=digest), {})


class Given:
    """A shard function that yields given rows."""

    def __init__(self, shards: Sequence[Sequence[Row]], rows_a_batch: int) -> None:
        self._shards, self._rows = shards, rows_a_batch

    def __call__(self, _: Store, source: str, settings: Settings) -> Iterator[Split]:
        rows = self._shards[int(source)]
        for start in range(0, len(rows), self._rows):
            yield Split(documents(rows[start : start + self._rows], f"{source}-{start}"))


def documents(rows: Sequence[Row], place: str = "0") -> pa.Table:
    """A table of documents."""
    names = [hashlib.sha256(row.text.encode()).hexdigest()[:32] for row in rows]
    columns: dict[str, list[Any]] = {
        "id": names,
        "source": [row.source for row in rows],
        "file": [place] * len(rows),
        "offset": list(range(len(rows))),
        "text": [row.text for row in rows],
        "language": [row.language for row in rows],
        "bucket": [row.bucket for row in rows],
    }
    typed = {name: pa.array(values, DOCUMENTS.field(name).type) for name, values in columns.items()}
    return conform(typed, len(rows), DOCUMENTS)
