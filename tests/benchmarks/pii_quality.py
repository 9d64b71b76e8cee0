"""How well personal data is found: a Markdown table of recall and precision by kind, and what is found where none is.

    python -m tests.benchmarks.pii_quality ../shared/data [--errors KIND]

Recall: annotated spans of a kind that a find of that kind covers wholly, of all such spans. Precision: finds of a kind
that touch an annotation of it, of all its finds but those that the records leave unannotated though a field name
stands before (`Phone: ...`), which have their own column. Private and documentation IP addresses are not personal and
count neither way. Kinds that the annotated records lack are measured on values made here, in sentences with and
without labels, against as many with a wrong digit. Finds are counted in Python's PEPs and in the software manuals of
the crawl mirror, where e-mail addresses of authors are genuine.
"""

import argparse
import gzip
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text

from tasks.extraction.extract import decode
from tasks.privacy.network import find_ips
from tasks.privacy.redact import RedactSettings, find_personal_data
from tasks.privacy.spans import Span
from tests.benchmarks.pii_values import make

ANNOTATED = {
    "email": ("EMAIL_ADDRESS",),
    "phone": ("PHONE_NUMBER", "FAX_NUMBER"),
    "ip": ("IP_ADDRESS", "IPV6_ADDRESS"),
    "mac": ("MAC_ADDRESS",),
    "card": ("CREDIT_CARD_NUMBER",),
    "iban": ("IBAN",),
    "national_id": (
        "SOCIAL_SECURITY_NUMBER",
        "NATIONAL_ID_NUMBER",
        "PASSPORT_NUMBER",
        "DRIVER_LICENSE_NUMBER",
    ),
    "secret": ("API_KEY", "PASSWORD", "AUTHENTICATION_TOKEN"),
    "coordinates": ("LATITUDE_LONGITUDE",),
    "wallet": ("CRYPTOCURRENCY_ADDRESS",),
    "birth_date": ("DATE_OF_BIRTH",),
}
"""Types of the annotated records by our kinds."""


FIELD_NAME = re.compile(r"(?:phone|mac|api[_-]?key|token|pass(?:word)?|ssn|e-?mail)\W{1,4}$", re.IGNORECASE)


