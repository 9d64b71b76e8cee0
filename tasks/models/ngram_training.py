"""Estimation of n-gram models: interpolated modified Kneser-Ney smoothing over words, by sorting.

An n-gram at a position is numbered by (number of its first n - 1 words, last word), so that any order is one sort of
64-bit integers. Probabilities are interpolated with those of the shorter context before they are stored, which makes
the stored form plain back-off. Rare n-grams of the highest order may be pruned; what they held goes to the back-off
weight, so the probabilities after any context still sum to one.

Sources: Kneser and Ney 1995; Chen and Goodman 1998 (three discounts); Heafield et al. 2013 (counts of n-grams that
begin a sentence).
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numba import njit
from pydantic import Field

from infra.errors import BadInput
from infra.manifest import StageManifest
from infra.settings import Settings
from infra.store import Store
from tasks.heldout import share
from tasks.models.fasttext_file import is_space, token_hashes
from tasks.models.ngram_model import BYTES_AND_END, NgramModel, build, extend_all, score_texts, word_hashes, write_model
from tasks.models.perplexity import PerplexityModel, per_text
from tasks.models.preparation import Prepared, prepare
from tasks.models.quality_training import MODEL_SCHEMA, REPORT_DIGITS
from tasks.models.reference import PassageSettings, ReferenceFile, read_passages, resolve_references
from tasks.stage import Split, Stage, StageRunner

NGRAM_MODEL = Stage("ngram_model", 1, MODEL_SCHEMA, libraries=("pyarrow", "numpy", "numba"))
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)  # where a corpus is too small to estimate them, as lmplz's --discount_fallback
SPECIAL = (b"<unk>", b"<s>", b"</s>")
UNKNOWN, BEGIN, END = range(3)


class NgramTrainingSettings(Settings):
    """What an n-gram model learns from, and its size."""

    name: str = Field(default="perplexity", pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the signal."""
    references: tuple[ReferenceFile, ...] = Field(min_length=1)
    """Text that counts as well written."""
    languages: tuple[str, ...] | None = ("en",)
    """Languages of the reference; documents of others are not measured. Unset measures all."""
    passages: PassageSettings = PassageSettings()
    """How long texts are cut before some are chosen."""
    order: int = Field(default=3, ge=2, le=5)
    """Words in the longest n-gram."""
    sample_bytes: int = Field(default=50_000_000, ge=1_000)
    """Text to learn from at most, in pieces chosen by hash. Learning takes about 40 bytes of memory for each."""
    min_count: int = Field(default=2, ge=1)
    """Words seen less often are unknown ones, from which the model learns what unknown words are like."""
    prune: int = Field(default=2, ge=1)
    """N-grams of the highest order that are seen less often are pruned."""
    heldout_fraction: float = Field(default=0.02, gt=0, lt=1)
    """Share of records that only measure the model."""

    def resolved(self, store: Store) -> Self:
        """The same settings with the reference files' digests filled in."""
        return self.model_copy(update={"references": resolve_references(self.references, store)})


class Level(NamedTuple):
    """The distinct n-grams of one order."""

    prefix: np.ndarray
    """Number of each one's first n - 1 words among the n-grams of the order below (0 for single words)."""
    suffix: np.ndarray
    """Number of its last n - 1 words there (0 for single words)."""
    word: np.ndarray
    counts: np.ndarray
    """How often it is seen."""
    from_begin: np.ndarray
    """Whether its first word is the sentence's begin."""


class Estimate(NamedTuple):
    """Probabilities of one order's n-grams, and for each n-gram of the order below its weight of back-off."""

    probabilities: np.ndarray
    backoffs: np.ndarray
    stored: np.ndarray
    """Which n-grams are not pruned."""


def train_ngram_model(
    runner: StageRunner, settings: NgramTrainingSettings, parents: Iterable[StageManifest] = ()
) -> tuple[StageManifest, PerplexityModel]:
    """Train a model on reference text alone. BadInput if there is too little of it."""
    settings = settings.resolved(runner.store)
    digests = {parent.stage: parent.digest for parent in parents}
    manifest = runner.run(NGRAM_MODEL, TrainOnReference(), ["reference"], settings, digests)
    row = runner.store.read_table(manifest.kept_paths[0])
    for name, column in (("model.arrow", "model"), ("report.json", "report")):
        value = row[column][0].as_py()
        if not runner.store.exists(path := f"{manifest.folder}/{name}"):
            runner.store.write_bytes(path, value if isinstance(value, bytes) else value.encode(), private=True)
    model = PerplexityModel(name=settings.name, path=f"{manifest.folder}/model.arrow", languages=settings.languages)
    return manifest, model.resolved(runner.store)


