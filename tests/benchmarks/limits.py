"""How fast one core is at what every stage must do at the least: `python -m tests.benchmarks.limits FOLDER`.

Prints one JSON object: bytes a second, of what is read.
"""

import hashlib
import json
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import xxhash
from resiliparse.parse.html import HTMLTree
from tokenizers import Tokenizer

from tests.benchmarks.inputs import load

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers
REPEATS = 3


def rate(function: Callable[[], int]) -> float:
    """Bytes that the function says it read, a second of CPU time; the best of some tries."""
    best = 0.0
    for _ in range(REPEATS):
        start = time.process_time()
        size = function()
        best = max(best, size / (time.process_time() - start))
    return best


def inflate(paths: list[Path]) -> int:
    """Unpack archives of many gzip members. Returns the bytes that came out."""
    size = 0
    for path in paths:
        data = path.read_bytes()
        while data:
            member = zlib.decompressobj(31)
            size += len(member.decompress(data))
            data = member.unused_data
    return size


def main(folder: Path) -> None:
    """Print all rates."""
    archive = min((folder / "warc").iterdir())
    pages, texts = load(folder / "pages.jsonl.gz"), load(folder / "texts.jsonl.gz")
    page_bytes, joined = sum(len(page.encode()) for page in pages), "\n".join(texts).encode()
    block = np.frombuffer((joined * (1 + (64 << 20) // len(joined)))[: 64 << 20], np.uint8)
    column = pa.array(texts, pa.large_string())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    packed = pa.compress(joined, "zstd", asbytes=True)

    def done(size: int, _: Any) -> int:
        return size

    rates = {
        "copy": rate(lambda: done(block.nbytes, block.copy())),
        "inflate": rate(lambda: inflate([archive])),
        "sha1": rate(lambda: done(block.nbytes, hashlib.sha1(block.data).digest())),
        "sha256": rate(lambda: done(block.nbytes, hashlib.sha256(block.data).digest())),
        "xxh3": rate(lambda: done(block.nbytes, xxhash.xxh3_128_digest(block.data))),
        "zstd": rate(lambda: done(len(joined), pa.compress(joined, "zstd"))),
        "unzstd": rate(lambda: done(len(joined), pa.decompress(packed, len(joined), "zstd"))),
        "parse": rate(lambda: done(page_bytes, [HTMLTree.parse(page) for page in pages])),
        "split": rate(lambda: done(len(joined), [text.split() for text in texts])),
        "find": rate(lambda: done(len(joined), pc.match_substring(column, "@"))),
        "tokenize": rate(lambda: done(len(joined), tokenizer.encode_batch_fast(texts, add_special_tokens=False))),
    }
    sys.stdout.write(json.dumps(rates))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
