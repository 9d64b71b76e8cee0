"""Tokenizer: a sentencepiece model trained on a deterministic sample of the corpus itself, or one that exists.

The recipe is the one under which transformers, GGUF and sentencepiece agree on every id: byte fallback, identity
normalisation, no dummy prefix, chat markers as control symbols (text can never spell them) and a pad id of its own.
"""

import hashlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import sentencepiece
from pydantic import Field

from infra.address import Address
from infra.errors import BadInput
from infra.manifest import StageManifest, TokenizerRecord
from infra.settings import Settings
from infra.store import Store
from infra.vocabulary import declared_tokens
from tasks.heldout import HeldoutSettings
from tasks.inputs import find
from tasks.stage import Split, Stage, StageRunner
from tasks.tokens.tokenizer_import import ExistingSettings, import_tokenizer
from tasks.tokens.tokenizer_sample import Sample, SampleSettings

logger = logging.getLogger(__name__)
UNKNOWN, BEGIN, END, PAD = 0, 1, 2, 3
CHAT_MARKERS = ("<|im_start|>", "<|im_end|>")
MODEL_SCHEMA = pa.schema([pa.field("model", pa.large_binary(), nullable=False)])
TOKENIZER = Stage("tokenizer", 2, MODEL_SCHEMA, libraries=("pyarrow", "sentencepiece"), private=False)


class TokenizerSettings(SampleSettings):
    """How the vocabulary is learned, or where an existing one is found."""

    algorithm: Literal["bpe", "unigram"] = "bpe"
    """Byte-pair encoding, or unigram language model."""
    vocabulary_size: int = Field(default=32_000, ge=300, le=1_000_000)
    """Pieces, of which 256 are bytes and 6 are special; a corpus too small for it gets fewer."""
    character_coverage: float = Field(default=0.9995, gt=0, le=1)
    """Share of the sample's characters that get pieces; the rest is spelled in bytes."""
    max_line_bytes: int = Field(default=8192, ge=64)
    """Longer lines are learned from in parts of this size: sentencepiece would skip them."""
    path: Address | None = Field(default=None, min_length=1)
    """An existing tokenizer to take instead of learning one, as a path, below the root too, or fsspec URL: a
    sentencepiece model, a tokenizer.json of Hugging Face or a file of tiktoken ranks."""
    existing: ExistingSettings = ExistingSettings()
    """What the file of an existing tokenizer may leave open."""


def vocabulary_of(settings: TokenizerSettings, store: Store) -> int:
    """Tokens of a vocabulary before there is one: of the file that is named, or as many as are to be learned."""
    if settings.path is None:
        return settings.vocabulary_size
    return import_tokenizer(find(settings.path, store), settings.existing).record.vocabulary_size


class TokenizerTraining(Settings):
    """What decides the tokenizer's bytes: its own settings and which documents are held out."""

    tokenizer: TokenizerSettings
    heldout: HeldoutSettings


class TokenizerImport(Settings):
    """What decides an imported tokenizer: its bytes, and what was found out about them; its path does not matter."""

    tokenizer: TokenizerRecord


def train_tokenizer(
    runner: StageRunner, parent: StageManifest, settings: TokenizerSettings, heldout: HeldoutSettings
) -> tuple[StageManifest, TokenizerRecord]:
    """Train a tokenizer on the kept documents of a stage, held-out ones left aside; or import that of `path`.

    The file is written into the stage's folder. BadInput if nothing is left to learn from or the file cannot be used.
    """
    if settings.path is not None:
        return _import(runner, find(settings.path, runner.store), settings.existing)
    every = TrainOnShards(tuple(parent.kept_paths))
    training = TokenizerTraining(tokenizer=settings, heldout=heldout)
    manifest = runner.run(TOKENIZER, every, ["all shards"], training, {parent.stage: parent.digest})
    model = runner.store.read_table(manifest.kept_paths[0])["model"][0].as_py()
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    record = TokenizerRecord(
        path="tokenizer.model",
        sha256=hashlib.sha256(model).hexdigest(),
        vocabulary_size=processor.vocab_size(),
        end_of_document=processor.eos_id(),
        pad=processor.pad_id(),
        control={token.text: token.id for token in declared_tokens(model, "sentencepiece")},
    )
    return manifest, _place(runner.store, manifest, record, model)


def _import(runner: StageRunner, path: str, existing: ExistingSettings) -> tuple[StageManifest, TokenizerRecord]:
    """Copy a tokenizer's file into a stage that its content names."""
    file = import_tokenizer(path, existing)
    manifest = runner.run(TOKENIZER, Imported(file.data), ["file"], TokenizerImport(tokenizer=file.record), {})
    return manifest, _place(runner.store, manifest, file.record, file.data)


def _place(store: Store, manifest: StageManifest, record: TokenizerRecord, data: bytes) -> TokenizerRecord:
    """Write a tokenizer's file into its stage's folder, for people and for other programs."""
    path = f"{manifest.folder}/{record.path}"
    if not store.exists(path):
        store.write_bytes(path, data)
    return record.model_copy(update={"path": path})


@dataclass(frozen=True)
class Imported:
    """The shard function of an imported tokenizer."""

    data: bytes

    def __call__(self, _: Store, source: str, settings: TokenizerImport) -> Iterator[Split]:
        """Yield a table of one row: the file."""
        yield Split(pa.table([pa.array([self.data], pa.large_binary())], schema=MODEL_SCHEMA))


@dataclass(frozen=True)
class TrainOnShards:
    """The shard function of the tokenizer stage: its one shard reads a sample of all."""

    paths: tuple[str, ...]

    def __call__(self, store: Store, _: str, settings: TokenizerTraining) -> Iterator[Split]:
        """Yield a table of one row: the model. Counters: sample_documents, sample_bytes, and the latter by group."""
        sample = Sample(store, self.paths, settings.tokenizer, settings.heldout)
        size = settings.tokenizer.max_line_bytes
        model = learn((line for text in sample.texts() for line in split_lines(text, size)), settings.tokenizer)
        table = pa.table([pa.array([model], pa.large_binary())], schema=MODEL_SCHEMA)
        yield Split(table, counters=sample.counters)


def split_lines(text: str, max_bytes: int) -> Iterator[str]:
    """The lines of a text that hold anything, longer ones in parts; a character has at most four bytes."""
    step = max_bytes // 4
    for line in text.split("\n"):
        for start in range(0, len(line), step):
            if part := line[start : start + step].strip():
                yield part


def learn(lines: Iterator[str], settings: TokenizerSettings) -> bytes:
    """A sentencepiece model, as bytes. BadInput for a sample without text or a vocabulary that cannot be."""
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=model,
            model_type=settings.algorithm,
            vocab_size=settings.vocabulary_size,
            hard_vocab_limit=False,
            character_coverage=settings.character_coverage,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            unk_id=UNKNOWN,
            bos_id=BEGIN,
            eos_id=END,
            pad_id=PAD,
            pad_piece="<pad>",
            control_symbols=list(CHAT_MARKERS),
            max_sentence_length=settings.max_line_bytes,
            num_threads=1,  # the result must not depend on how many cores there are
            minloglevel=2,
        )
    except (RuntimeError, StopIteration) as error:
        why = str(error).splitlines()[-1] if str(error) else "no text"
        raise BadInput(
            f"tokenizer.vocabulary_size={settings.vocabulary_size} ({why})",
            "the sample must hold enough text to learn a vocabulary from",
            "Fetch more shards, loosen the filters, or lower tokenizer.vocabulary_size",
        ) from error
    return model.getvalue()
