"""Accuracy of language labels on labelled sentences, against lid.176.ftz alone, as Markdown.

    .venv/bin/python -m tests.benchmarks.language_quality ../shared/data/langid/sentences [--join 1] [--limit 1000]

The folder holds `<code>.txt.gz`, one sentence a line. `--join N` judges N sentences in a row as one text. A language
that lid.176 has no label for counts in "all", not in "known". Times are of the CPU.
"""

import argparse
import gzip
import time
from collections.abc import Sequence
from pathlib import Path

from tasks.quality.language import LanguageSignalSettings, label

UNKNOWN_TO_LID176 = {"lg", "mi", "sn", "st", "tn", "ts", "xh", "zu"}
SAME = {"nb": "no"}
"""lid.176 calls Bokmål by the code of Norwegian."""


def read_sentences(folder: Path, join: int, limit: int | None) -> dict[str, list[str]]:
    """Texts of a folder by language code."""
    found = {}
    for file in sorted(folder.glob("*.txt.gz")):
        lines = gzip.decompress(file.read_bytes()).decode().splitlines()[:limit]
        code = file.name.removesuffix(".txt.gz")
        starts = range(0, len(lines) - join + 1, join)
        found[SAME.get(code, code)] = [" ".join(lines[start : start + join]) for start in starts]
    return found


def accuracy(texts: Sequence[str], code: str, settings: LanguageSignalSettings) -> float:
    """Share of texts that get the label."""
    found = label(texts, settings)["language"].to_pylist()
    return sum(each == code for each in found) / len(texts)


def measured(texts: dict[str, list[str]], settings: LanguageSignalSettings) -> tuple[dict[str, float], float]:
    """Accuracy by language, and texts a second of CPU time."""
    label(["a first text loads the models"], settings)
    started = time.process_time()
    found = {code: accuracy(each, code, settings) for code, each in texts.items()}
    return found, sum(map(len, texts.values())) / (time.process_time() - started)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--join", type=int, default=1)
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    texts = read_sentences(arguments.folder, arguments.join, arguments.limit)
    plain, plain_rate = measured(texts, LanguageSignalSettings(second_opinion=False))
    ours, rate = measured(texts, LanguageSignalSettings())
    print("| language | texts | lid.176.ftz | ours |\n|---|---|---|---|")
    for code, each in texts.items():
        print(f"| {code} | {len(each)} | {plain[code]:.3f} | {ours[code]:.3f} |")
    known = [code for code in texts if code not in UNKNOWN_TO_LID176]
    for name, codes in (("known to lid.176", known), ("all", list(texts))):
        means = [sum(found[code] for code in codes) / len(codes) for found in (plain, ours)]
        total = sum(len(texts[code]) for code in codes)
        print(f"| **{name}** ({len(codes)}) | {total} | **{means[0]:.4f}** | **{means[1]:.4f}** |")
    print(f"| texts/s of one core | | {plain_rate:,.0f} | {rate:,.0f} |")


if __name__ == "__main__":
    main()
