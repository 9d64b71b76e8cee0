"""Preview: what the filter would keep under other thresholds, from the ledger of a finished dataset alone.

Verdicts need signals, and the ledger has them all, so no text and no archive is read. A shard is in memory at a time.
What was dropped before documents were measured stays dropped; what duplicates, mixtures and tokens become of the
documents that the filter keeps, only a rebuild can tell.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute

from infra.manifest import StageManifest
from infra.settings import Settings
from infra.store import Store
from tasks.filters import FILTER, FilterInputs, judge_documents, require_signals
from tasks.ledger import read_ledger
from tasks.signals import SignalSettings, signals_schema

pc: Any = pyarrow.compute  # its functions are made when it is imported: types know few of them

SHOWN = 3
"""Documents that are named of each change."""


class Amount(Settings):
    """Documents and their words (before C4's line rules edited them)."""

    documents: int = 0
    words: int = 0


class Change(Settings):
    """The same amount under the dataset's settings and under others."""

    before: Amount = Amount()
    after: Amount = Amount()


class Moved(Settings):
    """A document whose verdict changes."""

    id: str
    url: str | None
    language: str | None


class Move(Settings):
    """Documents that go from one verdict to another."""

    before: str | None
    """Reason for which the filter dropped them; None for those that it kept."""
    after: str | None
    amount: Amount
    examples: tuple[Moved, ...]


class Preview(Settings):
    """What changes."""

    measured: Amount
    """All documents that were measured: those that the filter judges."""
    kept: Change
    """What the filter keeps."""
    reasons: dict[str, Change]
    """What it drops, by reason, the most frequent first."""
    languages: dict[str, Change]
    """What it keeps, by language, the most frequent first."""
    moves: tuple[Move, ...]
    """Changed verdicts, the most frequent first."""


def preview(store: Store, ledger: StageManifest, settings: FilterInputs) -> Preview:
    """Judge all measured documents of a ledger anew. BadInput if a setting names a signal that it lacks."""
    require_signals(settings.filter, settings.signals)
    names = ["url", "stage", "reason", *signals_schema(settings.signals).names]
    return compare(read_ledger(store, ledger, list(dict.fromkeys(names))), settings)


def compare(tables: Iterable[pa.Table], settings: FilterInputs) -> Preview:
    """Old and new verdicts of the documents in tables of a ledger."""
    documents: Counter[Verdict] = Counter()
    words: Counter[Verdict] = Counter()
    named: dict[tuple[str | None, str | None], list[Moved]] = {}
    for table in tables:
        measured = table.filter(table["model_language"].is_valid())
        for row, (verdict, count) in enumerate(_verdicts(measured, settings)):
            documents[verdict] += 1
            words[verdict] += count
            _, before, after = verdict
            if before != after and len(found := named.setdefault((before, after), [])) < SHOWN:
                found.append(Moved(**{name: measured[name][row].as_py() for name in Moved.model_fields}))
    return _summary(documents, words, named)


Verdict = tuple[str, str | None, str | None]
"""Language, and reason before and after."""


def _verdicts(measured: pa.Table, settings: FilterInputs) -> Iterator[tuple[Verdict, int]]:
    """Each document's verdicts and words."""
    filtered = pc.equal(measured["stage"], FILTER.name).fill_null(False)
    before = pc.if_else(filtered, measured["reason"], pa.scalar(None, pa.string())).to_pylist()
    after = judge_documents(measured, settings).reasons
    columns = zip(measured["language"].to_pylist(), before, after, measured["words"].to_pylist(), strict=True)
    for language, old, new, count in columns:
        yield (language, old, new), count or 0


def _summary(
    documents: Mapping[Verdict, int],
    words: Mapping[Verdict, int],
    named: Mapping[tuple[str | None, str | None], list[Moved]],
) -> Preview:
    sums = _Sums()
    for verdict, count in documents.items():
        language, before, after = verdict
        amount = Counter(documents=count, words=words[verdict])
        sums.add(("measured", ""), amount)
        sums.add(("before kept", language) if before is None else ("before", before), amount)
        sums.add(("after kept", language) if after is None else ("after", after), amount)
        if before != after:
            sums.add(("move", before, after), amount)
    reasons, languages = sums.changes("before", "after"), sums.changes("before kept", "after kept")
    moves = [
        Move(before=before, after=after, amount=sums.amount(("move", before, after)), examples=tuple(examples))
        for (before, after), examples in named.items()
    ]
    moves.sort(key=lambda each: (-each.amount.documents, each.before or "", each.after or ""))
    return Preview(
        measured=sums.amount(("measured", "")),
        kept=Change(
            before=_total(each.before for each in languages.values()),
            after=_total(each.after for each in languages.values()),
        ),
        reasons=reasons,
        languages=languages,
        moves=tuple(moves),
    )


class _Sums:
    """Amounts by key."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str | None, ...], Counter[str]] = {}

    def add(self, key: tuple[str | None, ...], amount: Counter[str]) -> None:
        """Add an amount."""
        self._sums.setdefault(key, Counter()).update(amount)

    def amount(self, key: tuple[str | None, ...]) -> Amount:
        """The sum of a key."""
        return Amount(**self._sums.get(key, {}))

    def changes(self, before: str, after: str) -> dict[str, Change]:
        """Old and new sums by the second part of their keys, the most frequent first."""
        names = {key[1] or "" for key in self._sums if key[0] in (before, after)}
        changes = {name: Change(before=self.amount((before, name)), after=self.amount((after, name))) for name in names}
        return dict(
            sorted(changes.items(), key=lambda item: (-max(_documents(item[1])), item[0])),
        )


def _documents(change: Change) -> tuple[int, int]:
    return change.before.documents, change.after.documents


def _total(amounts: Iterable[Amount]) -> Amount:
    every = list(amounts)
    return Amount(documents=sum(each.documents for each in every), words=sum(each.words for each in every))


def measured_signals(ledger: StageManifest) -> SignalSettings:
    """What was measured of the documents of a ledger. Files are known by their content alone, not by their paths."""
    return SignalSettings.model_validate(_with_paths(ledger.settings["signals"]))


def _with_paths(values: Any) -> Any:
    """Settings from a manifest, which leaves out where files lie, with their digests as paths."""
    if isinstance(values, Mapping):
        filled = {name: _with_paths(each) for name, each in values.items()}
        return {"path": str(filled["sha256"]), **filled} if "sha256" in filled else filled
    return [_with_paths(each) for each in values] if isinstance(values, list) else values
