"""What the guard of extraction costs: `python -m tests.benchmarks.guard_cost MIRROR CRAWL [--shards N]`.

CPU seconds of this process and its children, with and without limits, for each extractor, least of some tries; and
what each fork and each page cost.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence

from infra.store import Store
from tasks.extraction.extract import ExtractSettings, Page, guarded_page, open_guard
from tasks.sources.fetch import fetch_shard
from tests.benchmarks.inputs import Crawl

TRIES = 2
EXTRACTORS = ("resiliparse", "article")


def pages_of(crawl: Crawl) -> list[Page]:
    """All pages of a crawl."""
    found = []
    for path in crawl.paths:
        for split in fetch_shard(Store("."), str(path.relative_to(crawl.root)), crawl.source):
            found += [Page(**row) for row in split.kept.select(list(Page._fields)).to_pylist()]
    return found


def seconds(pages: Sequence[Page], settings: ExtractSettings, children: int) -> float:
    """CPU seconds of extracting all pages, shared out among so many children one after the other."""
    tries = []
    for _ in range(TRIES):
        started = sum(os.times()[:4])
        for part in range(children):
            with open_guard(settings) as guard:
                for page in pages[part::children]:
                    guarded_page(page, settings, guard)
        tries.append(sum(os.times()[:4]) - started)
    return min(tries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("crawl")
    parser.add_argument("--shards", type=int)
    options = parser.parse_args()
    pages = pages_of(Crawl(options.root, options.crawl, options.shards))
    for extractor in EXTRACTORS:
        guarded = ExtractSettings.model_validate({"extractor": extractor})
        free = guarded.model_copy(update={"max_cpu_seconds": None, "max_memory_bytes": None})
        plain, one, many = seconds(pages, free, 1), seconds(pages, guarded, 1), seconds(pages, guarded, 11)
        figures = {
            "extractor": extractor,
            "pages": len(pages),
            "seconds": round(plain, 3),
            "more with one child": f"{one / plain - 1:.1%}",
            "milliseconds a fork": round(100 * (many - one), 1),
        }
        sys.stdout.write(f"{json.dumps(figures)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
