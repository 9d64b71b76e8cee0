"""The benchmark's figures, and the Markdown that tells them."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

MIB = 1 << 20
FLOORS = {
    "fetch": ("gzip and sha1", ("inflate", "sha1")),
    "extract": ("parse HTML", ("parse",)),
    "signals": ("split at white space", ("split",)),
    "filter": ("Arrow, zstd", ("unzstd", "zstd")),
    "dedup": ("split at white space", ("split",)),
    "redact": ("look for @", ("find",)),
    "tokenize": ("tokenizers' own encoding", ("tokenize",)),
}
"""For each step what it must do at the least, by the rates that limits.py measures: their times add up."""
READS = {
    "fetch": "fetch",
    "extract": "fetch",
    "signals": "extract",
    "filter": "signals",
    "dedup": "filter",
    "redact": "dedup",
    "tokenize": "redact",
}
"""For each step the stage whose kept bytes it reads; fetch counts what it unpacks."""
WORTH_SECONDS = 1.0


@dataclass(frozen=True)
class Row:
    """One comparison: CPU seconds of both sides for the same work, and the largest memory of their processes."""

    name: str
    ours: float
    peer: float
    goal: float | None = None
    our_peak: int = 0
    peer_peak: int = 0
    note: str = ""

    @property
    def ratio(self) -> float:
        """How many times as fast we are."""
        return self.peer / self.ours


@dataclass
class Report:
    """Everything that one run of the benchmark found."""

    command: str
    machine: str
    crawl: str
    texts: int
    text_bytes: int
    ours: dict[str, str]
    peers: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    corpus: dict[str, Any] = field(default_factory=dict)
    workers: dict[int, Any] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """All figures, indented."""
        return json.dumps(asdict(self) | {"ratios": {row.name: row.ratio for row in self.rows}}, indent=1)


def render(report: Report) -> str:
    """Markdown, ready for a log."""
    parts = [
        f"`{report.command}`\n",
        f"{report.machine}. {report.crawl}; filters, MinHash and personal data on {report.texts:,} texts of "
        f"{report.text_bytes / 1e6:.1f} MB.\nOurs: {_versions(report.ours)}. Peers: {_versions(report.peers)}.\n",
    ]
    if report.rows:
        parts.append(_comparisons(report.rows))
    if report.corpus:
        parts.append(_fixed(report.corpus))
    if report.workers:
        parts.append(_steps(report.workers, report.limits))
    return "\n".join(parts)


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _comparisons(rows: list[Row]) -> str:
    lines = ["| CPU seconds of one core | ours | peer | times as fast | goal | peak MiB | peer's | |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---|")
    for row in rows:
        goal = "" if row.goal is None else f"{row.goal:g} {'met' if row.ratio >= row.goal else '**missed**'}"
        peaks = f"{row.our_peak / MIB:.0f} | {row.peer_peak / MIB:.0f}"
        lines.append(
            f"| {row.name} | {row.ours:.2f} | {row.peer:.2f} | **{row.ratio:.1f}** | {goal} | {peaks} | {row.note} |"
        )
    return "\n".join(lines) + "\n"


def _fixed(corpus: dict[str, Any]) -> str:
    ours, peer = corpus["resiliparse"], corpus["peer"]
    steps = ", ".join(f"{name} {spent:.1f}" for name, spent in peer["cpu"].items())
    return (
        f"Left out of the totals: block lists (ours compiles them once for a store: {corpus['lists']:.1f} s; the peer "
        f"loads them in every task: {peer['lists']:.1f} s) and the training of the tokenizer. "
        f"Starting cluster and workers took {ours['start']:.1f} s of ours. The peer's steps: {steps}.\n"
    )


def _steps(workers: dict[int, Any], limits: dict[str, float]) -> str:
    one, two = workers[1], workers[2]
    lines = [
        "| step | MB read | CPU s | MB/s per core | at the least | MB/s | reached | wall s, 1 worker | 2 | speedup |"
    ]
    lines.append("|---|---:|---:|---:|---|---:|---:|---:|---:|---:|")
    for name, cpu in one["cpu"].items():
        walls = one["wall by step"][name], two["wall by step"][name]
        speedup = f"{walls[0] / walls[1]:.2f}" if walls[0] >= WORTH_SECONDS else ""
        size = one["bytes"].get(READS.get(name, ""), 0)
        floor = ["", "", ""]
        if size:
            label, names = FLOORS[name]
            limit = 1 / sum(1 / limits[each] for each in names)
            floor = [label, f"{limit / 1e6:.0f}", f"{size / cpu / limit:.1%}"]
        speed = f"{size / cpu / 1e6:.1f}" if size else ""
        lines.append(
            f"| {name} | {f'{size / 1e6:.1f}' if size else ''} | {cpu:.2f} | {speed} | {' | '.join(floor)} "
            f"| {walls[0]:.2f} | {walls[1]:.2f} | {speedup} |"
        )
    totals = one["stages wall"], two["stages wall"]
    lines.append(f"| all | | {sum(one['cpu'].values()):.2f} | | | | | {totals[0]:.2f} | {totals[1]:.2f} ")
    lines[-1] += f"| {totals[0] / totals[1]:.2f} |"
    rates = ", ".join(f"{name} {value / 1e6:,.0f}" for name, value in limits.items())
    return "\n".join(lines) + f"\n\nOne core of this machine, MB/s: {rates}.\n"
