"""One way to use a tokenizer, whatever the format of its file.

A text is data: nothing that it spells becomes a control token, so that no page can end a document or open a chat turn.
sentencepiece promises that for control symbols; the other formats do not, and are read accordingly:

- user-defined symbols of a sentencepiece model that count as control tokens are retyped as control symbols;
- control tokens of a tokenizer.json get names that no text has, because their matching can be switched off but a
  unigram model or a word list finds them all the same; truncation, padding, dropout and templates are switched off;
- tiktoken's special tokens are left out of encoding.

Nothing is added in front of a text or behind it.
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import sentencepiece
import tiktoken
import tokenizers

from infra.errors import DamagedData
from infra.manifest import TokenizerRecord
from infra.store import Store

Kind = Literal["sentencepiece", "huggingface", "tiktoken"]
Ids = npt.NDArray[np.uint32]

SENTENCEPIECE_CONTROL, SENTENCEPIECE_USER_DEFINED = 3, 4
"""Types of pieces in a sentencepiece model's ModelProto."""

# tiktoken panics on runs of some 300,000 spaces, where its expressions overflow the stack of their interpreter. Runs
# are cut where Llama 3 cuts them; a text without such a run is one part.
LONG_RUNS = re.compile(
    r"(?:\S{1,25000}+(?!\S)|\s{1,25000}+(?!\s))++|\S{25000}|\s{25000}",
)


class Vocabulary(Protocol):
    """A tokenizer: texts to token ids and back."""

    @property
    def size(self) -> int:
        """One more than the largest id."""
        ...

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text; no control token is among them."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; control tokens, and ids that stand for nothing, leave no trace."""
        ...


class DeclaredToken(NamedTuple):
    """A token that a file declares beside those that it has learned."""

    text: str
    id: int
    marked: bool
    """Whether the file itself says that it is no text."""


def kind_of(data: bytes) -> Kind | None:
    """The format of a tokenizer's file by its first bytes, whatever its name; None if it is none of the three."""
    if data.lstrip()[:1] == b"{":
        return "huggingface"
    if re.match(rb"[A-Za-z0-9+/]+={0,2} \d+\s", data):
        return "tiktoken"
    return "sentencepiece" if data[:1] == b"\x0a" else None


def load_vocabulary(store: Store, record: TokenizerRecord) -> Vocabulary:
    """Open a dataset's tokenizer; DamagedData if its file is another than the manifest's."""
    data = store.read_bytes(record.path)
    found = hashlib.sha256(data).hexdigest()
    if found != record.sha256:
        raise DamagedData(
            f"{store.full_path(record.path)} has SHA-256 {found} instead of {record.sha256}",
            "a tokenizer is what the dataset's manifest says of it",
            "Restore the file, or build the dataset again",
        )
    return open_vocabulary(data, record.kind, record.control, record.pattern)


def open_vocabulary(
    data: bytes, kind: Kind, control: Mapping[str, int] | None = None, pattern: str | None = None
) -> Vocabulary:
    """Open the bytes of a tokenizer's file. The libraries' errors, of several kinds, tell what is wrong with them."""
    if kind == "sentencepiece":
        return SentencepieceVocabulary(data, control or {})
    if kind == "huggingface":
        return HuggingfaceVocabulary(data, control or {})
    return TiktokenVocabulary(data, control or {}, pattern or "")


def declared_tokens(data: bytes, kind: Kind) -> list[DeclaredToken]:
    """Control and user-defined symbols of a sentencepiece model, added tokens of a tokenizer.json, none of tiktoken."""
    if kind == "huggingface":
        added = json.loads(data).get("added_tokens") or []
        return [DeclaredToken(each["content"], each["id"], bool(each["special"])) for each in added]
    if kind == "tiktoken":
        return []
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    types = enumerate(kind for _, kind in _piece_types(data))
    return [
        DeclaredToken(processor.id_to_piece(number), number, kind == SENTENCEPIECE_CONTROL)
        for number, kind in types
        if kind in (SENTENCEPIECE_CONTROL, SENTENCEPIECE_USER_DEFINED)
    ]


class SentencepieceVocabulary:
    """A sentencepiece model."""

    def __init__(self, data: bytes, control: Mapping[str, int]) -> None:
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=_retyped(data, control), num_threads=1)
        self.size: int = self._processor.vocab_size()

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """As Vocabulary."""
        return [np.array(ids, np.uint32) for ids in self._processor.encode(list(texts))]

    def decode(self, ids: Iterable[int]) -> str:
        """As Vocabulary."""
        return self._processor.decode([int(each) for each in ids])


class HuggingfaceVocabulary:
    """A tokenizer.json."""

    def __init__(self, data: bytes, control: Mapping[str, int]) -> None:
        # Each worker process has one core of its own; threads would fight, and make forked workers hang.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(_made_plain(json.loads(data), control)))
        self._tokenizer.encode_special_tokens = True
        self._control = frozenset(control.values())
        self.size: int = max(self._tokenizer.get_vocab().values(), default=-1) + 1

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """As Vocabulary."""
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(each.ids, np.uint32) for each in encoded]

    def decode(self, ids: Iterable[int]) -> str:
        """As Vocabulary."""
        return self._tokenizer.decode([int(each) for each in ids if each not in self._control])