@dataclass(frozen=True)
class TrainOnReference:
    """The shard function of the stage: one shard."""

    def __call__(self, _: Store, source: str, settings: NgramTrainingSettings) -> Iterator[Split]:
        """Yield a table of one row: the model and its report."""
        learned, heldout = gather(settings)
        model = learn(prepare(learned, "words"), settings)
        report = measure(model, heldout) | {"learned_passages": len(learned)}
        report |= {"ngrams": int((model.keys != 0).sum()), "order": model.order}
        row = {"model": pa.array([write_model(model)], pa.large_binary()), "report": [json.dumps(report, indent=1)]}
        counters = {name: value for name, value in report.items() if isinstance(value, int)}
        yield Split(pa.table(row, schema=MODEL_SCHEMA), counters=counters)


def gather(settings: NgramTrainingSettings) -> tuple[list[str], list[str]]:
    """Passages to learn from, the ones of the smallest hashes up to sample_bytes, and held-out ones."""
    sizes = [
        (share(f"ngrams:{passage.record}:{number}"), len(passage.text.encode(errors="replace")))
        for number, passage in enumerate(read_passages(settings.references, settings.passages))
    ]
    keys, lengths = np.array([key for key, _ in sizes]), np.array([size for _, size in sizes])
    order = np.argsort(keys, kind="stable")
    chosen = set(order[np.cumsum(lengths[order]) <= settings.sample_bytes].tolist())
    learned: list[str] = []
    heldout: list[str] = []
    for number, passage in enumerate(read_passages(settings.references, settings.passages)):
        if number in chosen:
            aside = share(f"ngrams-heldout:{passage.record}") < settings.heldout_fraction
            (heldout if aside else learned).append(passage.text)
    if not learned:
        raise BadInput(
            f"n-gram model {settings.name}: no passage to learn from, of {len(sizes)}",
            "the reference must hold text apart from its held-out records",
            "Give more reference files, or lower heldout_fraction or passages.min_characters",
        )
    return learned, heldout


def measure(model: NgramModel, heldout: Sequence[str]) -> dict[str, Any]:
    """Perplexity, bits per byte and unknown words of held-out text as a whole; nothing where there is none."""
    if not heldout:
        return {"heldout_passages": 0}
    scores = score_texts(model, prepare(["\n".join(heldout)], "words"))
    measured = per_text(scores, model.letters is not None)
    names = ("heldout_perplexity", "heldout_bits_per_byte", "heldout_unknown_words")
    numbers = {name: round(float(column[0]), REPORT_DIGITS) for name, column in zip(names, measured, strict=True)}
    return {"heldout_passages": len(heldout), "heldout_words": int(scores.words[0]), **numbers}


def learn(texts: Prepared, settings: NgramTrainingSettings) -> NgramModel:
    """A model of the texts, whatever their order."""
    hashes, places, depths = sentences(texts.data, texts.offsets, word_hashes(list(SPECIAL)))
    words, hashes, letters = number_words(texts.data, hashes, places, settings.min_count)
    levels = count_ngrams(words, depths, len(hashes), settings.order)
    estimates = estimate(levels, settings.prune)
    keys = [extend_all(np.zeros(len(hashes), np.uint64), hashes)]
    for level in levels[1:]:
        keys.append(extend_all(keys[-1][level.prefix], hashes[level.word]))
    backoffs = [each.backoffs for each in estimates[1:]] + [np.ones(len(keys[-1]))]
    kept = [each.stored for each in estimates]
    slots = build(
        np.concatenate([key[stored] for key, stored in zip(keys, kept, strict=True)]),
        np.log10(np.concatenate([each.probabilities[each.stored] for each in estimates])),
        np.log10(np.concatenate([weight[stored] for weight, stored in zip(backoffs, kept, strict=True)])),
    )
    return NgramModel(slots[0], slots[1], slots[2], settings.order, letters)


