"""Training of our own quality classifier: reference text against a random sample of the crawl.

The model is fastText's: the average of one weight for each word and word n-gram, through a sigmoid. With two labels a
hidden layer adds nothing to what such a model can say, so it has one dimension, and is learned by AdaGrad, in an order
that hashes decide. It is written as a fastText file, so that any other program can use it too. Records that are held
out (a tenth) tell how well it separates; the pieces of one book are never on both sides.

Sources: fastText, Joulin et al. 2016; reference against crawl, Brown et al. 2020 and Li et al. 2024 (DCLM); AdaGrad,
Duchi et al. 2011.
"""

import heapq
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, cast

import numpy as np
import pyarrow as pa
from numba import njit
from pydantic import Field

from infra.errors import BadInput
from infra.manifest import StageManifest
from infra.settings import Settings
from infra.store import Store
from tasks.heldout import share
from tasks.models.fasttext_file import (
    END_OF_SENTENCE,
    LinearModel,
    hash_table,
    is_space,
    probabilities,
    read_linear,
    text_features,
    token_hashes,
    write_linear,
)
from tasks.models.preparation import Prepared, prepare
from tasks.models.quality_model import ScoreModel
from tasks.models.reference import PassageSettings, ReferenceFile, read_passages, resolve_references
from tasks.quality.language import LIBRARIES, LanguageSignalSettings, label
from tasks.stage import Split, Stage, StageRunner

LABELS = ("__label__hq", "__label__crawl")
MODEL_SCHEMA = pa.schema(
    [pa.field("model", pa.large_binary(), nullable=False), pa.field("report", pa.string(), nullable=False)]
)
QUALITY_MODEL = Stage("quality_model", 1, MODEL_SCHEMA, libraries=("pyarrow", "numpy", "numba", *LIBRARIES))
REPORT_DIGITS = 6
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TEXTS_AT_ONCE = 5000


