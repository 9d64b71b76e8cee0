"""Repeats: lines, paragraphs and spans of words that many documents share are kept in the first of them alone.

Three stages over the whole corpus, each in bounded memory: the *units* of every shard as 64-bit hashes in sorted runs;
the *repeated* ones, found one range of hashes at a time; and the *trimmed* documents, from which they are cut. A unit
is compared after case, digits, punctuation and white space are levelled, as cc_net does. Which document is the first
depends on the order of shards in their listing and on nothing else.

Spans are windows of words whose hash is divisible by a stride (content-defined sampling), so that a passage that is
shared is found wherever it stands: with a stride of 1 exactly (as Lee et al. 2022 do with suffix arrays), with a larger
one up to a few words at its ends. At 10^10 units about three pairs of different units share a 64-bit hash.

Sources: Wenzek et al. 2020 (cc_net, lines); Dolma (paragraphs); Lee et al. 2022, "Deduplicating Training Data Makes
Language Models Better" (spans of 50 tokens). Off by default: FineWeb found that removing repeated lines over the whole
corpus, with all their documents' other lines kept, costs more than it gains (Penedo et al. 2024, section 3.4).
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Literal, NamedTuple, cast

import numpy as np
import pyarrow as pa
import xxhash
from pydantic import Field

from infra.manifest import StageManifest
from infra.settings import Settings, operational
from infra.store import Store
from tasks.sorted_runs import KeyRange, keys_of, plan_ranges, read_ranges, sorted_batches
from tasks.stage import Split, Stage, StageRunner, replace_columns, split_by_reason, texts

Unit = Literal["line", "paragraph", "span"]
UNITS_SCHEMA = pa.schema([pa.field("key", pa.uint64(), nullable=False), pa.field("ref", pa.uint64(), nullable=False)])
"""A unit's hash, and the document that it stands in: number of the shard in the upper half, of the row in the lower."""
TRIMMED_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("removed_units", pa.int64(), nullable=False),
        pa.field("removed_characters", pa.int64(), nullable=False),
    ]
)
_LIBRARIES = ("pyarrow", "numpy", "xxhash")
REPEAT_UNITS = Stage("repeat_units", 1, UNITS_SCHEMA, libraries=_LIBRARIES, compressed=False)
REPEATED = Stage("repeated", 1, UNITS_SCHEMA, libraries=_LIBRARIES, compressed=False)
TRIM = Stage("trim", 1, others={"trimmed": TRIMMED_SCHEMA}, libraries=_LIBRARIES)

_PARAGRAPH = re.compile(r"[^\n]++(?:\n(?!\s*+\n)[^\n]++)*+")
_LINE = re.compile(r"[^\n]++")
_WORD = re.compile(r"\w++")
_SPACE = re.compile(r"\s++")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))


class RepeatSettings(Settings):
    """What counts as repeated across documents, and is cut."""

    units: tuple[Unit, ...] = ()
    """Which units are compared: line, paragraph, span; none switches the stage off."""
    min_documents: int = Field(default=3, ge=2)
    """Documents that must share a unit before it is cut from all but the first."""
    min_characters: int = Field(default=20, ge=1)
    """Shorter lines and paragraphs, after levelling, are let be: they repeat by chance."""
    span_words: int = Field(default=50, ge=5, le=1000)
    """Words in a span (Lee et al. 2022: 50 tokens)."""
    span_stride: int = Field(default=8, ge=1, le=64)
    """One window in so many is compared; 1 compares all, at eight times the disk space of 8."""
    max_removed_share: float = Field(default=0.5, ge=0, le=1)
    """Documents that lose a larger share of their characters are dropped as mostly_repeated."""
    range_bytes: int = operational(256 << 20, ge=1 << 16)
    """Memory for the units that one task compares."""


class Place(NamedTuple):
    """A unit in a text: its hash and where it stands, in characters."""

    key: int
    start: int
    end: int


