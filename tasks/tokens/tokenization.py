"""Tokenization: documents become rows of token ids in Arrow files that training reads by memory map.

Files are uncompressed, so that a mapped token needs no copy: uint16 where the vocabulary fits. Every document ends
in the end-of-document token. Held-out documents go to files of their own. Counters by language and by source tell
how well the vocabulary fits each: its *fertility*, tokens per word.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute

from infra.manifest import StageManifest, TokenizerRecord
from infra.schema import DROPPED, tokens_schema
from infra.settings import Settings
from infra.store import Store
from infra.vocabulary import Ids, Vocabulary, load_vocabulary
from tasks.heldout import HeldoutSettings, is_heldout
from tasks.stage import PerBatch, Split, Stage, StageRunner, split_by_reason, texts
from tasks.tokens.mix import COPY_MARK
from tasks.tokens.tokenizer_sample import UNKNOWN

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers
GROUPS = ("language", "source")
MEASURES = ("documents", "tokens", "text_bytes", "characters", "words", "unspaced")
WORD = r"[\p{L}\p{M}\p{N}]+(?:['\x{2019}][\p{L}\p{M}]+)*"
"""A word: letters, marks and digits, with apostrophes inside (expression of RE2)."""
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
"""A character of a script that puts no spaces between words, so that words cannot be counted by them."""


class TokenizationSettings(Settings):
    """What decides a token shard's bytes besides its documents."""

    heldout: HeldoutSettings
    tokenizer: TokenizerRecord