class QualityTrainingSettings(Settings):
    """What a classifier learns from, and how."""

    name: str = Field(default="quality", pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the model's score."""
    references: tuple[ReferenceFile, ...] = Field(min_length=1)
    """Text that counts as good."""
    languages: tuple[str, ...] | None = ("en",)
    """Languages of the crawl's documents to tell it from, those of the reference; unset takes documents of all."""
    passages: PassageSettings = PassageSettings()
    """How long the pieces are that it learns from; documents of the crawl are cut to their beginnings."""
    max_documents: int = Field(default=50_000, ge=10)
    """Pieces of each class at most, chosen by hash."""
    heldout_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of records that only measure the model."""
    word_ngrams: int = Field(default=2, ge=1, le=5)
    """Longest word n-gram (DCLM: 2)."""
    buckets: int = Field(default=2_000_000, ge=1)
    """Places that n-grams are hashed to (fastText's default)."""
    min_count: int = Field(default=2, ge=1)
    """Words that are seen less often have no weight of their own; their n-grams have."""
    max_words: int = Field(default=500_000, ge=1)
    """Words with a weight of their own, the most frequent ones."""
    epochs: int = Field(default=5, ge=1)
    """Passes over the training pieces (fastText's default)."""
    learning_rate: float = Field(default=1.0, gt=0)
    """Step of AdaGrad."""

    def resolved(self, store: Store) -> Self:
        """The same settings with the reference files' digests filled in."""
        return self.model_copy(update={"references": resolve_references(self.references, store)})


class Examples(NamedTuple):
    """Pieces of text, whether each is good, and whether it is held out."""

    texts: list[str]
    good: np.ndarray
    heldout: np.ndarray


class Vocabulary(NamedTuple):
    """Words by falling count, and the hash table that finds them."""

    words: list[bytes]
    counts: list[int]
    keys: np.ndarray
    rows: np.ndarray


def train_quality_model(
    runner: StageRunner, parent: StageManifest, settings: QualityTrainingSettings
) -> tuple[StageManifest, ScoreModel]:
    """Train a classifier on extracted documents. The model file stands in the stage's folder, beside its report.

    BadInput if there is too little reference text or too few documents of the wanted languages.
    """
    settings = settings.resolved(runner.store)
    function = TrainOnShards(tuple(parent.kept_paths))
    manifest = runner.run(QUALITY_MODEL, function, ["all shards"], settings, {parent.stage: parent.digest})
    row = runner.store.read_table(manifest.kept_paths[0])
    for name, column in (("model.bin", "model"), ("report.json", "report")):
        value = row[column][0].as_py()
        if not runner.store.exists(path := f"{manifest.folder}/{name}"):
            runner.store.write_bytes(path, value if isinstance(value, bytes) else value.encode(), private=True)
    model = ScoreModel(
        name=settings.name,
        path=f"{manifest.folder}/model.bin",
        label=LABELS[0],
        languages=settings.languages,
        preparation="words",
        max_characters=settings.passages.characters,
    )
    return manifest, model.resolved(runner.store)


@dataclass(frozen=True)
class TrainOnShards:
    """The shard function of the stage: its one shard reads a sample of all."""

    paths: tuple[str, ...]

    def __call__(self, store: Store, _: str, settings: QualityTrainingSettings) -> Iterator[Split]:
        """Yield a table of one row: the model and its report."""
        examples = gather(_documents(store, self.paths), settings)
        model, report = learn(examples, settings)
        row = {"model": pa.array([model], pa.large_binary()), "report": [json.dumps(report, indent=1)]}
        counters = {name: value for name, value in report.items() if isinstance(value, int)}
        yield Split(pa.table(row, schema=MODEL_SCHEMA), counters=counters)


def _documents(store: Store, paths: Iterable[str]) -> Iterator[tuple[str, str, str | None]]:
    for path in paths:
        reader = store.open_table(path, ["id", "text", "language"])
        for index in range(reader.num_record_batches):
            batch = reader.get_batch(index)
            columns: list[list[Any]] = [batch[name].to_pylist() for name in ("id", "text", "language")]
            yield from zip(*columns, strict=True)


def gather(documents: Iterable[tuple[str, str, str | None]], settings: QualityTrainingSettings) -> Examples:
    """Examples from (id, text, language) of the crawl and from the reference, in an order that hashes decide.

    A text without a language is asked for it. BadInput if a class has too little to learn from or to measure by.
    """
    crawl = Sample(settings.max_documents)
    for each, text, language in documents:
        if text and len(text) >= settings.passages.min_characters and crawl.wants(key := share(f"quality:{each}")):
            head = text[: settings.passages.characters]
            if settings.languages is None or (language or _language_of(head)) in settings.languages:
                crawl.add(key, each, head)
    reference = Sample(settings.max_documents)
    for number, passage in enumerate(read_passages(settings.references, settings.passages)):
        reference.add(share(f"quality:{passage.record}:{number}"), passage.record, passage.text)
    rows = [(*row, True) for row in reference.rows] + [(*row, False) for row in crawl.rows]
    rows.sort(key=lambda row: (row[0], row[1]))
    heldout = [share(f"quality-heldout:{record}") < settings.heldout_fraction for _, record, _, _ in rows]
    examples = Examples([row[2] for row in rows], np.array([row[3] for row in rows], bool), np.array(heldout, bool))
    for name, good in (("reference text", True), ("crawl documents", False)):
        for part, side in (("to learn from", False), ("held out", True)):
            if not ((examples.good == good) & (examples.heldout == side)).any():
                raise BadInput(
                    f"quality model {settings.name}: no {name} {part} (of {len(reference.rows)} and {len(crawl.rows)})",
                    "both classes need records to learn from and, apart from these, records to measure by",
                    "Give more reference files or shards, or change languages, heldout_fraction or min_characters",
                )
    return examples


def _language_of(text: str) -> str:
    return cast("str", label([text], LanguageSignalSettings())["language"][0].as_py())


class Sample:
    """The passages of the smallest keys, whatever the order they come in."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[float, str, str]] = []

    def wants(self, key: float) -> bool:
        """Whether a passage of this key would be taken now."""
        return len(self._heap) < self._size or key < -self._heap[0][0]

    def add(self, key: float, record: str, text: str) -> None:
        """Take a passage if its key is among the smallest."""
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, (-key, record, text))
        elif self.wants(key):
            heapq.heapreplace(self._heap, (-key, record, text))

    @property
    def rows(self) -> list[tuple[float, str, str]]:
        """(key, record, text) by rising key."""
        return sorted((-negative, record, text) for negative, record, text in self._heap)


def learn(examples: Examples, settings: QualityTrainingSettings) -> tuple[bytes, dict[str, Any]]:
    """A fastText file and a report: how much was learned from, and how well held-out pieces are told apart."""
    learned = np.flatnonzero(~examples.heldout)
    texts = prepare([examples.texts[index] for index in learned], "words")
    good = examples.good[learned]
    vocabulary = count_words(texts, settings.min_count, settings.max_words)
    weights = descend(texts, good, vocabulary, settings)
    model = write_linear(vocabulary.words, vocabulary.counts, LABELS, weights, settings.word_ngrams)
    measured = np.flatnonzero(examples.heldout)
    linear = cast("LinearModel", read_linear(model))
    scores = probabilities(linear, prepare([examples.texts[index] for index in measured], "words"), 0)
    report = {
        "learned_reference": int(good.sum()),
        "learned_crawl": int((~good).sum()),
        "words": len(vocabulary.words),
        **measure(scores, examples.good[measured]),
    }
    return model, report


def measure(scores: np.ndarray, good: np.ndarray) -> dict[str, Any]:
    """Held-out counts, area under the ROC curve, accuracy at 0.5 (mean of the classes) and quantiles of the scores."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]  # equal scores share the mean of their ranks
    positives, negatives = int(good.sum()), int((~good).sum())
    area = (ranks[good].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    accuracy = ((scores[good] >= 0.5).mean() + (scores[~good] < 0.5).mean()) / 2
    quantiles = {
        f"heldout_{name}_quantiles": [round(float(q), REPORT_DIGITS) for q in np.quantile(part, QUANTILES)]
        for name, part in (("reference", scores[good]), ("crawl", scores[~good]))
    }
    return {
        "heldout_reference": positives,
        "heldout_crawl": negatives,
        "heldout_auc": round(float(area), REPORT_DIGITS),
        "heldout_accuracy": round(float(accuracy), REPORT_DIGITS),
        "quantiles": list(QUANTILES),
        **quantiles,
    }


def count_words(texts: Prepared, min_count: int, max_words: int) -> Vocabulary:
    """The words seen at least min_count times, most frequent first, and fastText's end-of-sentence word."""
    hashes, places = np.empty(0, np.uint64), np.empty((0, 2), np.int64)
    counts = np.empty(0, np.int64)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        found, where = list_tokens(texts.data, texts.offsets[start : start + TEXTS_AT_ONCE + 1])
        every = np.concatenate([hashes, found])
        hashes, first, inverse = np.unique(every, return_index=True, return_inverse=True)
        counts = np.bincount(inverse, np.concatenate([counts, np.ones(len(found), np.int64)])).astype(np.int64)
        places = np.concatenate([places, where])[first]
    frequent = np.flatnonzero(counts >= min_count)
    words = [texts.data[places[index, 0] : places[index, 1]].tobytes() for index in frequent]
    ranked = sorted(zip((-counts[frequent]).tolist(), words, strict=True))[:max_words]
    chosen = [END_OF_SENTENCE, *(word for _, word in ranked)]
    spelled = np.frombuffer(b"\0".join(chosen) + b"\0", np.uint8)
    offsets = np.concatenate([[0], np.cumsum([len(word) + 1 for word in chosen])])
    return Vocabulary(
        chosen, [len(texts), *(-count for count, _ in ranked)], *hash_table(list_tokens(spelled, offsets)[0])
    )


@njit(cache=True)
def list_tokens(data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hash and (start, end) of every token of the texts."""
    capacity = (offsets[-1] - offsets[0]) // 2 + len(offsets)
    hashes = np.empty(capacity, np.uint64)
    places = np.empty((capacity, 2), np.int64)
    size = 0
    for text in range(len(offsets) - 1):
        position = offsets[text]
        while position < offsets[text + 1]:
            if is_space(data[position]):
                position += 1
                continue
            end, hashes[size], _ = token_hashes(data, position, offsets[text + 1])
            places[size, 0], places[size, 1] = position, end
            position = end
            size += 1
    return hashes[:size], places[:size]


def descend(texts: Prepared, good: np.ndarray, vocabulary: Vocabulary, settings: QualityTrainingSettings) -> np.ndarray:
    """Weights (words + buckets,), float32, by AdaGrad on the logistic loss; both classes weigh the same in all."""
    weights = np.zeros(len(vocabulary.words) + settings.buckets, np.float64)
    shares = np.where(good, 0.5 / good.mean(), 0.5 / (1 - good.mean()))
    adagrad(
        texts.data, texts.offsets, good, shares, weights, np.zeros_like(weights), vocabulary.keys, vocabulary.rows,
        len(vocabulary.words), settings.word_ngrams, settings.epochs, settings.learning_rate,
    )  # fmt: skip
    return weights.astype(np.float32)


@njit(cache=True)
def adagrad(
    data: np.ndarray,
    offsets: np.ndarray,
    good: np.ndarray,
    shares: np.ndarray,
    weights: np.ndarray,
    squares: np.ndarray,
    table_keys: np.ndarray,
    table_rows: np.ndarray,
    words: int,
    word_ngrams: int,
    epochs: int,
    learning_rate: float,
) -> None:
    """Learn weights in place, text by text in their order; squares are AdaGrad's sums of squared gradients."""
    longest = 0
    for text in range(len(offsets) - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    rows = np.empty(word_ngrams * (longest // 2 + 2), np.int64)
    recent = np.empty(word_ngrams, np.uint64)
    occurrences = np.zeros(len(weights), np.int32)
    for _ in range(epochs):
        for text in range(len(offsets) - 1):
            size = text_features(
                data, offsets[text], offsets[text + 1], table_keys, table_rows,
                words, len(weights) - words, word_ngrams, recent, rows,
            )  # fmt: skip
            logit = 0.0
            for index in range(size):
                logit += weights[rows[index]]
                occurrences[rows[index]] += 1
            error = (1.0 / (1.0 + np.exp(-logit / size)) - good[text]) * shares[text] / size
            for index in range(size):
                row = rows[index]
                gradient = error * occurrences[row]
                if gradient != 0.0:
                    squares[row] += gradient * gradient
                    weights[row] -= learning_rate * gradient / np.sqrt(squares[row])
                occurrences[row] = 0
