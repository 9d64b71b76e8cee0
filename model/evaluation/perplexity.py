"""Perplexity of held-out text as a whole and by source, language and host, each figure with its interval.

Documents are what chance drew, so intervals come from resampled documents. Of the figures only those for words and
bytes compare models of different tokenizers; words are what stands between white space, of the text that a document's
tokens spell. All of a document's nats count, its end included, so that groups add up to the whole.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.manifest import DatasetManifest
from infra.store import Store
from infra.vocabulary import Vocabulary, load_vocabulary
from model.evaluation.groups import Group, members
from model.findings.intervals import estimate
from model.findings.records import EXPONENTIAL, SCORES, Estimate, GroupLikelihood
from model.settings.benchmarks import BenchmarkSettings

if TYPE_CHECKING:
    from model.evaluation.heldout import DocumentNats, HeldOut
    from model.parallel import Place

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.signedinteger[Any]]

MOST_NATS = 100.0
"""A group with more nats for each word has no perplexity of words: its script sets no spaces between them."""


@dataclass(frozen=True)
class HeldOutLikelihood:
    """What was measured of each document; arrays of one length, in the order of the split."""

    nats: Floats
    tokens: Integers
    """Predicted tokens."""
    words: Integers
    text_bytes: Integers
    members: Mapping[str, Integers]
    """Documents of each group: all, source=web, language=en, host=example.org."""
    every_token: bool
    """Whether the nats are of every token; else they are no likelihood of words and bytes."""

    def groups(self, settings: BenchmarkSettings) -> tuple[GroupLikelihood, ...]:
        """The figures of each group in which anything was predicted."""
        found = []
        for name, documents in self.members.items():
            if self.tokens[documents].sum():
                found.append(
                    GroupLikelihood(
                        group=name,
                        documents=len(documents),
                        tokens=int(self.tokens[documents].sum()),
                        words=int(self.words[documents].sum()),
                        text_bytes=int(self.text_bytes[documents].sum()),
                        metrics=self._metrics(documents, settings),
                    )
                )
        return tuple(found)

    def scores(self) -> pa.Table:
        """SCORES of all groups, whose tasks are called heldout/GROUP."""
        parts = [SCORES.empty_table()]
        for name, documents in self.members.items():
            predicted = documents[self.tokens[documents] > 0]
            rows = len(predicted)
            for metric, (values, weights) in self._columns().items():
                columns = [
                    pa.repeat(pa.scalar(f"heldout/{name}"), rows),
                    pa.array(predicted, pa.int32()),
                    pa.repeat(pa.scalar(metric), rows),
                    pa.array(values[predicted], pa.float64()),
                    pa.array(weights[predicted], pa.float64()),
                ]
                parts.append(pa.table(columns, schema=SCORES))
        return pa.concat_tables(parts)

    def _columns(self) -> dict[str, tuple[Floats, Integers]]:
        """Values and weights of each metric."""
        found = {"loss": (self.nats, self.tokens), "perplexity": (self.nats, self.tokens)}
        if self.every_token:
            found["word_perplexity"] = (self.nats, self.words)
            found["byte_perplexity"] = (self.nats, self.text_bytes)
            found["bits_per_byte"] = (self.nats / math.log(2), self.text_bytes)
        return found

    def _metrics(self, documents: Integers, settings: BenchmarkSettings) -> dict[str, Estimate]:
        predicted = documents[self.tokens[documents] > 0]
        found = {}
        for metric, (values, weights) in self._columns().items():
            value, weight, exponential = values[predicted], weights[predicted], metric in EXPONENTIAL
            if weight.sum() > 0 and not (exponential and value.sum() > MOST_NATS * weight.sum()):
                found[metric] = _estimate(value, weight, settings, exponential=exponential)
        return found


@dataclass(frozen=True)
class HeldOutText:
    """What is known of held-out documents without a model; fields are those of HeldOutLikelihood."""

    words: Integers
    text_bytes: Integers
    members: Mapping[str, Integers]

    def likelihood(self, found: "DocumentNats", *, every_token: bool) -> HeldOutLikelihood:
        """With what a model makes of the same documents."""
        known = {"words": self.words, "text_bytes": self.text_bytes, "members": self.members}
        return HeldOutLikelihood(nats=found.nats, tokens=found.tokens, every_token=every_token, **known)


def held_out_text(
    store: Store, dataset: DatasetManifest, held_out: "HeldOut", groups: Sequence[Group], place: "Place"
) -> HeldOutText:
    """Words, bytes and groups of the documents; every rank calls this and gets all of it."""
    return HeldOutText(
        words=count_words(held_out, load_vocabulary(store, dataset.tokenizer), place),
        text_bytes=held_out.documents.text_bytes[: held_out.count],
        members=place.share(members(store, dataset, held_out, groups) if place.rank == 0 else None),
    )


def held_out_likelihood(
    store: Store,
    dataset: DatasetManifest,
    held_out: "HeldOut",
    found: "DocumentNats",
    groups: Sequence[Group],
    place: "Place",
    *,
    every_token: bool,
) -> HeldOutLikelihood:
    """`held_out_text` with what a model makes of it, for texts that are measured once."""
    return held_out_text(store, dataset, held_out, groups, place).likelihood(found, every_token=every_token)


def count_words(held_out: "HeldOut", vocabulary: Vocabulary, place: "Place") -> Integers:
    """Words between white space of each document, for whose decoding the ranks share the work."""
    import torch

    counts = torch.zeros(held_out.count, dtype=torch.int64)
    for number in range(place.rank, held_out.count, place.processes):
        tokens = held_out.documents.read(number, 0, int(held_out.documents.lengths[number]))
        counts[number] = len(vocabulary.decode(tokens.tolist()).split())
    return place.sum_counts(counts).numpy()


def _estimate(values: Floats, weights: Integers, settings: BenchmarkSettings, *, exponential: bool) -> Estimate:
    # Of few documents a draw may be one that no script's words fit, whose perplexity no number holds.
    with np.errstate(over="ignore"):
        found = estimate(
            values, weights, settings.bootstrap_draws, settings.confidence, settings.seed, exponential=exponential
        )
    finite = {
        name: each if each is not None and math.isfinite(each) else None for name, each in found if name != "value"
    }
    return found.model_copy(update=finite)
