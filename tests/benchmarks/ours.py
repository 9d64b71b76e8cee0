"""Our side of the benchmark: `python -m tests.benchmarks.ours STEP FOLDER` prints one JSON object.

The steps of single stages give CPU seconds of this process after a warm-up document; `pipeline` and `workers` run all
stages as `gristmill corpus` does (tasks/pipeline.py), without Prefect.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from infra.schema import DOCUMENTS
from infra.store import Store
from tasks.duplicates.dedup import DedupSettings
from tasks.duplicates.minhash import band_keys, minhash
from tasks.extraction.extract import ExtractSettings, page_text
from tasks.privacy.redact import RedactSettings, redact
from tasks.quality.families import QualitySettings, QualitySignalSettings, measure, verdicts
from tasks.sources.fetch import fetch_shard, shard_paths
from tests.benchmarks.inputs import Crawl, load


def seconds(function: Callable[[], Any]) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    function()
    return time.process_time() - start


def read_warc(folder: Path) -> dict[str, Any]:
    """All archives: records checked, pages in Arrow batches."""
    crawl = Crawl.of(folder)
    store, paths = Store("."), shard_paths(crawl.source)
    list(fetch_shard(store, paths[0], crawl.source.model_copy(update={"max_records": 1})))
    return {"seconds": seconds(lambda: [list(fetch_shard(store, path, crawl.source)) for path in paths])}


def extract_pages(folder: Path) -> dict[str, Any]:
    """Each extractor on decoded pages."""
    pages = load(folder / "pages.jsonl.gz")
    result = {}
    for name in ("resiliparse", "article", "trafilatura"):
        settings = ExtractSettings.model_validate({"extractor": name})
        page_text(pages[0], settings)
        result[name] = seconds(lambda settings=settings: [page_text(page, settings) for page in pages])
    return result


def filter_chain(folder: Path) -> dict[str, Any]:
    """Half of the texts in a fresh process, the other half after many others, and that again."""
    texts = load(folder / "texts.jsonl.gz")
    others = load(folder / "others.jsonl.gz")
    first, second = texts[: len(texts) // 2], texts[len(texts) // 2 :]
    settings, thresholds = QualitySignalSettings(rules_language="en"), QualitySettings()
    found: list[bool] = []

    def chain(given: list[str]) -> None:
        _, signals = measure(given, [None] * len(given), settings)
        found[:] = [*found, *(reason is None for reason in verdicts(signals, thresholds).reasons)]

    chain(["One sentence of words.\n"])
    found.clear()
    result: dict[str, Any] = {"cold": seconds(lambda: chain(first))}
    measure(others, [None] * len(others), settings)
    result |= {"warm": seconds(lambda: chain(second)), "kept": found.copy()}
    return result | {"again": seconds(lambda: chain(second))}


def sign_texts(folder: Path) -> dict[str, Any]:
    """From text to band keys, with the sets that candidates are verified by."""
    texts = pa.chunked_array([pa.array(load(folder / "texts.jsonl.gz"), pa.large_string())])
    settings = DedupSettings().signature
    minhash(texts.slice(0, 1), settings)
    return {"seconds": seconds(lambda: band_keys(minhash(texts, settings).values, settings))}


def redact_texts(folder: Path) -> dict[str, Any]:
    """All kinds of personal data, and the peer's two."""
    texts = load(folder / "texts.jsonl.gz")
    rows = [{"id": str(n), "source": "c", "file": "w", "offset": n, "text": text} for n, text in enumerate(texts)]
    table = pa.Table.from_pylist(rows, schema=DOCUMENTS)
    result = {}
    for name, settings in {"all": RedactSettings(), "two": RedactSettings(kinds=("email", "ip"))}.items():
        redact(table.slice(0, 1), settings)
        result[name] = seconds(lambda settings=settings: redact(table, settings))
    return result


STEPS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "warc": read_warc,
    "extract": extract_pages,
    "filters": filter_chain,
    "minhash": sign_texts,
    "pii": redact_texts,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    sys.stdout.write(json.dumps(STEPS[options.step](options.folder)))


if __name__ == "__main__":
    main()
