"""The peer's side of the benchmark: datatrove's own blocks on the same bytes, in its own environment.

    python peer.py FOLDER     reads FOLDER/crawl.warc.gz, pages.jsonl and texts.jsonl; prints one JSON object

Every figure is CPU seconds of one process, after one warm-up document.
"""

import gzip
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import GopherQualityFilter
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers.warc import process_record
from datatrove.utils.hashing import HashConfig
from warcio.archiveiterator import ArchiveIterator


def timed(function: Callable[[Any], Any], items: Iterable[Any]) -> float:
    items = list(items)
    function(items[0])
    start = time.process_time()
    for item in items:
        function(item)
    return time.process_time() - start


def read_warc(path: Path) -> float:
    start = time.process_time()
    with path.open("rb") as source:
        documents = [process_record(record) for record in ArchiveIterator(source)]
    assert any(documents)
    return time.process_time() - start


def sign(minhash: MinhashDedupSignature, text: str) -> None:
    shingles = minhash.get_shingles(text)
    if shingles.size:  # as the block itself does: texts under five words have none
        minhash.get_signature(shingles)


def load(path: Path) -> list[str]:
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def main(folder: Path) -> None:
    logging.disable(logging.WARNING)
    pages, texts = load(folder / "pages.jsonl.gz"), load(folder / "texts.jsonl.gz")
    trafilatura = Trafilatura(favour_precision=True, deduplicate=True, timeout=600)
    gopher, pii = GopherQualityFilter(), PIIFormatter()
    minhash = MinhashDedupSignature(str(folder / "signatures"), MinhashConfig(hash_config=HashConfig(hash_fc="sha1")))
    verdicts = [gopher.filter(Document(text=text, id=str(n))) is True for n, text in enumerate(texts)]
    result = {
        "read WARC": read_warc(folder / "crawl.warc.gz"),
        "extract": timed(trafilatura.extract, pages),
        "quality": timed(lambda text: gopher.filter(Document(text=text, id="")), texts),
        "signatures": timed(lambda text: sign(minhash, text), texts),
        "redact": timed(pii.format, texts),
        "kept by quality": verdicts,
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
