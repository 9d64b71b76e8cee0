"""The text that a tokenizer learns from: a sample stratified by language and source.

A *stratum* is what agrees in all of `stratify_by`. The sample is shared out level by level, first among languages and
then, within each, among its sources, so that a language does not get more for having many sources. Shares follow
(size of the group) ** smoothing. Documents are chosen by a hash of their id, so the choice depends on nothing else.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
import pyarrow.compute
from pydantic import Field, model_validator

from infra.settings import Settings
from infra.store import Store
from tasks.heldout import HeldoutSettings, is_heldout, share

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers
logger = logging.getLogger(__name__)
Stratum = tuple[str, ...]
UNKNOWN = "und"
"""The group of documents without a language, as ISO 639 names it, or without a bucket."""


class SampleSettings(Settings):
    """How much text is learned from, and how languages and sources share it."""

    sample_bytes: int = Field(default=200_000_000, ge=1_000)
    """Text to learn from, at most; a smaller corpus gives as much as it has."""
    stratify_by: tuple[Literal["language", "source", "bucket"], ...] = ("language", "source")
    """Columns whose values share out the sample, the outermost first; empty for a plain sample of all documents."""
    smoothing: float = Field(default=0.5, ge=0, le=1)
    """Exponent of the sizes that shares follow: 1 as they are, 0 all alike; 0.5 as XLM's vocabulary (Conneau and Lample
    2019), so that a language with a hundredth of the text has a tenth of the share and is not spelled in letters."""
    language_shares: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default={})
    """Shares of some languages by code, such as {en: 0.6, de: 0.2}; the other languages share the rest by smoothing."""
    max_repeats: float = Field(default=4, ge=1, le=100)
    """How often a document of a small stratum may be learned from to fill its share; the rest goes to the others."""

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.language_shares and "language" not in self.stratify_by:
            raise ValueError("language_shares needs language in stratify_by")
        if sum(self.language_shares.values()) > 1 + 1e-9:
            raise ValueError(f"language_shares sum up to {sum(self.language_shares.values()):.3f}, more than 1")
        return self


@dataclass
class Sample:
    """The sampled documents of some shards, and what there was of them."""

    store: Store
    paths: Sequence[str]
    settings: SampleSettings
    heldout: HeldoutSettings
    counters: Counter[str] = field(default_factory=Counter)
    """Documents and bytes of the sample, and its bytes by group, once it has been read."""

    def texts(self) -> Iterator[str]:
        """The chosen texts in the order of the corpus, as often as they are to be learned from, held-out ones not."""
        rates = sampling_rates(stratum_sizes(self.store, self.paths, self.settings.stratify_by), self.settings)
        for batch in _batches(self.store, self.paths):
            strata = list(zip(*_groups(batch, self.settings.stratify_by), strict=True)) or [()] * len(batch)
            copies = [
                _copies(each, rates[stratum]) for each, stratum in zip(batch["id"].to_pylist(), strata, strict=True)
            ]
            chosen = [row for row, count in enumerate(copies) if count]
            for row, text in zip(chosen, batch["text"].take(pa.array(chosen, pa.int64())).to_pylist(), strict=True):
                if text and not is_heldout(text, self.heldout):
                    self._count(text, strata[row], copies[row])
                    for _ in range(copies[row]):
                        yield text

    def _count(self, text: str, stratum: Stratum, copies: int) -> None:
        size = len(text.encode()) * copies
        self.counters.update({"sample_documents": 1, "sample_bytes": size})
        for column, value in zip(self.settings.stratify_by, stratum, strict=True):
            self.counters[f"sample_bytes:{column}:{value}"] += size


def stratum_sizes(store: Store, paths: Sequence[str], stratify_by: Sequence[str]) -> dict[Stratum, int]:
    """Bytes of text in each stratum, from the offsets of the text column: no text is decoded."""
    sizes: Counter[Stratum] = Counter()
    for batch in _batches(store, paths):
        columns = [pa.array(each, pa.string()) for each in _groups(batch, stratify_by)]
        names = [str(number) for number in range(len(columns))]
        table = pa.table([*columns, pc.binary_length(batch["text"])], names=[*names, "bytes"])
        for row in table.group_by(names).aggregate([("bytes", "sum")]).to_pylist():
            sizes[tuple(row[name] for name in names)] += row["bytes_sum"] or 0
    return dict(sorted(sizes.items()))


def sampling_rates(sizes: Mapping[Stratum, int], settings: SampleSettings) -> dict[Stratum, float]:
    """How often a document of each stratum is taken on average, at most `max_repeats`; sizes are bytes of text."""
    for language in sorted(settings.language_shares.keys() - _values(sizes, settings.stratify_by, "language")):
        logger.warning("tokenizer.language_shares names %s, of which the corpus has nothing", language)
    amounts = _share_out(min(settings.sample_bytes, sum(sizes.values())), sizes, 0, settings)
    return {stratum: amounts[stratum] / size if size else 0.0 for stratum, size in sizes.items()}


def _share_out(
    amount: float, sizes: Mapping[Stratum, int], level: int, settings: SampleSettings
) -> dict[Stratum, float]:
    """Bytes to take of each stratum, from the level-th column of `stratify_by` inwards."""
    if level == len(settings.stratify_by):
        return dict.fromkeys(sizes, amount)
    groups: dict[str, dict[Stratum, int]] = {}
    for stratum, size in sizes.items():
        groups.setdefault(stratum[level], {})[stratum] = size
    totals = {name: sum(group.values()) for name, group in groups.items()}
    named = settings.language_shares if settings.stratify_by[level] == "language" else {}
    limits = {name: total * settings.max_repeats for name, total in totals.items()}
    parts = fill(amount, weights(totals, settings.smoothing, named), limits)
    taken = [_share_out(parts[name], group, level + 1, settings) for name, group in groups.items()]
    return {stratum: part for group in taken for stratum, part in group.items()}


def weights(sizes: Mapping[str, int], smoothing: float, named: Mapping[str, float]) -> dict[str, float]:
    """Share of each group: as named, and for the others their part, by smoothed size, of what the named ones leave."""
    smoothed = {name: size**smoothing if size else 0.0 for name, size in sizes.items() if name not in named}
    rest = max(1 - sum(named.values()), 0) / (sum(smoothed.values()) or 1)
    return {name: named[name] if name in named else smoothed[name] * rest for name in sizes}


def fill(amount: float, shares: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, float]:
    """Share out an amount by weights; what exceeds a group's limit goes to the others, by their weights."""
    parts = dict.fromkeys(shares, 0.0)
    still = {name: share for name, share in shares.items() if share > 0 and limits[name] > 0}
    while still:
        total = sum(still.values())
        full = [name for name, share in still.items() if amount * share / total >= limits[name]]
        if not full:
            return parts | {name: amount * share / total for name, share in still.items()}
        for name in full:
            parts[name] = limits[name]
            del still[name]
        amount -= sum(limits[name] for name in full)
    return parts


def _copies(document: str, rate: float) -> int:
    whole = int(rate)
    return whole + (share(f"tokenizer:{document}") < rate - whole)


def _values(sizes: Mapping[Stratum, int], stratify_by: Sequence[str], column: str) -> set[str]:
    return {stratum[stratify_by.index(column)] for stratum in sizes} if column in stratify_by else set()


def _groups(batch: pa.RecordBatch, stratify_by: Sequence[str]) -> list[list[str]]:
    """For each column the values of a batch's rows."""
    return [pc.fill_null(batch[column], UNKNOWN).to_pylist() for column in stratify_by]


def _batches(store: Store, paths: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for path in paths:
        reader = store.open_table(path)
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)