def repeats(runner: StageRunner, parent: StageManifest, settings: RepeatSettings) -> list[StageManifest]:
    """Cut repeated units out of all documents of a stage: the manifests of the three stages, the documents' last."""
    units = runner.run(REPEAT_UNITS, unit_rows, parent.kept_paths, settings, {parent.stage: parent.digest})
    ranges = plan_ranges(runner.store, units.kept_paths, settings.range_bytes)
    found = Repeated(tuple(units.kept_paths))
    sources = [str(each) for each in ranges]
    repeated = runner.run(REPEATED, found, sources, settings, {units.stage: units.digest, "ranges": "|".join(sources)})
    # The trimmed documents depend on which units repeat, not on how the ranges were cut.
    parents = {parent.stage: parent.digest, units.stage: units.digest}
    return [units, repeated, runner.run(TRIM, Trim(tuple(repeated.kept_paths)), parent.kept_paths, settings, parents)]


def unit_rows(store: Store, source: str, settings: RepeatSettings) -> Iterator[Split]:
    """The shard function of the first stage: each document's units, once, in sorted runs."""
    for rows in sorted_batches(_unit_tables(store, source, settings)):
        yield Split(rows)


def _unit_tables(store: Store, source: str, settings: RepeatSettings) -> Iterator[pa.Table]:
    reader, row = store.open_table(source, ["text"]), shard_number(source) << 32
    for index in range(reader.num_record_batches):
        keys, refs = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        for text in cast("list[str]", reader.get_batch(index)["text"].to_pylist()):
            own = np.unique(np.array([place.key for place in places(text, settings)], dtype=np.uint64))
            keys.append(own)
            refs.append(np.full(len(own), row, np.uint64))
            row += 1
        yield pa.table([pa.array(np.concatenate(keys)), pa.array(np.concatenate(refs))], schema=UNITS_SCHEMA)


def shard_number(path: str) -> int:
    """The number of a shard, from its file's name."""
    return int(PurePosixPath(path).name.split("-")[1])


@dataclass(frozen=True)
class Repeated:
    """The shard function of the second stage: one range of hashes over all shards."""

    paths: tuple[str, ...]

    def __call__(self, store: Store, source: str, settings: RepeatSettings) -> Iterator[Split]:
        """Yield (document, unit) to cut, in sorted runs by document."""
        rows = read_ranges(store, self.paths, KeyRange.parse(source))
        keys, refs = keys_of(rows), keys_of(rows, "ref")
        order = np.lexsort((refs, keys))
        keys, refs = keys[order], refs[order]
        first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, np.int64)
        documents = np.diff(np.append(first, len(keys)))
        cut = np.repeat(documents >= settings.min_documents, documents)
        cut[first] = False
        for table in sorted_batches([pa.table([keys[cut], refs[cut]], schema=UNITS_SCHEMA)], "ref"):
            yield Split(table)


@dataclass(frozen=True)
class Trim:
    """The shard function of the third stage, with where the repeated units are listed."""

    paths: tuple[str, ...]

    def __call__(self, store: Store, source: str, settings: RepeatSettings) -> Iterator[Split]:
        """Yield the batches of a shard, trimmed."""
        reader, row = store.open_table(source), shard_number(source) << 32
        for index in range(reader.num_record_batches):
            table = pa.Table.from_batches([reader.get_batch(index)])
            rows = read_ranges(store, self.paths, KeyRange(row, row + table.num_rows), "ref")
            yield trim(table, keys_of(rows, "ref") - np.uint64(row), keys_of(rows), settings)
            row += table.num_rows


