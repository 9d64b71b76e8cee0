"""Any tokenizer of ours as a `tokenizer.json`, the form that transformers and its relatives read.

Ids are those that training saw (`infra.vocabulary` says how). The conversion is exact but for these:

- merges: sentencepiece and tiktoken merge, of all places where the best token can arise, the leftmost; `tokenizers`
  ranks the pairs that make a token instead. Pairs are ranked with the longer left part first, which is the order in
  which merging from the left leaves the pieces of a run; only repetitions that other merges have cut can differ;
- a unigram model: `tokenizers` adds up scores in float64, sentencepiece in float32, so that near ties may fall
  otherwise; and a precompiled normalisation is applied to grapheme clusters instead of characters;
- in a text, `tokenizers` finds the names of control tokens unless `split_special_tokens` is set; training never did.
  A unigram model finds them even so, where one of their letters is not among its pieces.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import sentencepiece
import tokenizers

from infra.errors import BadInput
from infra.vocabulary import SENTENCEPIECE_USER_DEFINED, Kind, _fields, _piece_types, read_ranks

_SPACE = "\u2581"
_UNIGRAM, _BPE = 1, 2
"""Model types in a sentencepiece model's TrainerSpec."""
_NORMAL = 1


class SentencepieceFacts(NamedTuple):
    """What a sentencepiece model says besides its pieces; the defaults are those of its protocol buffer."""

    model_type: int = _UNIGRAM
    byte_fallback: bool = False
    space_at_end: bool = False
    """Whether a space belongs to the word before it."""
    normalization: bytes = b""
    """Name of the normalisation."""
    character_map: bytes = b""
    """Normalisation, compiled; empty for none."""
    add_space: bool = True
    """Whether a space is put in front of a text."""
    squeeze_spaces: bool = True
    """Whether spaces at both ends are dropped and runs of them made one."""
    escape_spaces: bool = True


def tokenizer_json(data: bytes, kind: Kind, control: Mapping[str, int], pattern: str | None = None) -> dict[str, Any]:
    """The content of a tokenizer.json with the ids of a tokenizer's file; nothing is put around a text.

    `control` and `pattern` are those of the dataset's record. BadInput for a sentencepiece model of words
    or characters.
    """
    if kind == "huggingface":
        return _without_additions(json.loads(data), control)
    if kind == "tiktoken":
        return _from_ranks(read_ranks(data), control, pattern or "")
    return _from_sentencepiece(data, control)


def sentencepiece_facts(data: bytes) -> SentencepieceFacts:
    """Read a ModelProto's TrainerSpec (field 2) and NormalizerSpec (field 3)."""
    places = {
        (2, 3): "model_type",
        (2, 24): "space_at_end",
        (2, 35): "byte_fallback",
        (3, 1): "normalization",
        (3, 2): "character_map",
        (3, 3): "add_space",
        (3, 4): "squeeze_spaces",
        (3, 5): "escape_spaces",
    }
    found: dict[str, Any] = {}
    for outer, start, stop in _fields(data, 0, len(data)):
        if outer not in (2, 3):
            continue
        for inner, begin, end in _fields(data, start, stop):
            if (name := places.get((outer, inner))) is not None:
                found[name] = data[begin:end] if name in ("normalization", "character_map") else data[begin]
    facts = SentencepieceFacts(**found)
    return facts._replace(byte_fallback=bool(facts.byte_fallback))


def _from_sentencepiece(data: bytes, control: Mapping[str, int]) -> dict[str, Any]:
    facts = sentencepiece_facts(data)
    if facts.model_type not in (_UNIGRAM, _BPE) or facts.space_at_end or not facts.escape_spaces:
        raise BadInput(
            "the sentencepiece model is one of words or characters, or treats spaces in a way of its own",
            "a tokenizer.json holds byte-pair and unigram models whose words begin with their space",
            "Train on a dataset whose tokenizer is a bpe or unigram model",
        )
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    pieces = [processor.id_to_piece(number) for number in range(processor.vocab_size())]
    scores = [processor.get_score(number) for number in range(processor.vocab_size())]
    types = [kind for _, kind in _piece_types(data)]
    marked = {number for number in range(len(pieces)) if processor.is_control(number)} | {processor.unk_id()}
    marked |= set(control.values())
    # A symbol with a space in it is never found, since spaces have another sign by then.
    symbols = {
        number for number, kind in enumerate(types) if kind == SENTENCEPIECE_USER_DEFINED and " " not in pieces[number]
    } - marked
    normal = [number for number, kind in enumerate(types) if kind == _NORMAL]
    build = _bpe_model if facts.model_type == _BPE else _unigram_model
    model = build(pieces, scores, normal, facts.byte_fallback, processor.unk_id())
    added = [_added_token(pieces[number], number, number in marked) for number in marked | symbols]
    normalizer = _normalizer(facts, [pieces[number] for number in sorted(symbols)])
    return _content(model, added, normalizer=normalizer, pre_tokenizer=None, decoder=_decoder(facts))


