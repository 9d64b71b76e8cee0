"""Extraction against expected texts: precision, recall and F1 on word 4-grams by page set, and the cost.

    python -m tests.benchmarks.extraction_quality [--data FOLDER] [--half development|test]

Prints a Markdown table. A page's precision is the share of the extracted text's 4-grams (as a multiset of lower-case
words; of letters and digits where the language writes no spaces) that the expected text has too, its recall the share
of the expected text's that were extracted; cells are means over the pages of a set. Cost is processor seconds of
decoding and extracting, without the guard, as a ratio to resiliparse's main content, the best of three rounds.

Pages fall into halves by a hash of their names: rules were designed on the development half alone.
"""

import argparse
import gzip
import hashlib
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from resiliparse.extract.html2text import extract_plain_text

from tasks.extraction.decode import decode
from tasks.extraction.extract import ExtractSettings, page_text

SETTINGS = {
    "resiliparse, full text": ExtractSettings(extractor="resiliparse", main_content=False),
    "resiliparse, main content": ExtractSettings(extractor="resiliparse"),
    "article": ExtractSettings(extractor="article"),
    "trafilatura, FineWeb": ExtractSettings(extractor="trafilatura"),
    "trafilatura, fast": ExtractSettings(extractor="trafilatura", trafilatura_fast=True),
}
REFERENCE = "resiliparse, main content"
WITHOUT_SPACES = ("jp",)


class Sample(NamedTuple):
    """A page with the text that it should give."""

    pages: str
    name: str
    payload: bytes
    expected: str

    @property
    def half(self) -> str:
        """Which half a page belongs to."""
        return "test" if hashlib.sha256(self.name.encode()).digest()[-1] % 2 else "development"


class Score(NamedTuple):
    """How near a text is to the expected one, each 0 to 1."""

    precision: float
    recall: float
    f1: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/extraction"))
    parser.add_argument("--half", choices=["development", "test"], help="this half of the pages alone")
    options = parser.parse_args()
    samples = [each for each in load(options.data) if options.half in (None, each.half)]
    report(samples)


def load(folder: Path) -> Iterator[Sample]:
    """The pages of readability/ and fundus/."""
    for page in sorted((folder / "readability").iterdir()):
        expected = gzip.decompress((page / "expected.html.gz").read_bytes()).decode()
        text = extract_plain_text(expected, main_content=False, alt_texts=False, list_bullets=False)
        yield Sample("readability", page.name, gzip.decompress((page / "source.html.gz").read_bytes()), text)
    for page in sorted((folder / "fundus").glob("*/*.html.gz")):
        name = page.name.removesuffix(".html.gz")
        articles = json.loads(page.with_name(f"{name.split('_')[0]}.json").read_text())
        payload = gzip.decompress(page.read_bytes())
        yield Sample(page.parent.name, name, payload, matching(articles, payload, page.parent.name in WITHOUT_SPACES))


def matching(articles: dict[str, Any], payload: bytes, letters: bool) -> str:
    """The text of the article, among those of one publisher, that the page holds."""
    page = grams(extract_plain_text(decode(payload, None), main_content=False), letters)
    bodies = [body_text(article["body"]) for article in articles.values()]
    return max(bodies, key=lambda text: shared(grams(text, letters), page) / max(1, grams(text, letters).total()))


def body_text(body: dict[str, Any]) -> str:
    """Summary, headings and paragraphs of an article."""
    sections = [line for section in body["sections"] for line in section["headline"] + section["paragraphs"]]
    return "\n".join([*body["summary"], *sections])


def grams(text: str, letters: bool) -> Counter[tuple[str, ...]]:
    """The 4-grams of a text; a shorter text is one gram."""
    words = re.findall(r"\w" if letters else r"\w+", text.lower())
    return Counter(zip(*(words[start:] for start in range(4)), strict=False) if len(words) >= 4 else [tuple(words)])


def shared(some: Counter[tuple[str, ...]], others: Counter[tuple[str, ...]]) -> int:
    """How many grams two texts have in common."""
    return (some & others).total()


def score(text: str, sample: Sample) -> Score:
    """Precision, recall and F1 of an extracted text."""
    found, expected = (grams(each, sample.pages in WITHOUT_SPACES) for each in (text, sample.expected))
    common = shared(found, expected)
    precision, recall = common / found.total(), common / expected.total()
    return Score(precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0)


def cost(samples: Sequence[Sample], settings: ExtractSettings) -> float:
    """Processor seconds of extracting all pages, the best of three rounds."""
    rounds = []
    for _ in range(3):
        start = time.process_time()
        for sample in samples:
            page_text(decode(sample.payload, None), settings)
        rounds.append(time.process_time() - start)
    return min(rounds)


def report(samples: Sequence[Sample]) -> None:
    """Print the table."""
    write = sys.stdout.write
    sets = list(dict.fromkeys(sample.pages for sample in samples))
    megabytes = sum(len(sample.payload) for sample in samples) / 1e6
    counts = [f"{each} ({sum(sample.pages == each for sample in samples)})" for each in sets]
    write(f"{len(samples)} pages, {megabytes:.0f} MB; precision / recall / **F1** in percent\n\n")
    write("| " + " | ".join(["extractor", *counts, "all", "ms/MB", "cost"]) + " |\n")
    write("|" + "---|" * (len(sets) + 4) + "\n")
    reference = cost(samples, SETTINGS[REFERENCE])
    for name, settings in SETTINGS.items():
        scores = [score(page_text(decode(sample.payload, None), settings), sample) for sample in samples]
        cells = [
            mean([each for each, sample in zip(scores, samples, strict=True) if sample.pages == chosen])
            for chosen in sets
        ]
        seconds = cost(samples, settings)
        figures = [f"{1000 * seconds / megabytes:.1f}", f"{seconds / reference:.2f}x"]
        write("| " + " | ".join([name, *cells, mean(scores), *figures]) + " |\n")


def mean(scores: Sequence[Score]) -> str:
    """A cell: the means of scores."""
    precision, recall, f1 = (100 * fmean(column) for column in zip(*scores, strict=True))
    return f"{precision:.0f} / {recall:.0f} / **{f1:.1f}**"


if __name__ == "__main__":
    main()
