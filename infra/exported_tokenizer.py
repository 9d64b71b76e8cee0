"""The tokenizer files of an exported model, as transformers reads them."""

import json
from collections.abc import Sequence
from typing import Any

import tokenizers

from infra.errors import RunFailed
from infra.fast_tokenizer import tokenizer_json
from infra.manifest import TokenizerRecord
from infra.vocabulary import open_vocabulary

_ALLOWED_DIFFERENCE = 0.01


def tokenizer_files(data: bytes, record: TokenizerRecord, sequence_length: int) -> dict[str, bytes]:
    """Names and contents of a dataset's tokenizer in the form of transformers; `data` is the tokenizer's own file.

    A sentencepiece model is added as it is, for programs that read it instead. Documents end in the end-of-document
    token and, as in training, begin after one: it is therefore the token of the beginning too.
    """
    content = tokenizer_json(data, record.kind, record.control, record.pattern)
    files = {"tokenizer.json": _json(content)}
    opened = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
    special = _special_tokens(opened, record)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": sequence_length,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "add_eos_token": False,
        **special,
    }
    files |= {"tokenizer_config.json": _json(config), "special_tokens_map.json": _json(special)}
    return files | ({"tokenizer.model": data} if record.kind == "sentencepiece" else {})


def _special_tokens(opened: tokenizers.Tokenizer, record: TokenizerRecord) -> dict[str, Any]:
    end = opened.id_to_token(record.end_of_document)
    pad = opened.id_to_token(record.pad) if record.pad is not None else end
    unknown = json.loads(opened.to_str())["model"].get("unk_token")
    return {"bos_token": end, "eos_token": end, "pad_token": pad} | ({"unk_token": unknown} if unknown else {})


def check_ids(data: bytes, record: TokenizerRecord, content: bytes, texts: Sequence[str]) -> int:
    """How many of some texts get other ids from an exported tokenizer.json than in training.

    RunFailed if they are more than one in a hundred, which is more than the ties that `infra.fast_tokenizer` tells of.
    """
    exported = tokenizers.Tokenizer.from_str(content.decode())
    exported.encode_special_tokens = True
    trained = open_vocabulary(data, record.kind, record.control, record.pattern)
    found = (exported.encode(text, add_special_tokens=False).ids for text in texts)
    different = sum(ours.tolist() != theirs for ours, theirs in zip(trained.encode(texts), found, strict=True))
    if different > _ALLOWED_DIFFERENCE * len(texts):
        raise RunFailed(
            f"{different} of {len(texts)} texts get other ids from the exported tokenizer.json",
            "an exported model reads text as it was trained to",
            "Use the tokenizer's own file with the exported weights",
        )
    return different


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n"