def number_words(
    data: np.ndarray, hashes: np.ndarray, places: np.ndarray, min_count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Word numbers of all positions, the hash of each number, and the bits of bytes in unknown words."""
    special = word_hashes(list(SPECIAL))
    distinct, first, inverse, counts = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    marks = np.isin(distinct, special)
    known = (counts >= min_count) & ~marks
    numbers = np.zeros(len(distinct), np.int64)
    numbers[known] = len(SPECIAL) + np.arange(known.sum())
    for number, mark in enumerate(special):
        numbers[distinct == mark] = number
    rare = places[first[~known & ~marks]]
    spelled = np.ones(BYTES_AND_END)
    count_bytes(data, rare, spelled)
    spelled[-1] += len(rare)
    return numbers[inverse], np.concatenate([special, distinct[known]]), -np.log2(spelled / spelled.sum())


def count_ngrams(words: np.ndarray, depths: np.ndarray, vocabulary: int, order: int) -> list[Level]:
    """The distinct n-grams of each order; depths tell how many words of its sentence stand before a position."""
    single = np.zeros(vocabulary, np.int64)
    counts = np.bincount(words, minlength=vocabulary)
    levels = [Level(single, single, np.arange(vocabulary), counts, np.arange(vocabulary) == BEGIN)]
    numbers = words
    for length in range(2, order + 1):
        where = np.flatnonzero(depths >= length - 1)
        codes = numbers[where - 1] * vocabulary + words[where]
        distinct, first, inverse, counts = np.unique(codes, return_index=True, return_inverse=True, return_counts=True)
        prefix = distinct // vocabulary
        suffix = numbers[where[first]]
        levels.append(Level(prefix, suffix, distinct % vocabulary, counts, levels[-1].from_begin[prefix]))
        numbers = np.full(len(words), -1, np.int64)
        numbers[where] = inverse
    return levels


def estimate(levels: Sequence[Level], prune: int) -> list[Estimate]:
    """Interpolated probabilities of every order, single words first."""
    estimates: list[Estimate] = []
    for index, level in enumerate(levels):
        highest = index == len(levels) - 1
        counts = level.counts if highest else _continuations(level, levels[index + 1])
        if index == 0:
            counts = np.where(np.arange(len(counts)) == BEGIN, 0, counts)
        held = np.maximum(counts - discounts(counts)[np.minimum(counts, 3)], 0.0)
        stored = level.counts >= prune if highest else np.ones(len(counts), bool)
        contexts = 1 if index == 0 else len(levels[index - 1].counts)
        totals = np.maximum(np.bincount(level.prefix, counts, contexts), 1e-300)
        kept = np.bincount(level.prefix, held * stored, contexts) / totals
        weights = np.clip(1.0 - kept, 1e-10, 1.0)
        shorter = 1.0 / (len(counts) - 1) if index == 0 else estimates[-1].probabilities[level.suffix]
        probabilities = held / totals[level.prefix] + weights[level.prefix] * shorter
        if index == 0:
            probabilities[BEGIN] = 1e-30  # never predicted
        estimates.append(Estimate(probabilities, weights, stored))
    return estimates


def _continuations(level: Level, longer: Level) -> np.ndarray:
    """How many different words stand before each n-gram; where none can, how often it is seen."""
    different = np.bincount(longer.suffix, minlength=len(level.counts))
    return np.where(level.from_begin, level.counts, different)


def discounts(counts: np.ndarray) -> np.ndarray:
    """What is taken from counts of 0, 1, 2, and 3 or more (Chen and Goodman 1998, equation 26)."""
    one, two, three, four = (int((counts == count).sum()) for count in (1, 2, 3, 4))
    if min(one, two, three, four) == 0:
        return np.array([0.0, *FALLBACK_DISCOUNTS])
    scale = one / (one + 2 * two)
    found = np.array([1 - 2 * scale * two / one, 2 - 3 * scale * three / two, 3 - 4 * scale * four / three])
    if (found <= 0).any() or (found >= (1, 2, 3)).any():
        return np.array([0.0, *FALLBACK_DISCOUNTS])
    return np.array([0.0, *found])


@njit(cache=True)
def sentences(data: np.ndarray, offsets: np.ndarray, special: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hash, (start, end) and number of words before it in its line, of every word, line begin and line end."""
    size = 0
    hashes = np.empty(0, np.uint64)
    places = np.empty((0, 2), np.int64)
    depths = np.empty(0, np.int64)
    for writes in (False, True):  # count first
        if writes:
            hashes = np.empty(size, np.uint64)
            places = np.zeros((size, 2), np.int64)
            depths = np.empty(size, np.int64)
        size = 0
        for text in range(len(offsets) - 1):
            position = offsets[text]
            stop = offsets[text + 1]
            depth = 0
            while position <= stop:
                ends = position == stop or data[position] == 10
                if not ends and is_space(data[position]):
                    position += 1
                    continue
                if ends and depth == 0:
                    position += 1
                    continue
                if depth == 0:
                    if writes:
                        hashes[size], depths[size] = special[BEGIN], 0
                    size += 1
                    depth = 1
                first = position
                word = special[END]
                if ends:
                    position += 1
                else:
                    position, word, _ = token_hashes(data, position, stop)
                if writes:
                    hashes[size], depths[size] = word, depth
                    places[size, 0], places[size, 1] = first, position
                size += 1
                depth = 0 if ends else depth + 1
    return hashes, places, depths


@njit(cache=True)
def count_bytes(data: np.ndarray, places: np.ndarray, counts: np.ndarray) -> None:
    """Add the bytes of some words to counts (at least 256)."""
    for index in range(len(places)):
        for position in range(places[index, 0], places[index, 1]):
            counts[data[position]] += 1
