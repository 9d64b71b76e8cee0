"""Judgement of drift between two dataset versions: what moved further than its bound, and where to look then.

Drift is judged in two populations: documents that were measured, so that a crawl or an extraction that changed is
seen before any verdict hides it, and documents that were kept, which models are trained on. An alarm needs a movement
that passes its bound and that chance does not explain in samples of this size; versions of few documents are not
judged at all. Chance here means independent documents: pages of one site resemble each other, so that a version of
few sites moves more than its number of documents would have it. A document that an earlier dataset has counts as
kept in shares of fates, since it passed every rule: otherwise each refresh would differ from the first version.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import Field

from infra.change_report import (
    QUANTILES,
    Alarm,
    CategoryDrift,
    ChangeReport,
    DriftBin,
    Level,
    Population,
    SignalDrift,
    Summary,
)
from infra.settings import Settings
from tasks.drift import (
    Comparison,
    Distribution,
    chance_of_share,
    compare,
    kolmogorov_smirnov,
    lower_edge,
    quantiles,
    stability,
)
from tasks.duplicates.dedup import DEDUP
from tasks.ledger_counts import KEPT, CountedVersion

STANDARD_ERRORS = 4.0
"""A movement counts if it is larger than this many standard errors: chance does that once in 16,000 times."""
_WORTH_SAYING = 0.02
"""Change of the share of documents without a value that an alarm tells."""
_CATEGORIES = 30
"""Categories that are compared one by one; all others count as one."""


class DriftSettings(Settings):
    """How far a dataset version may move from the one before until an alarm is raised."""

    max_psi: float = Field(default=0.25, gt=0)
    """Largest population stability index of a signal, or of languages, buckets and reasons; 0.25 is the usual bound
    for a significant shift (Siddiqi 2006)."""
    moderate_psi: float = Field(default=0.1, gt=0)
    """From this index on a shift is noted, without alarm."""
    signal_max_psi: dict[str, float | None] = Field(default={})
    """Other bounds for single signals, such as {"words": 0.5}; null raises no alarm for a signal."""
    max_kept_share_change: float = Field(default=0.1, gt=0, le=1)
    """Largest change of the share of documents that pass all rules, that are duplicates, or that one reason drops."""
    max_language_share_change: float = Field(default=0.1, gt=0, le=1)
    """Largest change of the share that a language has of the kept documents."""
    min_documents: int = Field(default=500, ge=1)
    """Documents that both versions need at least for their drift to be judged: fewer differ by chance."""
    quantile_bins: int = Field(default=10, ge=2, le=100)
    """Bins of about equal shares of the version before, in which a signal is compared."""
    max_hosts: int = Field(default=30, ge=0)
    """Registered domains that the report shows."""


def judge(report: ChangeReport, now: CountedVersion, before: CountedVersion, drift: DriftSettings) -> ChangeReport:
    """The report with drift, alarms and notes."""
    signals = [each for population in ("measured", "kept") for each in _signals(now, before, population, drift)]
    signals.sort(key=lambda each: (each.level != "alarm", -(each.psi or 0), each.signal, each.population))
    categories = list(_categories(now, before, drift))
    shares = [
        *over_bound(_fates(now, before, drift), before.total().documents, now.total().documents, drift),
        *over_bound(_languages(now, before, drift), before.total().added, now.total().added, drift),
    ]
    page = f"report.html of {report.dataset.name}/{report.dataset.version}"
    update = {
        "signals": tuple(signals),
        "categories": tuple(categories),
        "alarms": (
            *(_signal_alarm(each) for each in signals if each.level == "alarm"),
            *(_category_alarm(each) for each in categories if each.level == "alarm"),
            *(each.alarm(page) for each in shares),
        ),
        "notes": (*report.notes, *_notes(now, before, signals, drift), *_moderate(categories)),
    }
    return report.model_copy(update=update)


def _level(psi: float, spread: float, bound: float | None, drift: DriftSettings, documents: int) -> Level:
    if documents < drift.min_documents:
        return "not judged"
    if psi <= STANDARD_ERRORS * spread:
        return "stable"
    if bound is not None and psi > bound:
        return "alarm"
    return "moderate" if psi >= drift.moderate_psi else "stable"


# Signals


def _signals(
    now: CountedVersion, before: CountedVersion, population: Population, drift: DriftSettings
) -> Iterator[SignalDrift]:
    new, old = now.signals(population), before.signals(population)
    for name in sorted(new.keys() | old.keys()):
        yield _signal(name, population, old.get(name), new.get(name), drift)


def _signal(
    name: str, population: Population, before: Distribution | None, now: Distribution | None, drift: DriftSettings
) -> SignalDrift:
    unknown = SignalDrift(
        signal=name, population=population, level="not judged", before=_summary(before), now=_summary(now)
    )
    if before is None or now is None:
        return unknown
    both = compare(before, now, drift.quantile_bins)
    moved = stability(both.before, both.now)
    bound = drift.signal_max_psi.get(name, drift.max_psi)
    return unknown.model_copy(
        update={
            "level": _level(moved.psi, moved.spread, bound, drift, min(before.documents, now.documents)),
            "psi": moved.psi,
            "bound": bound,
            "ks": kolmogorov_smirnov(before, now),
            "bins": tuple(_bins(both)),
        }
    )


def _summary(found: Distribution | None) -> Summary | None:
    if found is None:
        return None
    return Summary(
        documents=found.documents,
        missing=found.missing / found.documents,
        mean=float(found.totals.sum()) / found.present,
        quantiles=quantiles(found, QUANTILES),
    )


def _bins(both: Comparison) -> Iterator[DriftBin]:
    edges = [None if start is None else lower_edge(start) for start in both.starts]
    numbers = len(edges) - both.missing
    shares = (each / max(int(each.sum()), 1) for each in (both.before, both.now))
    for place, (before, now) in enumerate(zip(*(each.tolist() for each in shares), strict=True)):
        upper = edges[place + 1] if place + 1 < numbers else None
        yield DriftBin(lower=edges[place], upper=upper, missing=place == numbers, before=before, now=now)


def _signal_alarm(found: SignalDrift) -> Alarm:
    sides = [each for each in (found.before, found.now) if each is not None and each.mean is not None]
    moved = "mean " + " before and ".join(f"{each.mean:.4g}" for each in sides) + " now"
    if abs(sides[0].missing - sides[-1].missing) > _WORTH_SAYING:
        moved += ", no value in " + " before and ".join(f"{each.missing:.0%}" for each in sides) + " now"
    if found.population == "measured":
        whose, cause = "all measured documents", "at what the crawl, the extraction and the languages did"
    else:
        whose, cause = "the documents that were kept", "at the examples of the rules that bound it in report.html"
    return Alarm(
        name=found.signal,
        value=found.psi or 0.0,
        bound=found.bound or 0.0,
        found=f"{found.signal} of {whose} has drifted: stability index {found.psi:.3g}, {moved}",
        look_at=f"its bars in changes.html, then {cause}",
    )


# Categories and shares


def _categories(now: CountedVersion, before: CountedVersion, drift: DriftSettings) -> Iterator[CategoryDrift]:
    for category, old, new in (
        ("language of measured documents", before.measured, now.measured),
        ("language", before.added("language"), now.added("language")),
        ("bucket", before.added("bucket"), now.added("bucket")),
        ("reason", before.fates, now.fates),
    ):
        names = sorted(new.keys() | old.keys(), key=lambda name: (-new.get(name, 0) - old.get(name, 0), name))
        if len(names) > 1:
            arrays = [np.array([each.get(name, 0) for name in names], np.int64) for each in (old, new)]
            lumped = [np.append(each[:_CATEGORIES], each[_CATEGORIES:].sum()) for each in arrays]
            moved = stability(*lumped)
            level = _level(moved.psi, moved.spread, drift.max_psi, drift, min(int(each.sum()) for each in lumped))
            yield CategoryDrift(category=category, level=level, psi=moved.psi, bound=drift.max_psi)


def _category_alarm(found: CategoryDrift) -> Alarm:
    return Alarm(
        name=found.category,
        value=found.psi,
        bound=found.bound,
        found=f"the shares by {found.category} have drifted: stability index {found.psi:.3g}",
        look_at=f"the table by {found.category.partition(' ')[0]} in changes.html",
    )


class Part(NamedTuple):
    """Some of the documents of both versions."""

    name: str
    words: str
    before: int
    now: int
    bound: float
    """Largest change of its share."""
    look_at: str


class Moved(NamedTuple):
    """A part whose share moved beyond its bound."""

    part: Part
    before: float
    now: float

    def alarm(self, page: str) -> Alarm:
        """The alarm; `page` is the dataset's report."""
        return Alarm(
            name=self.part.name,
            value=abs(self.now - self.before),
            bound=self.part.bound,
            found=f"{self.part.words}: {self.before:.1%} before, {self.now:.1%} now",
            look_at=f"{self.part.look_at} in {page}",
        )


