"""Existing tokenizers: a file in any of three formats, and the facts that training needs to know of it.

Which tokens are control tokens, ends a document or pads is what the file says; where it does not, a short list of
names, and last the settings. Nothing is guessed: what could be read in two ways is refused.
"""

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import fsspec
import numpy as np
import sentencepiece
from pydantic import Field

from infra.errors import BadInput
from infra.manifest import TokenizerRecord
from infra.settings import Settings
from infra.vocabulary import DeclaredToken, Kind, Vocabulary, declared_tokens, kind_of, open_vocabulary, read_ranks

logger = logging.getLogger(__name__)
SUFFIXES: Mapping[Kind, str] = {"sentencepiece": "model", "huggingface": "json", "tiktoken": "tiktoken"}
END_NAMES = (
    "<|endoftext|>",
    "</s>",
    "<|end_of_text|>",
    "<eos>",
    "<EOT>",
    "[EOS]",
    "<|eos|>",
    "<|end▁of▁sentence|>",
    "<\uff5cend▁of▁sentence\uff5c>",
)
"""How GPT-2, Llama 2, Llama 3, Gemma, Claude and DeepSeek among others spell the end of a document."""
PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<PAD>", "<\uff5c▁pad▁\uff5c>", "<|finetune_right_pad_id|>")
PROBE = "  A mill, and the water; 3.14\n\tÜber-naïve ﬁ ½ 水車 🏭\u200b\u00a0end "


class ExistingSettings(Settings):
    """What a tokenizer's file may leave open."""

    end_of_document: str | None = None
    """Token that ends a document, as the file spells it; unset takes what the file or a well-known name says."""
    pad: str | None = None
    """Token that pads; unset takes what the file or a well-known name says, or none."""
    control_shape: str | None = r"<[^<>\s]+>|\[[A-Z_]+[0-9]*\]"
    """Added tokens of this form (a regular expression) count as control tokens, which no text can spell, although the
    file does not mark them as special; unset leaves it to the file."""
    pattern: str | None = None
    """How a tiktoken file's tokenizer cuts words: cl100k, o200k, gpt2 or a regular expression; unset knows it by the
    number of ranks."""
    special_tokens: dict[str, int] = Field(default={})
    """Special tokens of a tiktoken file, which does not hold them, with their ids; unset takes those of the encoding
    that the number of ranks tells."""


class TiktokenEncoding(NamedTuple):
    """What a file of ranks does not say of the encoding that it belongs to."""

    pattern: str
    special_tokens: Mapping[str, int]


@dataclass(frozen=True)
class ImportedFile:
    """A tokenizer's file, checked, with what was found out about it; `record.path` is its name alone."""

    data: bytes
    record: TokenizerRecord


def tiktoken_encoding(ranks: int) -> TiktokenEncoding | None:
    """The published encoding whose file has so many ranks: r50k or p50k (GPT-2, GPT-3), cl100k (GPT-4), o200k."""
    end = "<|endoftext|>"
    middle = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
    known = {
        50_256: TiktokenEncoding("gpt2", {end: 50_256}),
        50_280: TiktokenEncoding("gpt2", {end: 50_256}),
        100_256: TiktokenEncoding(
            "cl100k", {end: 100_257, **{name: 100_258 + n for n, name in enumerate(middle)}, "<|endofprompt|>": 100_276}
        ),
        199_998: TiktokenEncoding("o200k", {end: 199_999, "<|endofprompt|>": 200_018}),
    }
    return known.get(ranks)


def pattern_named(name: str) -> str:
    """The expression that cuts words in a published encoding, or the name itself, which then is one."""
    contraction = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    upper, lower = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
    published = {
        "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
        "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
        r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
        "o200k": rf"[^\r\n\p{{L}}\p{{N}}]?[{upper}]*[{lower}]+{contraction}"
        rf"|[^\r\n\p{{L}}\p{{N}}]?[{upper}]+[{lower}]*{contraction}"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    }
    return published.get(name, name)


def import_tokenizer(path: str, settings: ExistingSettings) -> ImportedFile:
    """Read a tokenizer's file from a path or fsspec URL and find out what training needs; BadInput if unusable."""
    data = _read(path)
    kind = kind_of(data)
    if kind is None:
        raise _unusable(path, "the format is none of the three")
    try:
        pattern, special = _tiktoken_facts(path, data, settings) if kind == "tiktoken" else (None, {})
        declared = [*declared_tokens(data, kind), *(DeclaredToken(*each, True) for each in special.items())]
        plain = open_vocabulary(data, kind, special, pattern)
    except BadInput:
        raise
    except Exception as error:  # the libraries raise errors of several kinds, one of them Exception itself
        raise _unusable(path, " ".join(str(error).split())[:200] or type(error).__name__) from error
    found = _Declared(path, declared, _control_tokens(declared, settings.control_shape))
    stated = sentencepiece.SentencePieceProcessor(model_proto=data) if kind == "sentencepiece" else None
    end = found.end_of_document(settings.end_of_document, stated.eos_id() if stated else -1)
    pad = found.one("pad", settings.pad, stated.pad_id() if stated else -1, PAD_NAMES)
    control = found.control | {token.text: token.id for token in declared if token.id in (end, pad)}
    record = TokenizerRecord(
        path=f"tokenizer.{SUFFIXES[kind]}",
        sha256=hashlib.sha256(data).hexdigest(),
        vocabulary_size=plain.size,
        end_of_document=end,
        pad=pad,
        kind=kind,
        pattern=pattern,
        control=dict(sorted(control.items())),
    )
    _check(path, open_vocabulary(data, kind, record.control, pattern), record)
    return ImportedFile(data, record)