def _bpe_model(pieces: list[str], scores: list[float], normal: list[int], byte_fallback: bool, unknown: int) -> Any:
    ranked = sorted(normal, key=lambda number: (-scores[number], number))
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": pieces[unknown],
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": byte_fallback,
        "ignore_merges": False,
        "vocab": {piece: number for number, piece in enumerate(pieces)},
        "merges": [list(pair) for pair in _merges(pieces[number] for number in ranked)],
    }


def _unigram_model(pieces: list[str], scores: list[float], normal: list[int], byte_fallback: bool, unknown: int) -> Any:
    # `tokenizers` looks for every token in the text, also for those that stand for no text: their scores are so low
    # that their letters are always better.
    lowest = min((scores[number] for number in normal), default=0.0) - 20
    text = set(normal)
    return {
        "type": "Unigram",
        "unk_id": unknown,
        "byte_fallback": byte_fallback,
        "vocab": [
            [piece, scores[number] if number in text else lowest * len(piece)] for number, piece in enumerate(pieces)
        ],
    }


def _normalizer(facts: SentencepieceFacts, symbols: list[str]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    if facts.character_map:
        steps.append(json.loads(tokenizers.normalizers.Precompiled(facts.character_map).__getstate__()))
        if b"nfkc" in facts.normalization:
            steps.append({"type": "NFKC"})  # composes what lies in several of the clusters
    if facts.squeeze_spaces:
        steps += [_replace({"Regex": " {2,}"}, " "), _replace({"Regex": r"\A | \z"}, "")]
    if facts.add_space and symbols:
        # Symbols are normalised too before the text is searched for them, and must stay as they are.
        names = "|".join(re.escape(symbol) for symbol in symbols)
        steps.append(_replace({"Regex": rf"\A(?=[\s\S])(?!(?:{names})\z)"}, _SPACE))
    elif facts.add_space:
        steps.append({"type": "Prepend", "prepend": _SPACE})
    steps.append(_replace({"String": " "}, _SPACE))
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "normalizers": steps}


def _decoder(facts: SentencepieceFacts) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [_replace({"String": _SPACE}, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
    if facts.add_space:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _from_ranks(ranks: Mapping[bytes, int], control: Mapping[str, int], pattern: str) -> dict[str, Any]:
    letters = byte_letters()
    spelled = {token: "".join(letters[byte] for byte in token) for token in ranks}
    ordered = sorted(ranks, key=lambda token: ranks[token])
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": True,  # tiktoken takes a word that is a token as it is
        "vocab": {spelled[token]: ranks[token] for token in ordered} | dict(control),
        "merges": [list(pair) for pair in _merges(spelled[token] for token in ordered)],
    }
    added = [_added_token(token, number, True) for token, number in control.items()]
    cut = {"type": "Split", "pattern": {"Regex": ruby_pattern(pattern)}, "behavior": "Isolated", "invert": False}
    to_letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return _content(
        model,
        added,
        normalizer=None,
        pre_tokenizer={"type": "Sequence", "pretokenizers": [cut, to_letters]},
        decoder=to_letters,
    )


def byte_letters() -> dict[int, str]:
    """The letter that stands for each byte in byte-level tokenizers (GPT-2): itself where it can be printed."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printed)
    return {byte: chr(byte) for byte in printed} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def ruby_pattern(pattern: str) -> str:
    r"""A regular expression of tiktoken as Oniguruma, which `tokenizers` uses, understands it.

    There `$` is the end of a line, not of the text, and a plus after `{m,n}` repeats it instead of
    making it possessive.
    """
    parts = re.findall(r"\\.|\[(?:\\.|[^\]\\])*\]|\{\d*,?\d*\}\+?|.", pattern, re.DOTALL)
    return "".join(r"\z" if part == "$" else part.removesuffix("+") if part[0] == "{" else part for part in parts)


def _merges(tokens: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs that make each token, best token first, longest left part first."""
    ordered = list(tokens)
    known = frozenset(ordered)
    return [
        (token[:cut], token[cut:])
        for token in ordered
        for cut in range(len(token) - 1, 0, -1)
        if token[:cut] in known and token[cut:] in known
    ]


def _without_additions(content: dict[str, Any], control: Mapping[str, int]) -> dict[str, Any]:
    """A tokenizer.json that cuts, pads and drops nothing, and puts nothing around a text, as training read it."""
    added = [
        each | {"special": True} if each["content"] in control else each for each in content.get("added_tokens") or []
    ]
    model = content["model"] | ({"dropout": None} if "dropout" in content["model"] else {})
    plain = content | {"truncation": None, "padding": None, "added_tokens": added, "model": model}
    empty = tokenizers.Tokenizer.from_str(json.dumps(plain)).encode("").ids
    return plain | ({"post_processor": None} if empty else {})


def _added_token(text: str, number: int, special: bool) -> dict[str, Any]:
    marks = {"single_word": False, "lstrip": False, "rstrip": False}
    return {"id": number, "content": text, **marks, "normalized": not special, "special": special}


def _content(model: Any, added: list[dict[str, Any]], **parts: Any) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "post_processor": None,
        **parts,
        "model": model,
    }