def tokenization(
    runner: StageRunner, parent: StageManifest, tokenizer: TokenizerRecord, heldout: HeldoutSettings
) -> StageManifest:
    """Encode all shards of a stage into training and held-out token files, in the order of the documents.

    Counters by split: tokens_<split>, text_bytes_<split>. Counters of both together, by language and by source:
    <measure>:<language|source>:<name> for each of MEASURES; `unspaced` counts characters.
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
    2,
    token_schema,
    {"heldout": None},
    libraries=("pyarrow", "sentencepiece", "tiktoken", "tokenizers"),
    private=False,
    compressed=False,
)


@dataclass(frozen=True)
class Tokenize:
    """The table function of the stage, with where the tokenizer lies."""

    store: Store

    def __call__(self, table: pa.Table, settings: TokenizationSettings) -> Split:
        """Encode one batch. Drops heldout_copy: a held-out document counts once, however often the mixture has it."""
        table, dropped = without_heldout_copies(table, settings.heldout)
        documents = texts(table)
        encoded = _vocabulary(self.store.root, settings.tokenizer.model_dump_json()).encode(documents)
        heldout = np.array([is_heldout(text, settings.heldout) for text in documents], dtype=bool)
        rows = token_rows(table, encoded, token_schema(settings), settings.tokenizer.end_of_document)
        kept, aside = rows.filter(pa.array(~heldout)), rows.filter(pa.array(heldout))
        counters = Counter(count_groups(table, rows))
        for split, part in {"train": kept, "heldout": aside}.items():
            if part.num_rows:
                counters[f"tokens_{split}"] = len(part["tokens"].combine_chunks().flatten())
                counters[f"text_bytes_{split}"] = pc.sum(part["text_bytes"]).as_py()
        return Split(kept, dropped, others={"heldout": aside}, counters=counters)


def without_heldout_copies(table: pa.Table, heldout: HeldoutSettings) -> tuple[pa.Table, pa.Table]:
    """Documents without the further copies of held-out ones, and these."""
    ids = cast("list[str]", table["id"].to_pylist())
    copies = [COPY_MARK in each for each in ids]
    if not any(copies):
        return table, DROPPED.empty_table()
    reasons = [
        "heldout_copy" if copy and is_heldout(text, heldout) else None
        for copy, text in zip(copies, texts(table), strict=True)
    ]
    return split_by_reason(table, TOKENIZATION.name, reasons, [None] * len(reasons))


def token_rows(table: pa.Table, encoded: Sequence[Ids], schema: pa.Schema, end_of_document: int) -> pa.Table:
    """A table of token rows from documents and their token ids, to each of which the end of document is added."""
    end = np.array([end_of_document], np.uint32)
    kind = cast("pa.LargeListType", schema.field("tokens").type)
    offsets = np.concatenate([[0], np.cumsum([len(each) + 1 for each in encoded])]).astype(np.int64)
    flat = np.concatenate([*(part for each in encoded for part in (each, end)), np.zeros(0, np.uint32)])
    values = pa.array(flat.astype(kind.value_type.to_pandas_dtype()))
    tokens = pa.LargeListArray.from_arrays(pa.array(offsets), values, type=kind)
    sizes = pc.binary_length(table["text"])
    return pa.table([table["id"], tokens, sizes, table["source"], table["language"], table["bucket"]], schema=schema)


def count_groups(table: pa.Table, rows: pa.Table) -> dict[str, int]:
    """Each of MEASURES by language and by source, of documents and their token rows."""
    text = table["text"]
    measured = {
        "documents": pa.array(np.ones(table.num_rows, np.int64)),
        "tokens": pc.list_value_length(rows["tokens"]),
        "text_bytes": rows["text_bytes"],
        "characters": pc.utf8_length(text),
        "words": pc.count_substring_regex(text, WORD),
        "unspaced": pc.count_substring_regex(text, UNSPACED),
    }
    counts: dict[str, int] = {}
    for group in GROUPS:
        columns = pa.table({group: pc.fill_null(table[group], UNKNOWN), **measured})
        sums = columns.group_by(group).aggregate([(measure, "sum") for measure in MEASURES])
        for row in sums.to_pylist():
            counts |= {f"{measure}:{group}:{row[group]}": row[f"{measure}_sum"] or 0 for measure in MEASURES}
    return counts


class Fertility(Settings):
    """How well a vocabulary fits the text of one language or source, both splits together."""

    group: Literal["language", "source"]
    name: str
    """Code of the language, `und` without one, or name of the source."""
    documents: int
    tokens: int
    """Ends of documents included; the ratios leave them out."""
    text_bytes: int
    bytes_per_token: float
    tokens_per_word: float | None
    """None where most characters are of scripts without spaces between words."""
    tokens_per_character: float


def fertility(manifest: StageManifest) -> tuple[Fertility, ...]:
    """Rows of a finished tokenization stage, languages first, each kind by falling number of tokens."""
    measured: dict[tuple[str, str], Counter[str]] = {}
    for key, count in manifest.total("counters").items():
        measure, _, place = key.partition(":")
        group, _, name = place.partition(":")
        if group in GROUPS and measure in MEASURES:
            measured.setdefault((group, name), Counter())[measure] = count
    rows = [_fertility(group, name, counts) for (group, name), counts in measured.items()]
    return tuple(sorted(rows, key=lambda row: (row.group, -row.tokens, row.name)))


def _fertility(group: str, name: str, counts: Counter[str]) -> Fertility:
    tokens = counts["tokens"] - counts["documents"]
    spaced = 2 * counts["unspaced"] <= counts["characters"] and counts["words"] > 0
    return Fertility(
        group=cast('Literal["language", "source"]', group),
        name=name,
        documents=counts["documents"],
        tokens=counts["tokens"],
        text_bytes=counts["text_bytes"],
        bytes_per_token=counts["text_bytes"] / max(tokens, 1),
        tokens_per_word=tokens / counts["words"] if spaced else None,
        tokens_per_character=tokens / max(counts["characters"], 1),
    )


@lru_cache(maxsize=1)
def _vocabulary(root: str, record: str) -> Vocabulary:
    """The tokenizer of a record as JSON, loaded once in each process."""
    return load_vocabulary(Store(root), TokenizerRecord.model_validate_json(record))
