"""The peers' side of the benchmark: datatrove's own blocks, and rensa, on the same bytes, in their own environment.

    python peer.py STEP FOLDER     prints one JSON object

Figures are CPU seconds of one process, after one warm-up document.
"""

import gzip
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers.warc import process_record
from datatrove.utils.hashing import HashConfig
from rensa import CMinHash, RMinHash
from warcio.archiveiterator import ArchiveIterator

WORD = re.compile(r"\w+")
NGRAM, PERMUTATIONS, SEED = 5, 112, 1


def seconds(function: Callable[[], Any]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def timed(function: Callable[[Any], Any], items: Iterable[Any]) -> float:
    items = list(items)
    function(items[0])
    return seconds(lambda: [function(item) for item in items])


def load(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def read_warc(folder: Path) -> dict[str, Any]:
    """As WarcReader does, without its counters."""

    def read(path: Path) -> None:
        with path.open("rb") as source:
            documents = [process_record(record) for record in ArchiveIterator(source)]
            assert any(documents)

    return {"seconds": seconds(lambda: [read(path) for path in sorted((folder / "warc").iterdir())])}


def extract_pages(folder: Path) -> dict[str, Any]:
    extractor = Trafilatura(favour_precision=True, deduplicate=True, timeout=600)
    return {"trafilatura": timed(extractor.extract, load(folder / "pages.jsonl.gz"))}


def filter_chain(folder: Path) -> dict[str, Any]:
    """The four filters of the FineWeb recipe; a document that one drops is not seen by the next. As on our side, the
    second half of the texts comes after many others."""
    texts = load(folder / "texts.jsonl.gz")
    filters = [
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    ]
    found: list[bool] = []

    def chain(given: list[str]) -> None:
        for text in given:
            document = Document(text=text, id="")
            found.append(all(each.filter(document) is True for each in filters))

    for each in filters:
        each.filter(Document(text="One sentence of words.\n", id=""))
    half, result = len(texts) // 2, {}
    result["cold"] = seconds(lambda: chain(texts[:half]))
    kept = found.copy()
    chain(load(folder / "others.jsonl.gz"))
    found.clear()
    result["warm"] = seconds(lambda: chain(texts[half:]))
    kept += found

    def every(given: list[str]) -> None:
        for text in given:
            for each in filters:
                each.filter(Document(text=text, id=""))

    return {**result, "kept": kept, "every": seconds(lambda: every(texts[half:]))}


def sign_texts(folder: Path) -> dict[str, Any]:
    """datatrove with FineWeb's hash and with its default; rensa, each way that it has, on our shingles."""
    texts = load(folder / "texts.jsonl.gz")
    result = {}
    for name in ("sha1", "xxhash"):
        block = MinhashDedupSignature(str(folder / "signatures"), MinhashConfig(hash_config=HashConfig(hash_fc=name)))

        def sign(text: str, block: MinhashDedupSignature = block) -> None:
            hashes = block.get_shingles(text)
            if hashes.size:  # as the block itself does: texts under five words have none
                block.get_signature(hashes)

        result[f"datatrove {name}"] = timed(sign, texts)
    sketches = {
        "RMinHash": RMinHash.digests_from_token_sets,
        "RMinHash matrix": RMinHash.digest_matrix_from_token_sets,
        "RMinHash matrix rho": RMinHash.digest_matrix_from_token_sets_rho,
        "CMinHash": CMinHash.digests_from_token_sets,
    }
    for name, sketch in sketches.items():
        sketch([shingles(texts[0])], PERMUTATIONS, SEED)
        spent = seconds(lambda sketch=sketch: sketch([shingles(text) for text in texts], PERMUTATIONS, SEED))
        result[f"rensa {name}"] = spent
    result["shingles"] = seconds(lambda: [shingles(text) for text in texts])
    return result


def shingles(text: str) -> list[str]:
    """Ours: neighbouring words of the lower-case text; one shingle of a text that has fewer."""
    words = WORD.findall(text.lower())
    if len(words) < NGRAM:
        return [" ".join(words)] if words else []
    return list(map(" ".join, zip(*(words[start:] for start in range(NGRAM)), strict=False)))


def redact_texts(folder: Path) -> dict[str, Any]:
    return {"two": timed(PIIFormatter().format, load(folder / "texts.jsonl.gz"))}


STEPS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "warc": read_warc,
    "extract": extract_pages,
    "filters": filter_chain,
    "minhash": sign_texts,
    "pii": redact_texts,
}


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    sys.stdout.write(json.dumps(STEPS[sys.argv[1]](Path(sys.argv[2]))))
