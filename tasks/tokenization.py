"""Tokenization: documents become rows of token ids in Arrow files that training reads by memory map.

Files are uncompressed, so that a mapped token needs no copy: uint16 where the vocabulary fits. Every document ends
in the end-of-document token. Held-out documents go to files of their own.
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import sentencepiece

from infra.manifest import StageManifest, TokenizerRecord
from infra.schema import tokens_schema
from infra.settings import Settings
from infra.store import Store
from tasks.heldout import HeldoutSettings, is_heldout
from tasks.stage import PerBatch, Split, Stage, StageRunner, texts


class TokenizationSettings(Settings):
    """What decides a token shard's bytes besides its documents."""

    heldout: HeldoutSettings
    tokenizer: TokenizerRecord


def tokenization(
    runner: StageRunner, parent: StageManifest, tokenizer: TokenizerRecord, heldout: HeldoutSettings
) -> StageManifest:
    """Encode all shards of a stage into training and held-out token files.

    Counters by split: tokens_<split>, text_bytes_<split>.
    """
    settings = TokenizationSettings(heldout=heldout, tokenizer=tokenizer)
    function = PerBatch(Tokenize(runner.store))
    return runner.run(TOKENIZATION, function, parent.kept_paths, settings, {parent.stage: parent.digest})


def token_schema(settings: TokenizationSettings) -> pa.Schema:
    """Schema of the token files that some settings make."""
    tokenizer = settings.tokenizer
    return tokens_schema(tokenizer.vocabulary_size, tokenizer.sha256, tokenizer.end_of_document)


TOKENIZATION = Stage(
    "tokenization",
    1,
    token_schema,
    {"heldout": None},
    libraries=("pyarrow", "sentencepiece"),
    private=False,
    compressed=False,
)


@dataclass(frozen=True)
class Tokenize:
    """The table function of the stage, with where the tokenizer lies."""

    store: Store

    def __call__(self, table: pa.Table, settings: TokenizationSettings) -> Split:
        """Encode one batch; nothing is dropped."""
        documents = texts(table)
        processor = _processor(self.store.root, settings.tokenizer.path)
        encoded = [np.array([*ids, settings.tokenizer.end_of_document]) for ids in processor.encode(documents)]
        sizes = [len(text.encode()) for text in documents]
        heldout = np.array([is_heldout(text, settings.heldout) for text in documents], dtype=bool)
        rows = token_rows(table["id"], encoded, sizes, token_schema(settings))
        counters: Counter[str] = Counter()
        for ids, size, held in zip(encoded, sizes, heldout, strict=True):
            split = "heldout" if held else "train"
            counters.update({f"tokens_{split}": len(ids), f"text_bytes_{split}": size})
        return Split(
            rows.filter(pa.array(~heldout)), others={"heldout": rows.filter(pa.array(heldout))}, counters=counters
        )


def token_rows(ids: pa.ChunkedArray, encoded: list[np.ndarray], sizes: list[int], schema: pa.Schema) -> pa.Table:
    """A table of token rows from document ids, token ids and text sizes in bytes."""
    kind = schema.field("tokens").type
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in encoded])]).astype(np.int64)
    flat = np.concatenate([*encoded, np.zeros(0)]).astype(kind.value_type.to_pandas_dtype())
    tokens = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat), type=kind)
    return pa.table([ids, tokens, pa.array(sizes, pa.int64())], schema=schema)


@lru_cache(maxsize=1)
def _processor(root: str, path: str) -> sentencepiece.SentencePieceProcessor:
    """The tokenizer, loaded once in each process."""
    return sentencepiece.SentencePieceProcessor(model_proto=Store(root).read_bytes(path), num_threads=1)
