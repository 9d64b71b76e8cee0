"""Mixing: how often documents of each source, language and bucket are in the training data.

A weight below one keeps that share of a group's documents, chosen by a hash of the id; a weight above one repeats
them: 2.3 means two copies of each document and a third of three in ten. Copies bear the id of the document with `#2`,
`#3`, ... behind it, and its provenance. The first entry of the weights that matches a document counts.

Instead of weights, shares of the mixture's bytes can be given; `resolve_mix` computes the weights from measured sizes.
Repeating pays up to about four times (Muennighoff et al. 2023), which is the default limit.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from infra.errors import BadInput
from infra.manifest import StageManifest
from infra.settings import Settings
from infra.store import Store
from tasks.heldout import share
from tasks.stage import Split, Stage, drop, replace_columns

MIX = Stage("mix", 1)
NOT_SAMPLED = "not_sampled"
COPY_MARK = "#"
REPORT_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("source", "language", "bucket")),
        *(pa.field(f"documents_{when}", pa.int64(), nullable=False) for when in ("before", "after")),
        *(pa.field(f"bytes_{when}", pa.int64(), nullable=False) for when in ("before", "after")),
    ]
)


class Group(NamedTuple):
    """Documents that are weighed alike; an empty name stands for none."""

    source: str
    language: str
    bucket: str


class Selector(Settings):
    """Which documents are meant. Patterns know * ? [abc]; an empty one means documents without language or bucket."""

    source: str = "*"
    """Pattern of the source: a crawl such as CC-MAIN-2026-*, or a collection."""
    language: str = "*"
    """Pattern of the language code."""
    bucket: str = "*"
    """Pattern of the bucket."""

    def matches(self, group: Group) -> bool:
        """Whether a group's documents are meant."""
        patterns = (self.source, self.language, self.bucket)
        return all(fnmatchcase(name, pattern) for name, pattern in zip(group, patterns, strict=True))

    def __str__(self) -> str:
        return f"{self.source}/{self.language}/{self.bucket}"


class MixWeight(Selector):
    """A selection and its weight."""

    weight: float = Field(ge=0, le=100)
    """How often each document is in the mixture, on average."""


class MixShare(Selector):
    """A selection and its share."""

    share: float = Field(gt=0, le=1)
    """Share of the mixture's bytes."""


class MixSettings(Settings):
    """What is sampled, and how often."""

    weights: tuple[MixWeight, ...] = ()
    """Weights; the first that matches a document counts."""
    default_weight: float = Field(default=1.0, ge=0, le=100)
    """Weight of documents that no entry matches."""
    shares: tuple[MixShare, ...] = ()
    """Instead of weights: shares that sum to 1. The first that matches counts; what none matches is left out."""
    budget_bytes: int | None = Field(default=None, ge=1)
    """Text in the mixture by shares; unset takes as much as max_repeats allows."""
    max_repeats: float = Field(default=4.0, ge=1, le=100)
    """Highest weight that shares may lead to (Muennighoff et al. 2023)."""

    @model_validator(mode="after")
    def _weights_or_shares(self) -> "MixSettings":
        if self.weights and self.shares:
            raise ValueError("weights and shares exclude each other: leave one of them out")
        if self.shares and abs(sum(each.share for each in self.shares) - 1) > 1e-6:
            raise ValueError(f"shares sum to 1, not {sum(each.share for each in self.shares):.6f}")
        return self


def mix(table: pa.Table, settings: MixSettings) -> Split:
    """Documents as often as their weights say. Drops not_sampled (value: weight). ValueError for unresolved shares."""
    if settings.shares:
        raise ValueError("shares are turned into weights first: resolve_mix")
    groups = groups_of(table)
    by_group = {group: weight_of(group, settings) for group in set(groups)}
    weights = [by_group[group] for group in groups]
    ids = table["id"].to_pylist()
    copies = np.array([copies_of(each, weight) for each, weight in zip(ids, weights, strict=True)], np.int64)
    kept = _repeated(table, ids, copies)
    left_out = np.flatnonzero(copies == 0)
    dropped = table.take(pa.array(left_out))
    values = [weights[row] for row in left_out.tolist()]
    return Split(
        kept,
        drop(dropped, MIX.name, [NOT_SAMPLED] * len(values), values),
        counters={**_sizes(table, groups, copies), "copies": int(np.maximum(copies - 1, 0).sum())},
    )


def copies_of(document: str, weight: float) -> int:
    """How often a document is in the mixture: the whole part of its weight, and once more for the rest by hash."""
    whole = int(weight)
    return whole + (share(f"mix:{document}") < weight - whole)


def weight_of(group: Group, settings: MixSettings) -> float:
    """Weight of a group's documents."""
    return next((each.weight for each in settings.weights if each.matches(group)), settings.default_weight)


def groups_of(table: pa.Table) -> list[Group]:
    """The group of each document."""
    columns = [table[name].to_pylist() for name in Group._fields]
    return [Group(*(name or "" for name in row)) for row in zip(*columns, strict=True)]


