"""The oracle: datatrove's four quality filters, its word and its sentence splitter, in its own environment.

    python datatrove_rules.py IN OUT

IN is gzipped JSON: {"texts": [...], "strings": {language: [...]}}. OUT is gzipped JSON as well:
{"texts": [{"reasons": [reason or null of each filter], "edited": text or null, "values": {...} or null}],
"strings": {language: [[tokens, sentences], ...]}, "marks": {"terminal": [...], "punctuation": [...]}}. Every filter
judges every text, but FineWeb's only those that C4's has edited; values are of every fourth text. Texts under "timed"
are only judged as the pipeline does, and "seconds" is the CPU time of that.
"""

import gzip
import json
import logging
import re
import sys
import time
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.gopher_quality_filter import STOP_WORDS
from datatrove.pipeline.filters.gopher_repetition_filter import (
    find_all_duplicate,
    find_duplicates,
    find_top_duplicate,
    get_n_grams,
)
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION, split_into_sentences, split_into_words
from loguru import logger


def judge(filters: list[Any], text: str, measured: bool) -> dict[str, Any]:
    repetition, quality, c4, fineweb = filters
    document = Document(text=text, id="")
    reasons = [reason(repetition.filter(document)), reason(quality.filter(document)), reason(c4.filter(document)), None]
    edited = document.text if reasons[2] is None else None
    if edited is not None:
        reasons[3] = reason(fineweb.filter(document))
    return {"reasons": reasons, "edited": edited, "values": values(text) if measured else None}


def chain(filters: list[Any], text: str) -> str | None:
    """The first reason, as the pipeline gives it: what is timed."""
    document = Document(text=text, id="")
    for each in filters:
        if (found := reason(each.filter(document))) is not None:
            return found
    return None


def reason(result: Any) -> str | None:
    return result[1] if isinstance(result, tuple) else None


def values(text: str) -> dict[str, float]:
    words = split_into_words(text)
    top = {f"top_{n}_gram": find_top_duplicate(get_n_grams(words, n)) for n in (2, 3, 4) if len(words) >= n}
    repeated = {f"duplicate_{n}_grams": find_all_duplicate(words, n) for n in range(5, 11)}
    lines = find_duplicates(re.split("\n+", text))
    symbolless = [word for word in words if any(character not in PUNCTUATION_SET for character in word)]
    return {
        **{name: value / len(text) for name, value in (top | repeated).items()},
        "duplicate_line_characters": lines[1] / len(text),
        "words": len(words),
        "nonsymbol_words": len(symbolless),
        "alphabetic_words": sum(any(map(str.isalpha, word)) for word in words) / len(words),
        "stop_words": len(set(STOP_WORDS).intersection(words)),
    }


def main(source: Path, target: Path) -> None:
    logging.disable(logging.WARNING)
    logger.remove()
    given = json.loads(gzip.decompress(source.read_bytes()))
    filters = [
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),  # as in the FineWeb recipe
        FineWebQualityFilter(),
    ]
    chain(filters, "Warm up.")
    start = time.process_time()
    timed = [chain(filters, text) for text in given.get("timed", [])]
    seconds = time.process_time() - start
    result = {
        "seconds": seconds,
        "timed": timed,
        "texts": [judge(filters, text, number % 4 == 0) for number, text in enumerate(given["texts"])],
        "strings": {
            language: [[split_into_words(text, language), len(split_into_sentences(text, language))] for text in texts]
            for language, texts in given.get("strings", {}).items()
        },
        "marks": {"terminal": sorted(TERMINAL_PUNCTUATION), "punctuation": sorted(PUNCTUATION_SET)},
    }
    target.write_bytes(gzip.compress(json.dumps(result).encode()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
