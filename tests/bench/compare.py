"""`make bench`: our corpus stages against datatrove's, on the same bytes, in one run, one process each.

Figures are CPU seconds, which other work on the machine disturbs less than wall time; the ratio is what counts. The
input is part of the sample crawl. Language identification is left out: datatrove fetches its model from elsewhere.
"""

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from infra.store import Store
from tasks.dedup import DedupSettings, signatures
from tasks.extract import ExtractSettings, decode, extract
from tasks.fetch import fetch_shard
from tasks.quality import QualitySettings, judge, quality
from tasks.redact import RedactSettings, redact
from tasks.sample_crawl import SampleCrawlSettings, build_sample_crawl
from tasks.stage import texts
from tasks.transport import SourceSettings, local_url

PEER_SCRIPT = Path(__file__).with_name("peer.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", required=True, help="Python of an environment that holds datatrove")
    parser.add_argument("--root", type=Path, default=Path("gristmill-data"), help="where the sample crawl is or goes")
    parser.add_argument("--pages", type=int, default=200, help="pages to measure on")
    options = parser.parse_args()
    crawl = build_sample_crawl(options.root / "sample-crawl", SampleCrawlSettings())
    shard = crawl.shards[0].path
    source = SourceSettings(base_url=local_url(options.root / "sample-crawl"), crawl=crawl.crawl)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(options.root / "sample-crawl" / shard, f"{folder}/crawl.warc.gz")
        ours, pages, documents = measure(source, shard, options.pages)
        save(Path(folder) / "pages.jsonl.gz", [decode(each, None) for each in pages["payload"].to_pylist() if each])
        save(Path(folder) / "texts.jsonl.gz", texts(documents))
        command = [options.peer, str(PEER_SCRIPT), folder]
        peer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    report(ours, peer, pages, documents)


def measure(source: SourceSettings, shard: str, limit: int) -> tuple[dict[str, float], pa.Table, pa.Table]:
    """CPU seconds of each of our stages, and the pages and texts that they worked on."""
    seconds: dict[str, float] = {}

    def timed(name: str, function: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = function()
        seconds[name] = time.process_time() - start
        return result

    list(fetch_shard(Store("."), shard, source.model_copy(update={"max_records": 1})))
    splits = timed("read WARC", lambda: list(fetch_shard(Store("."), shard, source)))
    pages = pa.concat_tables([split.kept for split in splits]).slice(0, limit)
    extract(pages.slice(0, 1), ExtractSettings())
    documents = timed("extract", lambda: extract(pages, ExtractSettings())).kept
    signatures(documents.slice(0, 1), DedupSettings())
    redact(documents.slice(0, 1), RedactSettings())
    timed("quality", lambda: quality(documents, QualitySettings()))
    timed("signatures", lambda: signatures(documents, DedupSettings()))
    timed("redact", lambda: redact(documents, RedactSettings()))
    return seconds, pages, documents


def save(path: Path, values: list[str]) -> None:
    with gzip.open(path, "wt") as out:
        out.writelines(f"{json.dumps(value)}\n" for value in values)


def report(ours: dict[str, float], peer: dict[str, Any], pages: pa.Table, documents: pa.Table) -> None:
    """Print the table: CPU seconds, documents for each of our CPU seconds, and how many times as fast we are."""
    write = sys.stdout.write
    write(f"{pages.num_rows} pages, {documents.num_rows} texts; datatrove 0.10.1; CPU seconds of one process\n")
    write(f"{'stage':<12}{'ours':>9}{'peer':>9}{'ours/s':>10}{'times as fast':>15}\n")
    for name, seconds in ours.items():
        count = pages.num_rows if name in ("read WARC", "extract") else documents.num_rows
        write(f"{name:<12}{seconds:>9.3f}{peer[name]:>9.3f}{count / seconds:>10.0f}{peer[name] / seconds:>14.1f}x\n")
    verdicts = [judge(text, QualitySettings())[0] is None for text in texts(documents)]
    agreed = sum(a == b for a, b in zip(verdicts, peer["kept by quality"], strict=True))
    write(f"quality verdicts that agree: {agreed} of {len(verdicts)} (ours splits words at white space)\n")
    write("extract: ours is resiliparse, the peer trafilatura with FineWeb's settings\n")
    write("redact: ours also finds phones, cards, IBANs and IPv6; the peer e-mail and IPv4\n")


if __name__ == "__main__":
    main()