def _repeated(table: pa.Table, ids: Sequence[str], copies: np.ndarray) -> pa.Table:
    """Each row as often as copies say, one after the other; the second bears #2 behind its id."""
    rows = np.repeat(np.arange(len(copies)), copies)
    if not (copies > 1).any():
        return table.take(pa.array(rows))
    numbers = np.arange(len(rows)) - np.repeat(np.cumsum(copies) - copies, copies) + 1
    names = [
        ids[row] if number == 1 else f"{ids[row]}{COPY_MARK}{number}"
        for row, number in zip(rows.tolist(), numbers.tolist(), strict=True)
    ]
    return replace_columns(table.take(pa.array(rows)), {"id": names})


def _sizes(table: pa.Table, groups: Sequence[Group], copies: np.ndarray) -> dict[str, int]:
    """Counters `documents_before|group`, and so on, from which the report is made."""
    lengths = text_bytes(table)
    counters: Counter[str] = Counter()
    for group, size, times in zip(groups, lengths.tolist(), copies.tolist(), strict=True):
        name = "|".join(group)
        counters[f"documents_before|{name}"] += 1
        counters[f"documents_after|{name}"] += times
        counters[f"bytes_before|{name}"] += size
        counters[f"bytes_after|{name}"] += size * times
    return dict(counters)


def text_bytes(table: pa.Table) -> np.ndarray:
    """int64 (documents,): bytes of each text in UTF-8, 0 where there is none."""
    lengths: Any = pc.fill_null(pc.call_function("binary_length", [table["text"]]), 0)
    return lengths.to_numpy().astype(np.int64)


def mix_report(manifest: StageManifest) -> pa.Table:
    """REPORT_SCHEMA: documents and bytes of every group before and after, from the counters of a finished stage."""
    rows: dict[Group, dict[str, Any]] = {}
    for counter, count in manifest.total("counters").items():
        column, mark, name = counter.partition("|")
        if mark:
            group = Group(*name.rsplit("|", 2))
            rows.setdefault(group, {**group._asdict()})[column] = count
    return pa.Table.from_pylist([rows[group] for group in sorted(rows)], schema=REPORT_SCHEMA)


def measure_groups(store: Store, manifest: StageManifest) -> dict[Group, int]:
    """Bytes of text of each group among a stage's kept documents."""
    sizes: Counter[Group] = Counter()
    for path in manifest.kept_paths:
        reader = store.open_table(path, [*Group._fields, "text"])
        for index in range(reader.num_record_batches):
            batch = pa.Table.from_batches([reader.get_batch(index)])
            for group, size in zip(groups_of(batch), text_bytes(batch).tolist(), strict=True):
                sizes[group] += size
    return dict(sorted(sizes.items()))


def resolve_mix(settings: MixSettings, sizes: Mapping[Group, int]) -> MixSettings:
    """The settings with shares turned into weights, given the bytes of each group. BadInput if there is too little."""
    if not settings.shares:
        return settings
    totals = [0] * len(settings.shares)
    for group, size in sizes.items():
        place = next((place for place, each in enumerate(settings.shares) if each.matches(group)), None)
        if place is not None:
            totals[place] += size
    names = [str(each) for each in settings.shares]
    shares = [each.share for each in settings.shares]
    weights = weights_for_shares(totals, shares, settings.budget_bytes, settings.max_repeats, names)
    chosen = tuple(
        MixWeight(source=each.source, language=each.language, bucket=each.bucket, weight=weight)
        for each, weight in zip(settings.shares, weights, strict=True)
    )
    return settings.model_copy(update={"weights": chosen, "shares": (), "default_weight": 0.0, "budget_bytes": None})


def weights_for_shares(
    sizes: Sequence[int],
    shares: Sequence[float],
    budget: int | None,
    max_repeats: float,
    names: Iterable[str] | None = None,
) -> list[float]:
    """Weights by which groups of given bytes make up given shares of a budget, or of the largest possible mixture.

    BadInput names the group that would have to be repeated more than max_repeats times, or has no text at all.
    """
    labels = list(names) if names is not None else [str(place) for place in range(len(sizes))]
    reach = [size * max_repeats / part for size, part in zip(sizes, shares, strict=True)]
    scarcest = int(np.argmin(reach))
    wanted = float(budget) if budget is not None else reach[scarcest]
    if reach[scarcest] < wanted or sizes[scarcest] == 0:
        raise BadInput(
            f"mix share {labels[scarcest]}={shares[scarcest]:g} ({sizes[scarcest]:,} bytes of text there are)",
            f"no document is repeated more than {max_repeats:g} times; this allows {int(reach[scarcest]):,} bytes",
            "Lower the share or budget_bytes, raise max_repeats, or add text of that kind",
        )
    return [part * wanted / size for size, part in zip(sizes, shares, strict=True)]
