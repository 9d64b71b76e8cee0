"""Examples: documents that each rule dropped beside documents that barely passed it, and the words of each language.

People judge a filter by reading what it does. Each shard of a sample hands on, for every reason, the documents whose
hash comes first, and for every rule the kept documents whose signal lies nearest to its threshold. Which they are
depends on documents alone, never on workers. The texts are as they were before redaction, hence private.
"""

import heapq
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
from pydantic import Field

from infra.manifest import StageManifest
from infra.settings import Settings
from infra.store import Store
from tasks.filters import FilterInputs, comparisons
from tasks.heldout import share
from tasks.quality.word_rules import UNSPACED
from tasks.rules import signal_values
from tasks.stage import Split, Stage, StageRunner

pc: Any = pyarrow.compute  # its functions are made when it is imported: types know few of them

EXAMPLES_SCHEMA = pa.schema(
    [
        pa.field("reason", pa.string(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("order", pa.float64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.large_string()),
        pa.field("language", pa.string()),
        pa.field("stage", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("detail", pa.large_string()),
        pa.field("text", pa.large_string()),
    ]
)
WORDS_SCHEMA = pa.schema(
    [
        pa.field("language", pa.string()),
        pa.field("word", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ]
)
EXAMPLES = Stage("examples", 3, EXAMPLES_SCHEMA, {"words": WORDS_SCHEMA}, libraries=("pyarrow", "numpy"))
_COLUMNS = ["id", "url", "language", "text", "stage", "reason", "value", "detail"]
_WORD = re.compile(r"[^\W\d_]{2,}")
_CHARACTER = re.compile(r"[a-z]{2,}|[^\W\d_a-z]")  # where no spaces stand between words


class ExampleSettings(Settings):
    """How many examples people get to see."""

    per_rule: int = Field(default=6, ge=0, le=100)
    """Documents that a rule dropped, and as many that it nearly dropped."""
    characters: int = Field(default=1500, ge=100)
    """Length at which their texts are cut."""
    shards: int = Field(default=16, ge=1)
    """Shards to choose from, evenly spaced."""
    words: int = Field(default=40, ge=0)
    """Most frequent words of each language."""


class ExampleInputs(Settings):
    """What decides the bytes of the examples."""

    examples: ExampleSettings
    filter: FilterInputs


class Examples(NamedTuple):
    """What people get to read."""

    documents: pa.Table
    """Rows of EXAMPLES_SCHEMA."""
    words: pa.Table
    """Rows of WORDS_SCHEMA."""


def examples(
    runner: StageRunner, passed: Sequence[StageManifest], measured: StageManifest, settings: ExampleInputs
) -> Examples:
    """Examples and word counts of a dataset, from the stages that its documents passed; `filter` is among them."""
    parts = [shard.kept.path.removesuffix(".arrow") for shard in passed[0].shards]
    chosen = parts[:: -(-len(parts) // settings.examples.shards)]
    judged = next(each for each in passed if each.stage == "filter")
    function = ExampleShard(tuple(each.folder for each in passed), judged.folder, f"{measured.folder}/signals")
    parents = {each.stage: each.digest + each.fingerprint for each in passed}
    manifest = runner.run(EXAMPLES, function, chosen, settings, parents)
    found = pa.concat_tables([runner.store.read_table(path) for path in manifest.kept_paths])
    words = [runner.store.read_table(f"{manifest.folder}/{each.others['words'].path}") for each in manifest.shards]
    return Examples(first_of_each(found, settings.examples.per_rule), most_frequent(words, settings.examples.words))


@dataclass(frozen=True)
class ExampleShard:
    """The shard function."""

    folders: tuple[str, ...]
    judged: str
    signals: str

    def __call__(self, store: Store, part: str, settings: ExampleInputs) -> Iterator[Split]:
        """Yield the examples of one shard."""
        chosen = settings.examples
        dropped = [store.read_table(f"{folder}/dropped/{part}.arrow", _COLUMNS) for folder in self.folders]
        kept = store.read_table(f"{self.judged}/{part}.arrow", ["id", "url", "language", "text"])
        signals = store.read_table(f"{self.signals}/{part}.arrow")
        found = [self._lost(table, chosen) for table in dropped]
        found.append(self._nearly_lost(kept, signals, settings))
        words = count_words(kept, 20 * chosen.words)
        yield Split(first_of_each(pa.concat_tables(found), chosen.per_rule), others={"words": words})

    def _lost(self, dropped: pa.Table, settings: ExampleSettings) -> pa.Table:
        order = [share(f"example:{each}") for each in dropped["id"].to_pylist()]
        rows = _first(dropped["reason"].to_pylist(), order, settings.per_rule)
        table = dropped.take(pa.array(rows, pa.int64()))
        return _examples(table, table["reason"], False, [order[row] for row in rows], None, settings)

    def _nearly_lost(self, kept: pa.Table, signals: pa.Table, settings: ExampleInputs) -> pa.Table:
        """For each rule the kept documents nearest to its threshold, on the side that passes."""
        signals = signals.take(pc.index_in(kept["id"], signals["id"].combine_chunks()))
        found = [EXAMPLES_SCHEMA.empty_table()]
        for rule, given in comparisons(settings.filter, signals):
            if given is None or kept.num_rows == 0:
                continue
            values = signal_values(signals, rule.signal)
            limit = np.broadcast_to(np.asarray(given, dtype=np.float64), values.shape)
            distance = np.abs(values - limit)
            near = np.argsort(np.where(np.isfinite(distance), distance, np.inf), kind="stable")
            rows = [int(row) for row in near[: settings.examples.per_rule] if np.isfinite(distance[row])]
            table = kept.take(pa.array(rows, pa.int64()))
            table = table.append_column("value", pa.array(values[rows]))
            reasons = pa.array([rule.reason] * len(rows), pa.string())
            found.append(_examples(table, reasons, True, distance[rows].tolist(), limit[rows], settings.examples))
        return pa.concat_tables(found)


def _examples(
    table: pa.Table, reasons: Any, kept: bool, order: Sequence[float], threshold: Any, settings: ExampleSettings
) -> pa.Table:
    rows = table.num_rows
    columns = {name: table[name] for name in table.column_names if name in EXAMPLES_SCHEMA.names}
    columns |= {
        "reason": reasons,
        "kept": pa.array([kept] * rows, pa.bool_()),
        "order": pa.array(order, pa.float64()),
        "threshold": pa.nulls(rows, pa.float64()) if threshold is None else pa.array(threshold),
        "text": pc.utf8_slice_codeunits(table["text"], 0, settings.characters),
    }
    arrays = [columns[each.name] if each.name in columns else pa.nulls(rows, each.type) for each in EXAMPLES_SCHEMA]
    return pa.table(arrays, schema=EXAMPLES_SCHEMA)


def _first(groups: Sequence[str], order: Sequence[float], count: int) -> list[int]:
    """Rows that come first in their group."""
    members: dict[str, list[tuple[float, int]]] = {}
    for row, (group, place) in enumerate(zip(groups, order, strict=True)):
        members.setdefault(group, []).append((place, row))
    return [row for group in sorted(members) for _, row in heapq.nsmallest(count, members[group])]


def first_of_each(table: pa.Table, count: int) -> pa.Table:
    """The first examples of each reason, dropped and kept."""
    table = table.sort_by([("reason", "ascending"), ("kept", "ascending"), ("order", "ascending"), ("id", "ascending")])
    pairs = zip(table["reason"].to_pylist(), table["kept"].to_pylist(), strict=True)
    groups = [f"{reason}/{kept}" for reason, kept in pairs]
    rows = sorted(_first(groups, list(range(len(groups))), count))
    return table.take(pa.array(rows, pa.int64())).combine_chunks()


def count_words(kept: pa.Table, count: int) -> pa.Table:
    """Most frequent words of each language, in lower case; single characters where words have no spaces between."""
    counters: dict[str | None, Counter[str]] = {}
    for language, text in zip(kept["language"].to_pylist(), kept["text"].to_pylist(), strict=True):
        word = _CHARACTER if language in UNSPACED else _WORD
        counters.setdefault(language, Counter()).update(word.findall(text.lower()))
    return _word_rows(counters, count)


def most_frequent(tables: Sequence[pa.Table], count: int) -> pa.Table:
    """Word counts added up, the most frequent of each language."""
    counters: dict[str | None, Counter[str]] = {}
    for table in tables:
        for row in table.to_pylist():
            counters.setdefault(row["language"], Counter())[row["word"]] += row["count"]
    return _word_rows(counters, count)


def _word_rows(counters: dict[str | None, Counter[str]], count: int) -> pa.Table:
    rows = [
        {"language": language, "word": word, "count": number}
        for language in sorted(counters, key=lambda each: each or "")
        for word, number in _most_common(counters[language], count)
    ]
    return pa.Table.from_pylist(rows, schema=WORDS_SCHEMA)


def _most_common(counter: Counter[str], count: int) -> list[tuple[str, int]]:
    """The most frequent words, equally frequent ones by name; only those that may be among them are sorted."""
    least = min(sorted(counter.values(), reverse=True)[:count], default=0)
    common = [item for item in counter.items() if item[1] >= least]
    return sorted(common, key=lambda item: (-item[1], item[0]))[:count]