def trim(table: pa.Table, rows: np.ndarray, keys: np.ndarray, settings: RepeatSettings) -> Split:
    """Cut units (row of the table, hash) out of the texts. Drops mostly_repeated (value: share that was cut)."""
    repeated: dict[int, set[int]] = {}
    for row, key in zip(rows.tolist(), keys.tolist(), strict=True):
        repeated.setdefault(row, set()).add(key)
    before = texts(table)
    after, units = list(before), [0] * len(before)
    for row, own in repeated.items():
        after[row], units[row] = cut_units(before[row], own, settings)
    lost = [len(text) - len(left) for text, left in zip(before, after, strict=True)]
    shares = [gone / max(len(text), 1) for gone, text in zip(lost, before, strict=True)]
    reasons = ["mostly_repeated" if each > settings.max_removed_share else None for each in shares]
    chosen = [reason is None for reason in reasons]
    left_texts = [left if keep else text for left, text, keep in zip(after, before, chosen, strict=True)]
    kept, dropped = split_by_reason(replace_columns(table, {"text": left_texts}), TRIM.name, reasons, shares)
    touched = sorted(repeated)
    columns = [table["id"].take(pa.array(touched, pa.int64())), [units[row] for row in touched]]
    trimmed = pa.table([*columns, [lost[row] for row in touched]], schema=TRIMMED_SCHEMA)
    counters = {"removed_units": sum(units), "removed_characters": sum(lost), "trimmed_documents": len(touched)}
    return Split(kept, dropped, {"trimmed": trimmed}, counters)


def cut_units(text: str, repeated: set[int], settings: RepeatSettings) -> tuple[str, int]:
    """A text without its repeated units, and how many they were."""
    gone = [place for place in places(text, settings) if place.key in repeated]
    parts, end = [], 0
    for place in sorted(gone, key=lambda each: each.start):
        parts.append(text[end : max(place.start, end)])
        end = max(end, place.end)
    left = "".join([*parts, text[end:]])
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"(?m)^[ \t]++\n", "\n", left)).strip(), len(gone)


def places(text: str, settings: RepeatSettings) -> list[Place]:
    """All units of a text that are compared."""
    found: list[Place] = []
    for kind, pattern in (("line", _LINE), ("paragraph", _PARAGRAPH)):
        if kind in settings.units:
            for match in pattern.finditer(text):
                level = levelled(match.group())
                if len(level) >= settings.min_characters:
                    found.append(Place(_hash(f"{kind}:{level}"), *match.span()))
    return found + _spans(text, settings) if "span" in settings.units else found


def levelled(text: str) -> str:
    """A text without what cc_net ignores: case, accents, punctuation, the value of digits, the width of white space."""
    letters = unicodedata.normalize("NFD", text.lower()).translate(_levelling())
    return _SPACE.sub(" ", letters).strip()


@lru_cache(maxsize=1)
def _levelling() -> dict[int, str | None]:
    """What `levelled` changes: digits to 0, punctuation and combining marks to nothing."""
    table: dict[int, str | None] = {}
    for code in range(0x110000):
        category = unicodedata.category(chr(code))
        if category == "Nd":
            table[code] = "0"
        elif category == "Mn" or category[0] == "P":
            table[code] = None
    return table


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


def _spans(text: str, settings: RepeatSettings) -> list[Place]:
    """Windows of words, chosen by their hash so that equal passages have equal windows chosen."""
    words = list(_WORD.finditer(text.lower() if text.isascii() else text))
    width = settings.span_words
    if len(words) < width:
        return []
    hashes = np.array([_hash(word.group()) for word in words], dtype=np.uint64)
    keys = window_hashes(hashes, width)
    chosen = np.flatnonzero(keys % np.uint64(settings.span_stride) == 0).tolist()
    return [Place(int(keys[start]), words[start].start(), words[start + width - 1].end()) for start in chosen]


def window_hashes(hashes: np.ndarray, width: int) -> np.ndarray:
    """A hash of each window of so many words: a polynomial in their hashes modulo 2^64, mixed (Murmur3's finaliser)."""
    count = len(hashes)
    powers = np.cumprod(np.concatenate([[np.uint64(1)], np.full(count, _MULTIPLIER)]), dtype=np.uint64)
    inverses = np.cumprod(np.concatenate([[np.uint64(1)], np.full(count, _INVERSE)]), dtype=np.uint64)
    sums = np.concatenate([[np.uint64(0)], np.cumsum(hashes * inverses[:count], dtype=np.uint64)])
    keys = (sums[width:] - sums[:-width]) * powers[: count - width + 1]
    for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53)):
        keys = (keys ^ (keys >> np.uint64(shift))) * np.uint64(factor)
    return keys ^ (keys >> np.uint64(33))