@dataclass
class Score:
    """Counts of one kind."""

    annotated: int = 0
    covered: int = 0
    finds: int = 0
    right: int = 0
    unannotated: int = 0
    missed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def score_records(folder: Path, settings: RedactSettings) -> dict[str, Score]:
    """Scores by kind and by annotated type over all records of a folder."""
    scores: dict[str, Score] = defaultdict(Score)
    for file in sorted(folder.glob("test_*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                score_record(json.loads(line), settings, scores)
    return dict(scores)


def score_record(record: dict[str, Any], settings: RedactSettings, scores: dict[str, Score]) -> None:
    """Add one record to the scores."""
    text = record["text"]
    found: dict[str, list[Span]] = defaultdict(list)
    for span, kind in find_personal_data(text, settings, record["language"]):
        found[kind].append(span)
    for kind, types in ANNOTATED.items():
        if kind not in settings.kinds:
            continue
        marked = [each for each in record["annotations"] if each["entity_type"] in types]
        for each in marked:
            if kind == "ip" and not find_ips(f"ip {each['text']}", "public"):
                continue
            whole = any(start <= each["start"] and each["end"] <= end for start, end in found[kind])
            for name in (kind, each["entity_type"]):
                scores[name].annotated += 1
                scores[name].covered += whole
            if not whole:
                scores[kind].missed.append(around(text, (each["start"], each["end"])))
        for start, end in found[kind]:
            touched = any(start < each["end"] and each["start"] < end for each in marked)
            scores[kind].finds += 1
            scores[kind].right += touched
            if not touched and FIELD_NAME.search(text, max(0, start - 16), start):
                scores[kind].unannotated += 1
            elif not touched:
                scores[kind].wrong.append(around(text, (start, end)))


def score_values(settings: RedactSettings, number: int = 100) -> dict[str, tuple[int, int, int]]:
    """For each sort of values made here: how many, how many of them found, and how many wrong ones found."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for sort, value, text, wrong in make(number):
        found = {text[slice(*span)] for span, kind in find_personal_data(text, settings) if kind == sort.kind}
        mistaken = wrong is not None and any(kind == sort.kind for _, kind in find_personal_data(wrong, settings))
        for index, counted in enumerate((1, value in found, mistaken)):
            counts[f"{sort.kind}: {sort.name}"][index] += counted
    return {name: (count[0], count[1], count[2]) for name, count in counts.items()}


def around(text: str, span: Span) -> str:
    """A span in its surroundings, marked."""
    start, end = span
    shown = f"{text[max(0, start - 40) : start]}⟦{text[start:end]}⟧{text[end : end + 20]}"
    return " ".join(shown.split())


def count_finds(texts: Iterator[str], settings: RedactSettings) -> tuple[int, Counter[str], dict[str, list[str]]]:
    """Characters read, finds by kind and the finds themselves."""
    characters, finds = 0, Counter[str]()
    shown: dict[str, list[str]] = defaultdict(list)
    for text in texts:
        characters += len(text)
        for span, kind in find_personal_data(text, settings):
            finds[kind] += 1
            shown[kind].append(around(text, span))
    return characters, finds, shown


def read_lines(file: Path) -> Iterator[str]:
    """Texts of a JSONL file."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def read_manuals(mirror: Path) -> Iterator[str]:
    """Main texts of the software manuals of a crawl mirror."""
    for file in sorted((mirror / "crawl-data").glob("CC-MAIN-2026-91/segments/*/warc/*.warc.gz")):
        with file.open("rb") as source:
            for record in ArchiveIterator(source, record_types=WarcRecordType.response):
                if ".debian.test/" in (record.headers.get("WARC-Target-URI") or ""):
                    yield extract_plain_text(decode(record.reader.read(), None), main_content=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with pii/, text/ and commoncrawl/")
    parser.add_argument("--errors", help="show what was missed and wrongly found of this kind")
    options = parser.parse_args()
    settings = RedactSettings(kinds=(*RedactSettings().kinds, "birth_date"))
    write = sys.stdout.write
    scores = score_records(options.data / "pii", settings)
    write("| kind | annotated | recall | finds | not annotated | precision |\n|---|---:|---:|---:|---:|---:|\n")
    for kind, types in ANNOTATED.items():
        for name in (kind, *types):
            score = scores.get(name, Score())
            if score.annotated and (name == kind or len(types) > 1):
                judged = score.finds - score.unannotated
                precision = f"{score.right / judged:.3f}" if judged else ""
                recall = f"{score.covered / score.annotated:.3f}"
                finds = score.finds or ""
                write(
                    f"| {name} | {score.annotated} | {recall} | {finds} | {score.unannotated or ''} | {precision} |\n"
                )
    write("\n| values made here | values | recall | wrong ones found |\n|---|---:|---:|---:|\n")
    for name, (values, found, mistaken) in score_values(settings).items():
        write(f"| {name} | {values} | {found / values:.3f} | {mistaken} |\n")
    write("\n| where little is personal | million characters | finds by kind |\n|---|---:|---|\n")
    sources = {
        "PEPs": read_lines(options.data / "text" / "peps.jsonl.gz"),
        "software manuals": read_manuals(options.data / "commoncrawl"),
    }
    for name, source in sources.items():
        characters, finds, shown = count_finds(source, settings)
        counted = ", ".join(f"{kind} {number}" for kind, number in sorted(finds.items()))
        write(f"| {name} | {characters / 1e6:.1f} | {counted} |\n")
        for example in shown.get(options.errors or "", []):
            write(f"{name}: {example}\n")
    for example in scores.get(options.errors or "", Score()).missed:
        write(f"missed: {example}\n")
    for example in scores.get(options.errors or "", Score()).wrong:
        write(f"wrong: {example}\n")


if __name__ == "__main__":
    main()