class TiktokenVocabulary:
    """Ranks as tiktoken reads them, with the pattern that cuts words."""

    def __init__(self, data: bytes, control: Mapping[str, int], pattern: str) -> None:
        ranks = read_ranks(data)
        self._encoding = tiktoken.Encoding(
            "gristmill", pat_str=pattern, mergeable_ranks=ranks, special_tokens=dict(control)
        )
        self._bytes = {rank: token for token, rank in ranks.items()}
        self.size: int = max([*ranks.values(), *control.values()], default=-1) + 1

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """As Vocabulary."""
        return [np.array(self._encode(text), np.uint32) for text in texts]

    def _encode(self, text: str) -> list[int]:
        parts = LONG_RUNS.findall(text)
        return [each for part in parts for each in self._encoding.encode_ordinary(part)]

    def decode(self, ids: Iterable[int]) -> str:
        """As Vocabulary."""
        return b"".join(self._bytes.get(int(each), b"") for each in ids).decode("utf-8", "replace")


def read_ranks(data: bytes) -> dict[bytes, int]:
    """Tokens and their ranks from lines of base64 and number; ValueError for any other line."""
    lines = (line.split() for line in data.splitlines() if line)
    return {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}


def _made_plain(content: dict[str, Any], control: Mapping[str, int]) -> dict[str, Any]:
    """A tokenizer.json whose control tokens cannot be spelled; it cuts, pads and adds nothing and drops no merge."""
    names = {token: _unspellable(token) for token in control}
    model = dict(content["model"])
    model["vocab"] = _renamed(model["vocab"], {token: names[token] for token in names.keys() - _merged(model)})
    if model.get("unk_token") in names and model["unk_token"] not in model["vocab"]:
        model["unk_token"] = names[model["unk_token"]]
    if "dropout" in model:
        model["dropout"] = None
    added = [
        each | {"content": names[each["content"]], "special": True, "normalized": False}
        if each["content"] in names
        else each
        for each in content.get("added_tokens") or []
    ]
    plain = {"truncation": None, "padding": None, "post_processor": None, "added_tokens": added, "model": model}
    return content | plain


def _unspellable(token: str) -> str:
    """A name that stands for a token and matches no text: tokenizers cut at spaces, or give them another sign."""
    return f"\0 {hashlib.sha256(token.encode()).hexdigest()} \0"


def _merged(model: Mapping[str, Any]) -> set[str]:
    """Tokens that byte-pair merges make or take, which cannot have other names."""
    pairs = [each.split(" ") if isinstance(each, str) else each for each in model.get("merges") or ()]
    return {part for left, right in pairs for part in (left, right, left + right)}


def _renamed(vocabulary: Any, names: Mapping[str, str]) -> Any:
    """The vocabulary of a tokenizer.json, a mapping or (of a unigram model) a list of pairs, under other names."""
    if isinstance(vocabulary, Mapping):
        return {names.get(token, token): number for token, number in vocabulary.items()}
    return [[names.get(token, token), score] for token, score in vocabulary]


def _retyped(model: bytes, control: Mapping[str, int]) -> bytes:
    """A sentencepiece model in which the user-defined symbols among the control tokens are control symbols."""
    changed, wanted = bytearray(model), frozenset(control.values())
    for number, (place, kind) in enumerate(_piece_types(model)):
        if kind == SENTENCEPIECE_USER_DEFINED and number in wanted:
            changed[place] = SENTENCEPIECE_CONTROL
    return bytes(changed)


def _piece_types(model: bytes) -> Iterator[tuple[int, int]]:
    """Place in the file and value of each piece's type, in order of ids; (-1, 1) where it is the default, normal.

    In ModelProto, field 1 is repeated and holds a piece, whose field 3 is the type: one byte, as all types are small.
    """
    for field, start, stop in _fields(model, 0, len(model)):
        if field == 1:
            places = [place for inner, place, _ in _fields(model, start, stop) if inner == 3]
            yield (places[-1], model[places[-1]]) if places else (-1, 1)


def _fields(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Number and place (begin, end) of each field's value in a protocol buffer message."""
    while start < stop:
        tag, start = _varint(data, start)
        size = {1: 8, 5: 4}.get(tag & 7, 0)
        if tag & 7 == 2:
            size, start = _varint(data, start)
        elif tag & 7 == 0:
            size = _varint(data, start)[1] - start
        yield tag >> 3, start, start + size
        start += size


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and the place after it."""
    value = shift = 0
    while True:
        byte = data[start]
        start, value, shift = start + 1, value | (byte & 0x7F) << shift, shift + 7
        if byte < 0x80:
            return value, start
