"""What deduplication finds: `python -m tests.benchmarks.neardup_quality ../shared/data`.

Real pairs of pages by their exact Jaccard of word 5-grams, and a crawl of the mirror (its own text extraction, no
filters) against the index of the crawl before it. Prints one JSON object.
"""

import argparse
import gzip
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastwarc.warc import ArchiveIterator, WarcRecordType

from infra.cluster import open_cluster
from infra.environment import Environment
from infra.store import Store
from tasks.duplicates.dedup import DedupSettings, dedup
from tasks.duplicates.dedup_index import add_segment
from tasks.stage import StageRunner
from tests.tasks.documents import Row, dropped_rows, stage_of

CRAWLS = ("CC-MAIN-2026-91", "CC-MAIN-2026-92")
SURE, APART, EDITED = 0.85, 0.5, 0.7


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a gzipped JSONL file."""
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().strip().split("\n")]


def pairs(runner: StageRunner, data: Path) -> dict[str, str]:
    """Pairs that are surely alike and were caught, and pairs that are surely not and were merged."""
    every = lines(data / "neardup/pairs.jsonl.gz")
    texts = sorted({pair[side] for pair in every for side in ("text_a", "text_b")})
    number = {text: str(n) for n, text in enumerate(texts)}
    given = stage_of(runner.store, [[{"id": str(n), "text": text} for n, text in enumerate(texts)]])
    result = dedup(runner, given, DedupSettings())
    survivors = {name: row["detail"] for name, row in dropped_rows(runner.store, result.unique).items()}
    ids = [(pair["jaccard5"], number[pair["text_a"]], number[pair["text_b"]]) for pair in every]
    alike = [one == two or not {one, two}.isdisjoint(survivors) for share, one, two in ids if share >= SURE]
    apart = [two in (survivors.get(one), one) or survivors.get(two) == one for share, one, two in ids if share < APART]
    return {"caught": f"{sum(alike)} of {len(alike)}", "merged though apart": f"{sum(apart)} of {len(apart)}"}


def crawl(root: Path, name: str) -> list[Row]:
    """The documents of a crawl as its WET files have them."""
    rows: list[Row] = []
    for path in gzip.decompress((root / f"crawl-data/{name}/wet.paths.gz").read_bytes()).decode().split():
        with (root / path).open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.conversion):
                url, text = str(record.headers["WARC-Target-URI"]), record.reader.read().decode("utf-8", "replace")
                digest = hashlib.sha256(f"{name} {url} {len(rows)}".encode()).hexdigest()[:32]
                rows.append({"id": digest, "url": url, "text": text, "source": name})
    return rows


def shingles(text: str) -> set[str]:
    """Word 5-grams."""
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[at : at + 5]) for at in range(max(len(words) - 4, 1))}


def jaccard(one: set[str], two: set[str]) -> float:
    """Share of two sets that they have in common."""
    return len(one & two) / max(len(one | two), 1)


def refresh(runner: StageRunner, root: Path) -> dict[str, str]:
    """Of the second crawl: unchanged pages that were dropped for a named document, edited ones that were dropped."""
    old, new = (crawl(root, name) for name in CRAWLS)
    settings = DedupSettings(index="mirror")
    first = dedup(runner, stage_of(runner.store, [old]), settings)
    add_segment(runner, "mirror", "crawl", "1", first.signed, first.unique)
    gone = dropped_rows(runner.store, dedup(runner, stage_of(runner.store, [new]), settings).unique)
    kind = {line["url"]: line["kind"] for line in lines(root / f"manifest-{CRAWLS[1]}.jsonl.gz")}
    by_url = {row["url"]: row for row in dropped_rows(runner.store, first.unique).values()}
    held = [row["url"] for row in old if by_url.get(row["url"], {}).get("reason") != "url_duplicate"]
    before = {row["url"]: shingles(row["text"]) for row in old}
    same = [row for row in new if kind.get(row["url"]) == "same" and row["url"] in held]
    edited = [
        row
        for row in new
        if kind.get(row["url"]) == "edit" and jaccard(before.get(row["url"], set()), shingles(row["text"])) >= EDITED
    ]
    return {"unchanged": _dropped(same, gone), "edited": _dropped(edited, gone)}


def _dropped(rows: Iterable[Row], gone: dict[str, Any]) -> str:
    found = [str(gone.get(row["id"], {}).get("detail")).startswith("crawl/1:") for row in rows]
    return f"{sum(found)} of {len(found)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    with tempfile.TemporaryDirectory() as root, open_cluster(Environment(root=root, workers=1)) as cluster:
        runner = StageRunner(Store(root), cluster)
        found = {"pairs": pairs(runner, data), "refresh": refresh(runner, data / "commoncrawl")}
    sys.stdout.write(f"{json.dumps(found, indent=1)}\n")


if __name__ == "__main__":
    main()
