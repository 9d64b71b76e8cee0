"""Tokenizer: a sentencepiece model trained on a deterministic sample of the corpus itself.

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

from infra.errors import BadInput
from infra.manifest import StageManifest, TokenizerRecord
from infra.settings import Settings
from infra.store import Store
from tasks.heldout import HeldoutSettings, is_heldout, share
from tasks.stage import Split, Stage, StageRunner

logger = logging.getLogger(__name__)
UNKNOWN, BEGIN, END, PAD = 0, 1, 2, 3
CHAT_MARKERS = ("<|im_start|>", "<|im_end|>")
MODEL_SCHEMA = pa.schema([pa.field("model", pa.large_binary(), nullable=False)])
TOKENIZER = Stage("tokenizer", 1, MODEL_SCHEMA, libraries=("pyarrow", "sentencepiece"), private=False)


class TokenizerSettings(Settings):
    """How the vocabulary is learned."""

    algorithm: Literal["bpe", "unigram"] = "bpe"
    """Byte-pair encoding, or unigram language model."""
    vocabulary_size: int = Field(default=32_000, ge=300, le=1_000_000)
    """Pieces, of which 256 are bytes and 6 are special; a corpus too small for it gets fewer."""
    sample_bytes: int = Field(default=200_000_000, ge=1_000)
    """Text to learn from, at most; documents are chosen by a hash of their id."""
    character_coverage: float = Field(default=0.9995, gt=0, le=1)
    """Share of the sample's characters that get pieces; the rest is spelled in bytes."""
    max_line_bytes: int = Field(default=8192, ge=64)
    """Longer lines are learned from in parts of this size: sentencepiece would skip them."""


class TokenizerTraining(Settings):
    """What decides the tokenizer's bytes: its own settings and which documents are held out."""

    tokenizer: TokenizerSettings
    heldout: HeldoutSettings


def train_tokenizer(
    runner: StageRunner, parent: StageManifest, settings: TokenizerSettings, heldout: HeldoutSettings
) -> tuple[StageManifest, TokenizerRecord]:
    """Train a tokenizer on the kept documents of a stage, held-out ones left aside.

    BadInput if nothing is left to learn from.
    """
    every = TrainOnShards(tuple(parent.kept_paths), parent.total("counters").get("text_bytes", 0))
    training = TokenizerTraining(tokenizer=settings, heldout=heldout)
    manifest = runner.run(TOKENIZER, every, ["all shards"], training, {parent.stage: parent.digest})
    path = f"{manifest.folder}/tokenizer.model"
    model = runner.store.read_table(manifest.kept_paths[0])["model"][0].as_py()
    if not runner.store.exists(path):
        runner.store.write_bytes(path, model)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return manifest, TokenizerRecord(
        path=path,
        sha256=hashlib.sha256(model).hexdigest(),
        vocabulary_size=processor.vocab_size(),
        end_of_document=processor.eos_id(),
        pad=processor.pad_id(),
    )


@dataclass(frozen=True)
class TrainOnShards:
    """The shard function of the tokenizer stage: its one shard reads a sample of all."""

    paths: tuple[str, ...]
    text_bytes: int

    def __call__(self, store: Store, _: str, settings: TokenizerTraining) -> Iterator[Split]:
        """Yield a table of one row: the model."""
        model = learn(self._lines(store, settings), settings.tokenizer)
        yield Split(pa.table([pa.array([model], pa.large_binary())], schema=MODEL_SCHEMA))

    def _lines(self, store: Store, settings: TokenizerTraining) -> Iterator[str]:
        wanted = settings.tokenizer.sample_bytes / max(self.text_bytes, 1)
        for path in self.paths:
            reader = store.open_table(path)
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                for each, text in zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True):
                    if each and text and share(f"tokenizer:{each}") < wanted and not is_heldout(text, settings.heldout):
                        yield from split_lines(text, settings.tokenizer.max_line_bytes)


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
