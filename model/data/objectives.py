"""What a model is asked about a text: rows of tokens become what it reads and what it has to predict.

Rows come as those of next-token prediction, which is all that gpt and lstm do. The others are made of the same tokens,
each row by itself, from the seed and the number of its sample alone: no layout, micro-batch or resumption changes them.

    bert    of the tokens, ends of documents excepted, 15% have to be predicted. Of these 80% are read as the mask, 10%
            as any other token and 10% as themselves (arXiv:1810.04805)
    t5      15% of the tokens are taken out in gaps of 3 on average. The encoder reads the text with a sentinel in the
            place of each gap; the decoder writes sentinel after sentinel, each with what was in its gap, and one more
            sentinel at the end (arXiv:1910.10683)

The mask, and t5's sentinels, are rows of the embedding of their own after the tokenizer's vocabulary: bert's mask is
`vocabulary_size`, t5's decoder begins with `vocabulary_size`, and its k-th sentinel, from 0, is that + 1 + k.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model.settings.architecture import ModelSettings, gaps, lengths

Int32s = npt.NDArray[np.int32]

_HELD_OUT = 1 << 31
"""Added to the seed for held-out text, so that its questions are no sample's of training."""


class Objective:
    """Asks one architecture's questions; see the module docstring."""

    def __init__(
        self,
        model: ModelSettings,
        vocabulary_size: int,
        end_of_document: int,
        seed: int,
        *,
        held_out: bool = False,
    ) -> None:
        self._model, self._vocabulary, self._end = model, vocabulary_size, end_of_document
        self._seed = seed + _HELD_OUT if held_out else seed

    def ask(self, values: Int32s, samples: Sequence[int]) -> Int32s:
        """Rows of next-token prediction as rows of this objective, perhaps of another length.

        `values` are int32 [2 or 3, rows, positions] as in `model.data.batches`: tokens, labels (the sample's own
        tokens, -1 on padding at its end) and perhaps numbers of documents (-1 on padding). So is the result, which has
        documents also where padding is to be told from text; labels are -1 where nothing is predicted.
        """
        if self._model.predicts_next_token:
            return values
        asked = np.full((3, values.shape[1], sum(lengths(self._model))), -1, np.int32)
        asked[0] = 0
        corrupt = self._mask if self._model.architecture == "bert" else self._cut_gaps
        for row, sample in enumerate(samples):
            text = values[1, row]
            count = int((text >= 0).sum())
            documents = values[2, row, :count] if len(values) > 2 else np.zeros(count, np.int32)
            random = np.random.RandomState([self._seed, sample & 0xFFFFFFFF, sample >> 32])
            corrupt(asked[:, row], text[:count], documents, random)
        needs_documents = len(values) > 2 or bool((asked[2] < 0).any())
        return asked if needs_documents else asked[:2]

    def _mask(self, asked: Int32s, text: Int32s, documents: Int32s, random: Any) -> None:
        count = len(text)
        asked[0, :count], asked[2, :count] = text, documents
        candidates = np.flatnonzero(text != self._end)
        wanted = max(round(len(candidates) * self._model.masked_fraction), 1)
        chosen = random.permutation(candidates)[:wanted]
        fate, others = random.random_sample(len(chosen)), random.randint(0, self._vocabulary, len(chosen))
        asked[1, chosen] = text[chosen]
        asked[0, chosen] = np.where(fate < 0.8, self._vocabulary, np.where(fate < 0.9, others, text[chosen]))

    def _cut_gaps(self, asked: Int32s, text: Int32s, documents: Int32s, random: Any) -> None:
        if len(text) < 2:
            return
        missing, starts = _gaps(random, len(text), *gaps(self._model, len(text)))
        sentinels = self._vocabulary + 1 + np.arange(len(starts) + 1, dtype=np.int32)
        read, read_documents = text.copy(), documents
        read[starts] = sentinels[:-1]
        kept = ~missing
        kept[starts] = True
        # In the decoder each sentinel stands before what was in its gap, and the last one after all.
        within = np.flatnonzero(missing)
        places = np.append(np.searchsorted(within, starts), len(within))
        written = np.insert(text[within], places, sentinels)
        written_documents = np.insert(documents[within], places, documents[np.append(starts, -1)])
        encoder, count, length = lengths(self._model)[0], int(kept.sum()), len(written)
        asked[0, :count], asked[2, :count] = read[kept], read_documents[kept]
        decoder = asked[:, encoder : encoder + length]
        decoder[0, 0], decoder[0, 1:] = self._vocabulary, written[:-1]
        decoder[1], decoder[2] = written, written_documents


def _gaps(random: Any, tokens: int, missing: int, count: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Which of the tokens are missing, and where each of `count` gaps begins; a text begins with a token it keeps."""
    spans = np.stack([_parts(random, tokens - missing, count), _parts(random, missing, count)], 1).ravel()
    is_missing = np.repeat(np.arange(2 * count) % 2 == 1, spans)
    return is_missing, np.cumsum(spans)[::2]


def _parts(random: Any, total: int, count: int) -> npt.NDArray[np.int64]:
    """Lengths of `count` parts of a total, each at least 1, all divisions being equally likely."""
    cuts = np.sort(random.permutation(total - 1)[: count - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]])).astype(np.int64)