def _read(path: str) -> bytes:
    try:
        with fsspec.open(path, "rb") as file:
            return file.read()  # pyright: ignore[reportAttributeAccessIssue] - fsspec types one file as a list
    except (OSError, ValueError, ImportError) as error:
        raise BadInput(
            f"tokenizer.path={path} ({error})", "it must name a readable file", "Correct tokenizer.path"
        ) from error


def _unusable(path: str, why: str) -> BadInput:
    return BadInput(
        f"tokenizer.path={path} ({why})",
        "a tokenizer is a sentencepiece model, a tokenizer.json of Hugging Face or a file of tiktoken ranks",
        "Name such a file, or unset tokenizer.path to learn a tokenizer from the corpus",
    )


def _tiktoken_facts(path: str, data: bytes, settings: ExistingSettings) -> tuple[str, dict[str, int]]:
    """The pattern and special tokens of a file of ranks, by settings or by their number."""
    ranks = read_ranks(data)
    known = tiktoken_encoding(len(ranks))
    if known is None and (settings.pattern is None or not settings.special_tokens):
        raise BadInput(
            f"tokenizer.path={path} has {len(ranks):,} ranks, as no encoding that is known here",
            "a file of ranks says neither how words are cut nor which special tokens there are",
            "Set tokenizer.existing.pattern (cl100k, o200k, gpt2 or an expression) and .special_tokens",
        )
    special = dict(settings.special_tokens or (known.special_tokens if known else {}))
    if clash := sorted(token for token, number in special.items() if number in frozenset(ranks.values())):
        raise BadInput(
            f"tokenizer.existing.special_tokens: the id of {', '.join(clash)} is that of a rank",
            "every id stands for one token",
            f"Number special tokens from {max(ranks.values()) + 1} on",
        )
    return pattern_named(settings.pattern or (known.pattern if known else "")), special


def _control_tokens(declared: Sequence[DeclaredToken], shape: str | None) -> dict[str, int]:
    """Tokens that a file marks as control, and those that look it."""
    return {
        token.text: token.id
        for token in declared
        if token.marked or (shape is not None and re.fullmatch(shape, token.text))
    }


@dataclass(frozen=True)
class _Declared:
    """The tokens that a file declares, and those of them that are control tokens, with their ids."""

    path: str
    tokens: Sequence[DeclaredToken]
    control: dict[str, int]

    def end_of_document(self, wanted: str | None, stated: int) -> int:
        """The id of the token that ends a document; BadInput if there is none or a choice."""
        found = self.one("end_of_document", wanted, stated, END_NAMES)
        if found is None:
            raise BadInput(
                f"tokenizer.path={self.path} says of no token that it ends a document",
                f"every document ends in a token of its own; control tokens are {_listed(self.control)}",
                "Set tokenizer.existing.end_of_document to one of them",
            )
        return found

    def one(self, setting: str, wanted: str | None, stated: int, names: Sequence[str]) -> int | None:
        """The id of a token as set, as the file states (unless negative), or by its name; BadInput for a choice."""
        if wanted is not None:
            return self._named(setting, wanted)
        if stated >= 0:
            return stated
        marked = [token.text for token in self.tokens if token.marked and token.text in names]
        found = marked or [name for name in names if name in self.control]
        if len(found) > 1:
            raise BadInput(
                f"tokenizer.path={self.path} has {' and '.join(found)}",
                f"one token is to be taken for {setting}",
                f"Set tokenizer.existing.{setting} to one of them",
            )
        return self.control[found[0]] if found else None

    def _named(self, setting: str, wanted: str) -> int:
        ids = {token.text: token.id for token in self.tokens}
        if wanted not in ids:
            raise BadInput(
                f"tokenizer.existing.{setting}={wanted!r}",
                f"it must be a token that {self.path} declares: {_listed(ids)}",
                "Spell it as the file does",
            )
        return ids[wanted]


def _listed(tokens: Mapping[str, int]) -> str:
    shown = list(tokens)[:20]
    return (", ".join(shown) + (", ..." if len(tokens) > len(shown) else "")) or "none"


def _check(path: str, vocabulary: Vocabulary, record: TokenizerRecord) -> None:
    """BadInput if some text yields a control token; a warning if text does not come back as it was."""
    spelled = [text for token in record.control for text in (token, f"a{token}b", f" {token} {token}\n")]
    # The token of unknown characters is a control token to most files, and yet what text is encoded to.
    control = frozenset(record.control.values()) - set(vocabulary.encode(["\U0010fffe"])[0].tolist())
    for text, ids in zip(spelled, vocabulary.encode(spelled), strict=True):
        if control & set(np.unique(ids).tolist()):
            raise BadInput(
                f"tokenizer.path={path} encodes the text {text!r} to a control token",
                "no text may end a document or open a chat turn",
                "Choose another tokenizer, or narrow tokenizer.existing.control_shape if that token is text",
            )
    if (back := vocabulary.decode(vocabulary.encode([PROBE])[0].tolist())) != PROBE:
        logger.warning("the tokenizer of %s normalises text: %r comes back as %r", path, PROBE, back)
