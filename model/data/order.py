"""The order of training: which tokens make up which sample.

It is a function of the seed, the datasets and the settings of the data alone. In each epoch of a dataset its documents
are shuffled, so that copies of one are far apart, packed into samples (see model.data.packing), and the samples are
shuffled; samples of several datasets are merged by weight. A longer run begins as a shorter one, and the state is one
integer, the number of samples consumed: it means the same under every layout.

Megatron-Core's GPTDataset is not used: its order changes with the length of the run, it needs index files that must be
invalidated by hand, and it copies every token array through its own file format.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from infra.errors import BadInput
from model.data.blend import Blend
from model.data.documents import Documents
from model.data.packing import BestFit, BestFitEpoch, CutEpoch, Epoch, Pieces
from model.data.settings import DataSettings


class SourceOrder:
    """The samples of one dataset, epoch after epoch."""

    def __init__(self, documents: Documents, length: int, seed: int, packing: str = "cut") -> None:
        self.documents, self._length, self._seed = documents, length, seed
        self._plan = BestFit(documents.lengths, length) if packing == "best-fit" else None
        tokens = int(documents.lengths.sum())
        self.samples_per_epoch = tokens // length if self._plan is None else self._plan.samples
        if tokens < length:
            raise BadInput(
                f"the training split has {tokens} tokens",
                f"one sample takes sequence_length = {length} tokens",
                "Lower model.sequence_length, or build a larger dataset",
            )
        self._current: tuple[int, Epoch, np.ndarray] | None = None

    @property
    def padding_share(self) -> float:
        """Part of the samples' positions that holds no token."""
        return self._plan.padding_share if self._plan else 0.0

    def pieces(self, index: int) -> Pieces:
        """Pieces of sample `index`, counted from the start of training."""
        number, within = divmod(index, self.samples_per_epoch)
        current = self._current
        if current is None or current[0] != number:
            current = self._current = (number, *self._shuffled(number))
        return current[1].pieces(int(current[2][within]))

    def _shuffled(self, number: int) -> tuple[Epoch, np.ndarray]:
        """The documents of an epoch, packed, and the order of its samples."""
        # The legacy generator, because NumPy promises that its numbers never change.
        random = np.random.RandomState([self._seed, number])
        count = len(self.documents)
        order = random.permutation(count).astype(np.int32 if count < 1 << 31 else np.int64)
        lengths = self.documents.lengths
        epoch = BestFitEpoch(self._plan, lengths, order) if self._plan else CutEpoch(lengths, order, self._length)
        return epoch, random.permutation(self.samples_per_epoch)


class Sample(NamedTuple):
    """What one sample predicts."""

    source: int
    """Number of the dataset in the blend."""
    pieces: Pieces


class TrainingOrder:
    """Samples in training order; see the module docstring."""

    def __init__(self, sources: Sequence[SourceOrder], weights: Sequence[float] = (1.0,)) -> None:
        self.sources = tuple(sources)
        self._blend = Blend(weights)

    @property
    def shares(self) -> tuple[float, ...]:
        """Part of the samples that each dataset has."""
        return self._blend.shares

    def sample(self, place: int) -> Sample:
        """The sample at a place, counted from the start of training; `model.data.skips` says who takes which place."""
        source, index = self._blend.at(place)
        return Sample(source, self.sources[source].pieces(index))

    def epochs(self, samples: int) -> list[float]:
        """How often each dataset is passed over in so many samples."""
        return [
            samples * share / source.samples_per_epoch for share, source in zip(self.shares, self.sources, strict=True)
        ]

    def describe(self, samples: int, names: Sequence[str] = ()) -> str:
        """What so many samples take of each dataset: "2.0 epochs", or "web 75.0% (2.0 epochs), books 25.0% (...)"."""
        epochs = [f"{each:.1f} epochs" for each in self.epochs(samples)]
        parts = [f"{name} {part:.1%} ({each})" for name, part, each in zip(names, self.shares, epochs, strict=False)]
        padding = [f"{self.padding_share:.2%} padding"] if self.padding_share > 0 else []
        return ", ".join([*(parts or epochs), *padding])

    @property
    def padding_share(self) -> float:
        """Part of the samples' positions that holds no token."""
        return sum(share * source.padding_share for share, source in zip(self.shares, self.sources, strict=True))


def training_order(documents: Sequence[Documents], settings: DataSettings, length: int, seed: int) -> TrainingOrder:
    """The order of a run on the training splits of its datasets, those of `settings.blend` or the only one.

    BadInput for a dataset that does not fill one sample.
    """
    sources = [SourceOrder(each, length, seed, settings.packing) for each in documents]
    if not settings.blend:
        return TrainingOrder(sources)
    weights = [
        entry.weight or (entry.epochs or 0) * source.samples_per_epoch
        for entry, source in zip(settings.blend, sources, strict=True)
    ]
    return TrainingOrder(sources, weights)