def over_bound(parts: Iterable[Part], of_before: int, of_now: int, drift: DriftSettings) -> Iterator[Moved]:
    """The parts of two numbers of documents whose shares differ by more than their bounds and than chance."""
    if min(of_before, of_now) < drift.min_documents:
        return
    for part in parts:
        before, now = part.before / of_before, part.now / of_now
        chance = chance_of_share(part.before, of_before, part.now, of_now)
        if abs(now - before) > max(part.bound, STANDARD_ERRORS * chance):
            yield Moved(part, before, now)


def _fates(now: CountedVersion, before: CountedVersion, drift: DriftSettings) -> Iterator[Part]:
    old, new, bound = before.fates, now.fates, drift.max_kept_share_change
    yield Part(KEPT, "share of documents that pass all rules", old[KEPT], new[KEPT], bound, "the funnel")
    words, prefix = "share of duplicates within the version", f"{DEDUP.name}/"
    gone, came = (sum(count for name, count in each.items() if name.startswith(prefix)) for each in (old, new))
    yield Part("duplicates", words, gone, came, bound, "the largest clusters")
    for name in sorted((old.keys() | new.keys()) - {KEPT}):
        yield Part(name, f"share dropped by {name}", old.get(name, 0), new.get(name, 0), bound, "the rule's examples")


