"""From a finished corpus to the report of its dataset: figures, histograms, examples, as people judge rules by them."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from prefect.artifacts import create_markdown_artifact

from infra.dataset_report import (
    BenchmarkRow,
    ClusterRow,
    DatasetReport,
    DedupFigures,
    DomainRow,
    Example,
    FertilityRow,
    FunnelStage,
    LanguageDomains,
    LanguageRow,
    LanguageWords,
    MixtureRow,
    RuleExamples,
    SampleRow,
    SourceLossRow,
    report_paths,
    save_dataset_report,
)
from infra.histograms import Bin, Histogram, Threshold
from infra.manifest import DatasetManifest, StageManifest
from infra.report import DatasetIdentity
from infra.store import Store
from tasks.config import CorpusSettings
from tasks.duplicates.dedup import DedupReport
from tasks.duplicates.repeats import TRIM
from tasks.filters import FILTER, REFUSALS, FilterInputs, comparisons, setting_path
from tasks.phrases.decontaminate import BENCHMARK_INDEX, DECONTAMINATE, contamination_by_benchmark
from tasks.pipeline import Build, Corpus
from tasks.privacy.redact import REDACT
from tasks.profile import SIGNAL_EDGES
from tasks.signals import signals_schema
from tasks.tokens.mix import MIX, mix_report
from tasks.tokens.tokenization import fertility
from tasks.tokens.tokenizer import TOKENIZER

pc: Any = pyarrow.compute  # its functions are made when it is imported: types know few of them

DOMAINS_SHOWN = 30
"""Most domains of a language on the page."""
HELDOUT_COPY = "heldout_copy"
"""Why tokenization leaves out further copies of documents that are held out."""
NOT_MEASURED = "(not measured)"
"""What stands for the language of documents that were dropped before it was known."""


def write_dataset_report(store: Store, dataset: DatasetManifest, corpus: Corpus, settings: CorpusSettings) -> str:
    """Write report.json and report.html into the dataset's folder, for its owner alone; return the page's path.

    The folder itself stays as readable as it was.
    """
    save_dataset_report(store, dataset.folder, dataset_report(store, dataset, corpus, settings))
    return report_paths(dataset.folder)[0]


def publish_dataset_report(store: Store, dataset: DatasetManifest, corpus: Corpus, settings: CorpusSettings) -> None:
    """Write the report of a dataset and say in Prefect where it lies.

    A dataset that was published before by other settings keeps its report, as it keeps its manifest.
    """
    page, _ = report_paths(dataset.folder)
    if dataset.stages.get(corpus.ledger.stage) == corpus.ledger.fingerprint or not store.exists(page):
        write_dataset_report(store, dataset, corpus, settings)
    place = store.local_path(page).absolute().as_uri() if store.is_local else store.full_path(page)
    documents = sum(shard.documents for shard in dataset.shards)
    text = (
        f"Dataset **{dataset.name}/{dataset.version}**: {documents:,} documents, {dataset.tokens('train'):,} tokens "
        f"for training. Funnel, histograms and examples of each rule: [report.html]({place})"
    )
    create_markdown_artifact(text, key="dataset-report", description="What was kept, what was not, and why")


def dataset_report(store: Store, dataset: DatasetManifest, corpus: Corpus, settings: CorpusSettings) -> DatasetReport:
    """The report of a dataset from what its stages left. Equal datasets give equal reports."""
    build, profile = corpus.build, corpus.profile
    languages = language_rows(_rows(profile, "fate"))
    spoken = tuple(each.language for each in languages if each.kept)
    inputs = FilterInputs(filter=settings.filter, signals=build.signals)
    judged = [each.language for each in languages if each.measured > sum(each.refused.values())]
    limits = rule_thresholds(inputs, judged)
    tokenized = build.passed[-1]
    redacted = build.stage(REDACT.name).total("counters")
    return DatasetReport(
        dataset=DatasetIdentity(name=dataset.name, version=dataset.version, fingerprint=dataset.fingerprint),
        documents={split: sum(each.documents for each in dataset.split(split)) for split in ("train", "heldout")},
        tokens={split: dataset.tokens(split) for split in ("train", "heldout")},
        text_bytes=sum(shard.text_bytes for shard in dataset.shards),
        vocabulary=dataset.tokenizer.vocabulary_size,
        ledger=(corpus.ledger.folder,),
        funnel=tuple(funnel(build.passed)),
        languages=tuple(languages),
        histograms=tuple(histograms(profile, spoken, signals_schema(build.signals).names[1:], limits)),
        histogram_languages=spoken,
        rules=tuple(rule_examples(build.passed, corpus.examples.documents, limits, inputs)),
        words=tuple(_words(corpus.examples.words, [each.language for each in languages])),
        fertility=tuple(
            FertilityRow(**each.model_dump(include=set(FertilityRow.model_fields))) for each in fertility(tokenized)
        ),
        domains=tuple(_domains(_rows(profile, "domain"), [each.language for each in languages])),
        sources=tuple(_domain_rows(_rows(profile, "source"))),
        dedup=None if build.dedup is None else _dedup(build.dedup, settings.dedup.max_source_loss),
        personal=_suffixed(redacted, "redacted_", but="documents"),
        personal_documents=redacted.get("redacted_documents", 0),
        repeats=next((each.total("counters") for each in build.passed if each.stage == TRIM.name), None),
        contamination=_contamination(store, build),
        contamination_kept=settings.decontaminate.action == "annotate",
        mixture=_mixture(build),
        sample=tuple(_sample(build)),
    )


def _rows(profile: pa.Table, table: str) -> list[dict[str, Any]]:
    return profile.filter(pc.equal(profile["table"], table)).to_pylist()


def _suffixed(counters: Mapping[str, int], prefix: str, but: str) -> dict[str, int]:
    """Counters of a prefix, without it."""
    found = {name.removeprefix(prefix): count for name, count in counters.items() if name.startswith(prefix)}
    return {name: count for name, count in found.items() if name != but}


# Funnel and languages


def funnel(passed: Sequence[StageManifest]) -> list[FunnelStage]:
    """What each stage did, copies of a mixture apart."""
    rows, copies = [], 0
    for manifest in passed:
        made = manifest.total("counters").get("copies", 0) if manifest.stage == MIX.name else 0
        copies += made
        lost = manifest.total("reasons").get(HELDOUT_COPY, 0)
        rows.append(
            FunnelStage(
                name=manifest.stage,
                entered=manifest.rows_in - copies,
                kept=manifest.kept - (copies - lost),
                dropped=_reasons(manifest),
                quarantined=manifest.rows_of("quarantined"),
                copies=made,
            )
        )
    return rows


def _reasons(manifest: StageManifest) -> dict[str, int]:
    """Dropped documents by reason, without copies: these are none of their own."""
    return {reason: count for reason, count in manifest.total("reasons").items() if reason != HELDOUT_COPY}


def language_rows(fates: Iterable[Mapping[str, Any]]) -> list[LanguageRow]:
    """Rows by language, the one with most documents in the dataset first, from the fates of a profile."""
    rows: dict[str, dict[str, Any]] = {}
    refusals = {f"{FILTER.name}/{reason}": reason for reason in REFUSALS}
    for fate in fates:
        if fate["language"] is None:
            continue
        empty = dict.fromkeys(("measured", "kept", "dropped", "words", "words_kept", "tokens"), 0)
        row = rows.setdefault(fate["language"], {"language": fate["language"], "refused": {}, **empty})
        row["measured"] += fate["documents"]
        row["words"] += fate["words"]
        if fate["kept"]:
            row["kept"] += fate["documents"]
            row["words_kept"] += fate["words"]
            row["tokens"] += fate["tokens"]
        elif fate["key"] in refusals:
            row["refused"][refusals[fate["key"]]] = fate["documents"]
        else:
            row["dropped"] += fate["documents"]
    found = [LanguageRow(**row) for row in rows.values()]
    return sorted(found, key=lambda each: (-each.kept, -each.measured, each.language))


# Rules


def rule_thresholds(inputs: FilterInputs, languages: Sequence[str]) -> dict[str, list[Threshold]]:
    """The bounds of each rule that is on, by reason, for documents of some languages."""
    forced = inputs.signals.quality.rules_language
    judged_as = pa.array([forced or each for each in languages], pa.string())
    table = pa.table({"language": pa.array(list(languages), pa.string()), "rules_language": judged_as})
    found: dict[str, list[Threshold]] = {}
    for rule, given in comparisons(inputs, table):
        if given is None:
            continue
        values = np.broadcast_to(np.asarray(given, np.float64), len(languages)).tolist()
        for number in sorted({value for value in values if not np.isnan(value)}):
            spoken = tuple(each for each, value in zip(languages, values, strict=True) if value == number)
            everywhere = len(spoken) == len(languages)
            found.setdefault(rule.reason, []).append(
                Threshold(
                    reason=rule.reason,
                    signal=rule.signal,
                    bound=rule.bound,
                    value=number,
                    languages=() if everywhere else spoken,
                    setting=setting_path(rule),
                    source=rule.source,
                )
            )
    return found


def histograms(
    profile: pa.Table, languages: Sequence[str], signals: Sequence[str], limits: Mapping[str, Sequence[Threshold]]
) -> list[Histogram]:
    """A histogram of each signal over documents of some languages (none: all), in the order of the signals."""
    rows = profile.filter(pc.equal(profile["table"], "signal"))
    if languages:
        rows = rows.filter(pc.is_in(rows["language"], pa.array(languages, pa.string())))
    sums = rows.group_by(["key", "bin", "kept"], use_threads=False).aggregate([("documents", "sum")])
    counts: dict[str, dict[tuple[float, bool], int]] = {}
    for row in sums.to_pylist():
        counts.setdefault(row["key"], {})[row["bin"], row["kept"]] = row["documents_sum"]
    bounds: dict[str, list[Threshold]] = {}
    for each in (threshold for found in limits.values() for threshold in found):
        bounds.setdefault(each.signal, []).append(each)
    return [
        Histogram(
            signal=name, bins=tuple(_bins(counts[name], bounds.get(name, ()))), thresholds=tuple(bounds.get(name, ()))
        )
        for name in dict.fromkeys([*signals, *sorted(counts)])
        if name in counts
    ]


def _bins(counts: Mapping[tuple[float, bool], int], thresholds: Sequence[Threshold]) -> list[Bin]:
    """All bins from the first to the last that holds a document or a threshold."""
    values = [*(lower for lower, _ in counts), *(each.value for each in thresholds)]
    used = (np.searchsorted(SIGNAL_EDGES, values, side="right") - 1).tolist()
    places = [place for place in range(min(used), max(used) + 1) if place in used or not _is_gap(place, used)]
    edges = [None, *SIGNAL_EDGES[1:].tolist()]
    uppers = [*(edges[place] for place in places[1:]), *edges[places[-1] + 1 : places[-1] + 2]]
    return [
        Bin(
            lower=edges[place],
            upper=upper,
            kept=counts.get((float(SIGNAL_EDGES[place]), True), 0),
            dropped=counts.get((float(SIGNAL_EDGES[place]), False), 0),
        )
        for place, upper in zip_longest(places, uppers)
    ]


def _is_gap(place: int, used: Sequence[int]) -> bool:
    """Whether a bin lies between 0 and 1 and all such bins are empty, as they are of a count."""
    fractions = range(*np.searchsorted(SIGNAL_EDGES, [0.01, 1]).tolist())
    return place in fractions and not any(each in fractions for each in used)


def rule_examples(
    passed: Sequence[StageManifest],
    documents: pa.Table,
    limits: Mapping[str, Sequence[Threshold]],
    inputs: FilterInputs,
) -> list[RuleExamples]:
    """Examples of each reason: stages in order, rules in theirs, then those that are no comparison by frequency."""
    examples: dict[tuple[str, bool], list[Example]] = {}
    for row in documents.to_pylist():
        shown = {name: row[name] for name in Example.model_fields}
        shown["threshold"] = row["threshold"] if row["kept"] else _limit(limits.get(row["reason"], ()), row["language"])
        shown["detail"] = None if row["detail"] == row["language"] else row["detail"]
        examples.setdefault((row["reason"], row["kept"]), []).append(Example(**shown))
    found: dict[str, RuleExamples] = {}
    for manifest in passed:
        dropped = _reasons(manifest)
        rules = list(limits) if manifest.stage == FILTER.name else []
        for reason in dict.fromkeys([*(each for each in dropped if each not in rules), *rules]):
            if reason in found or not (dropped.get(reason) or examples.get((reason, True))):
                continue
            found[reason] = RuleExamples(
                reason=reason,
                stage=manifest.stage,
                documents=dropped.get(reason, 0),
                thresholds=tuple(limits.get(reason, ())) if reason in rules else (),
                dropped=tuple(examples.get((reason, False), ())),
                kept=tuple(examples.get((reason, True), ())),
            )
    return list(found.values())


def _limit(thresholds: Sequence[Threshold], language: str | None) -> float | None:
    """The threshold that a document of a language was held to."""
    return next((each.value for each in thresholds if not each.languages or language in each.languages), None)


# Words, domains, duplicates and the rest


def _words(words: pa.Table, languages: Sequence[str]) -> list[LanguageWords]:
    listed: dict[str, list[tuple[str, int]]] = {}
    for row in words.to_pylist():
        listed.setdefault(row["language"] or NOT_MEASURED, []).append((row["word"], row["count"]))
    order = dict.fromkeys([*(each for each in languages if each in listed), *sorted(listed)])
    return [LanguageWords(language=each, words=tuple(listed[each])) for each in order]


def _domains(rows: Iterable[dict[str, Any]], languages: Sequence[str]) -> list[LanguageDomains]:
    place = {language: number for number, language in enumerate([*languages, None])}
    ordered = sorted(rows, key=lambda row: place[row["language"]])
    found = []
    for language, group in groupby(ordered, key=lambda row: row["language"]):
        domains = _domain_rows(group)
        found.append(
            LanguageDomains(
                language=language or NOT_MEASURED,
                domains=tuple(domains[:DOMAINS_SHOWN]),
                others=max(len(domains) - DOMAINS_SHOWN, 0),
            )
        )
    return found


def _domain_rows(rows: Iterable[Mapping[str, Any]]) -> list[DomainRow]:
    """Rows of a profile by key, the most frequent first."""
    sums: dict[str, dict[str, int]] = {}
    for row in rows:
        counts = sums.setdefault(row["key"], {"kept": 0, "dropped": 0, "tokens": 0})
        counts["kept" if row["kept"] else "dropped"] += row["documents"]
        counts["tokens"] += row["tokens"]
    found = [DomainRow(name=name, **counts) for name, counts in sums.items()]
    return sorted(found, key=lambda each: (-each.documents, each.name))


def _dedup(report: DedupReport, max_source_loss: float) -> DedupFigures:
    alarms = {each.source for each in report.alarms}
    return DedupFigures(
        kinds=report.kinds,
        clusters=report.clusters,
        cluster_sizes=report.cluster_sizes,
        largest=tuple(
            ClusterRow(
                survivor=each.survivor,
                url=each.url,
                dataset=None if each.dataset is None else f"{each.dataset}/{each.version}",
                documents=each.cluster_size,
            )
            for each in report.largest
        ),
        sources=tuple(
            SourceLossRow(source=each.source, documents=each.documents, lost=each.lost, alarm=each.source in alarms)
            for each in sorted(report.sources, key=lambda each: (-each.share, each.source))
        ),
        max_source_loss=max_source_loss,
    )


def _contamination(store: Store, build: Build) -> tuple[BenchmarkRow, ...]:
    if all(each.stage != DECONTAMINATE.name for each in build.passed):
        return ()
    table = contamination_by_benchmark(store, build.stage(BENCHMARK_INDEX.name), build.stage(DECONTAMINATE.name))
    return tuple(BenchmarkRow(**row) for row in table.to_pylist())


def _mixture(build: Build) -> tuple[MixtureRow, ...]:
    if all(each.stage != MIX.name for each in build.passed):
        return ()
    return tuple(MixtureRow(**row) for row in mix_report(build.stage(MIX.name)).to_pylist())


def _sample(build: Build) -> Iterable[SampleRow]:
    """What the vocabulary was learned from, by what it was sampled by."""
    for manifest in (each for each in build.every if each.stage == TOKENIZER.name):
        for name, size in manifest.total("counters").items():
            kind, _, place = name.partition(":")
            column, _, value = place.partition(":")
            if kind == "sample_bytes" and column:
                yield SampleRow(column=column, value=value, bytes=size)