def _languages(now: CountedVersion, before: CountedVersion, drift: DriftSettings) -> Iterator[Part]:
    old, new = before.added("language"), now.added("language")
    for name in sorted(old.keys() | new.keys()):
        bound = drift.max_language_share_change
        words = f"share of {name or 'no language'} in the dataset"
        yield Part(name, words, old.get(name, 0), new.get(name, 0), bound, "its domains and the languages refused")


def _moderate(categories: Sequence[CategoryDrift]) -> Iterator[str]:
    for each in categories:
        if each.level == "moderate":
            yield f"shares by {each.category} moved: stability index {each.psi:.2g}"


def _notes(
    now: CountedVersion, before: CountedVersion, signals: Sequence[SignalDrift], drift: DriftSettings
) -> Iterator[str]:
    for population, old, new in (
        ("measured", sum(before.measured.values()), sum(now.measured.values())),
        (KEPT, before.total().added, now.total().added),
    ):
        if min(old, new) < drift.min_documents:
            yield (
                f"Drift of {population} documents is not judged: {old:,} before and {new:,} now, and fewer than "
                f"{drift.min_documents:,} differ by chance"
            )
    for each in signals:
        if each.level == "moderate":
            yield f"{each.signal} of {each.population} documents moved: stability index {each.psi:.2g}"
        elif each.now is None or each.before is None:
            which = before if each.now is None else now
            yield f"{each.signal} of {each.population} documents is in {which.dataset.version} alone"
